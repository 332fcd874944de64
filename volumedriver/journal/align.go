package journal

import (
	"unsafe"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// aligned reports whether p can be used for direct I/O.
func aligned(p []byte) bool {
	return len(p) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%blockfs.Alignment == 0
}
