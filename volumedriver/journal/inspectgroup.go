package journal

import (
	"fmt"
	"io"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// InspectedFrame is a frame that InspectGroup found.
type InspectedFrame struct {
	Off            int64 // in the file, bytes
	Number, Oldest uint64
	Bytes          int64 // header and data
	Records        []InspectedRecord
}

// InspectedRecord is a record of a frame.
type InspectedRecord struct {
	Chunk   string  // name of the file that it belongs into
	Off     int64   // there, bytes
	Header  *Header // nil: it is damaged, as Problem says
	Problem string
}

// InspectGroup reads a file of the group log, in size bytes of f, and calls fn for its frames,
// in order of place: behind the newest are those of the turn before. It writes nothing. The
// error is that of f.
func InspectGroup(f io.ReaderAt, size int64, fn func(InspectedFrame)) error {
	frames, err := scanFrames(readOnly{ReaderAt: f}, size)
	if err != nil {
		return err
	}
	for _, fr := range frames {
		in := InspectedFrame{Off: fr.off, Number: fr.number, Oldest: fr.oldest, Bytes: fr.size()}
		data := blockfs.AlignedBuffer(int(fr.dataBytes))
		if _, err := f.ReadAt(data, fr.off+int64(fr.headerBytes)); err != nil {
			return fmt.Errorf("at offset %d: %w", fr.off, err)
		}
		for i := range fr.records {
			r := &fr.records[i]
			h, _, err := r.record(data)
			data = data[r.data:]
			one := InspectedRecord{Chunk: fmt.Sprintf("%s%08d", chunkName, r.chunk), Off: r.off, Header: h}
			if err != nil {
				one.Problem = err.Error() + ", or its write was torn"
			}
			in.Records = append(in.Records, one)
		}
		fn(in)
	}
	return nil
}
