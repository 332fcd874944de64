package journal

import (
	"fmt"
	"io"
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
	for i := range frames {
		f := &frames[i]
		in := InspectedFrame{Off: f.off, Number: f.number, Oldest: f.oldest, Bytes: f.size()}
		err := f.each(func(r *framed, h *Header, _ []byte, err error) {
			one := InspectedRecord{Chunk: fmt.Sprintf("%s%08d", chunkName, r.chunk), Off: r.off, Header: h}
			if err != nil {
				one.Problem = err.Error() + ", or its write was torn"
			}
			in.Records = append(in.Records, one)
		})
		if err != nil {
			return fmt.Errorf("at offset %d: %w", f.off, err)
		}
		fn(in)
	}
	return nil
}
