package volume

// Bounds of the objects that InspectHead and InspectPast take, in bytes: a larger one
// is damaged.
const (
	MaxHeadBytes = maxHeadBytes
	MaxPastBytes = maxPastBytes
	// MaxIndexBytes bounds the checkpoint of a map.
	MaxIndexBytes = maxIndexBytes
)

// InspectHead verifies a head object by itself. Errors: ErrCorrupt, or that it needs
// a newer version.
func InspectHead(b []byte) (*Head, HeadRef, error) { return decodeHead(b) }
