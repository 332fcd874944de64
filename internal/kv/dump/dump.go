// Package dump writes the records of stores to a file and reads them back, for copies of the
// metadata that are kept elsewhere.
//
// # Format
//
// A gzip stream of lines, each a JSON object and none longer than maxLine:
//
//	{"ovgateMetadata":1,"made":TIME,"version":..,"cluster":..,"node":..}   Header
//	{"store":"registry","revision":N}                            the records of a store begin
//	{"k":KEY,"v":VALUE}                                          a record; keys grow
//	...
//	{"store":"nsm","revision":N}                                 those of another one
//	...
//	{"end":true,"records":N,"sha256":HASH}                       trailer
//
// KEY is text; one that is no UTF-8 is "kb" in base64 instead. VALUE is base64. N counts the
// records of all stores, HASH is the SHA-256 of all lines before, in hex.
//
// # Invariants
//
//	D1  The records of a store are those of one revision of it (kv.Store.Dump); those of
//	    several stores are taken one after the other, in the order of the file.
//	D2  What a lease holds is left out: its owner makes it anew.
//	D3  A file that ends early, goes on after its trailer, has another number of records or
//	    another hash is ErrDamaged, at its end at the latest: whoever acts on what Next
//	    returned before can undo it, or reads the file through first.
//
// It does not know what the records are.
package dump

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
	"unicode/utf8"

	"github.com/openvstorage/ovgate/internal/kv"
)

const (
	// Format is the newest format that this code reads and writes.
	Format = 1
	// maxLine bounds a line: a record as large as any, in base64, with its key.
	maxLine = 2 * kv.MaxTxnBytes
	// maxName bounds the name of a store.
	maxName = 64
)

var (
	// ErrDamaged: the file is no copy of metadata, or not what was written.
	ErrDamaged = errors.New("the copy of the metadata is damaged")
	// ErrFormat: a newer version wrote it.
	ErrFormat = errors.New("the copy of the metadata has a newer format")
)

// Header says what a file is a copy of.
type Header struct {
	Format  int       `json:"ovgateMetadata"`
	Made    time.Time `json:"made"`
	Version string    `json:"version"` // of ovgate
	Cluster Identity  `json:"cluster"`
	Node    Identity  `json:"node"` // that made it
}

// Identity is a UUID and what people call it.
type Identity struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Source is a store to copy.
type Source struct {
	Name  string // without a meaning here
	Store kv.Store
	// Keep tells which records are copied, of those without a lease; nil: all.
	Keep func(kv.KV) bool
}

// Record is a record of a file.
type Record struct {
	Store      string
	Key, Value []byte
}

// line is any line but the first.
type line struct {
	Store    string `json:"store,omitempty"`
	Revision int64  `json:"revision,omitempty"`

	Key   string `json:"k,omitempty"`
	Bytes []byte `json:"kb,omitempty"`
	Value []byte `json:"v,omitempty"`

	End     bool   `json:"end,omitempty"`
	Records int64  `json:"records,omitempty"`
	Hash    string `json:"sha256,omitempty"`
}

// writer writes lines and reckons their hash.
type writer struct {
	z    *gzip.Writer
	hash hash.Hash
}

func (w *writer) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	w.hash.Write(b)
	_, err = w.z.Write(b)
	return err
}

// Write copies stores to a file. Every store waits for w, as kv.Store.Dump says: a w that is
// slower than a local disk does not do.
func Write(ctx context.Context, w io.Writer, h Header, stores ...Source) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := &writer{z: z, hash: sha256.New()}
	h.Format = Format
	if err := out.line(h); err != nil {
		return err
	}
	records := int64(0)
	for _, s := range stores {
		err := s.Store.Dump(ctx, "", func(rev int64) error {
			return out.line(line{Store: s.Name, Revision: rev})
		}, func(e kv.KV) error {
			if e.Lease != 0 || s.Keep != nil && !s.Keep(e) {
				return nil
			}
			records++
			l := line{Value: e.Value}
			if utf8.Valid(e.Key) {
				l.Key = string(e.Key)
			} else {
				l.Bytes = e.Key
			}
			return out.line(l)
		})
		if err != nil {
			return fmt.Errorf("copy the records of %s: %w", s.Name, err)
		}
	}
	sum := hex.EncodeToString(out.hash.Sum(nil))
	if err := out.line(line{End: true, Records: records, Hash: sum}); err != nil {
		return err
	}
	return z.Close()
}

// Reader reads a file.
type Reader struct {
	Header Header
	// Revisions are those of the stores whose records began so far.
	Revisions map[string]int64
	// Records counts those that Next returned.
	Records int64

	lines *bufio.Reader
	z     *gzip.Reader
	hash  hash.Hash
	store string
	last  []byte // key of the newest record of the store
	ended bool
}

// NewReader begins to read a file. ErrDamaged, ErrFormat.
func NewReader(from io.Reader) (*Reader, error) {
	z, err := gzip.NewReader(from)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r := &Reader{Revisions: map[string]int64{}, z: z, lines: bufio.NewReaderSize(z, 64<<10), hash: sha256.New()}
	b, err := r.line()
	if err != nil {
		return nil, err
	}
	r.hash.Write(b)
	err = json.Unmarshal(b, &r.Header)
	switch h := r.Header; {
	case err != nil || h.Format < 1:
		return nil, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	case h.Format > Format:
		return nil, fmt.Errorf("%w: %d, this version knows %d: upgrade ovgate", ErrFormat, h.Format, Format)
	}
	return r, nil
}

// line reads one, of maxLine bytes at most, with its end.
func (r *Reader) line() ([]byte, error) {
	var out []byte
	for {
		part, err := r.lines.ReadSlice('\n')
		out = append(out, part...)
		switch {
		case len(out) > maxLine:
			return nil, fmt.Errorf("%w: after %d records a line is longer than %d bytes", ErrDamaged, r.Records, maxLine)
		case err == nil:
			return out, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%w: it ends after %d records, in the middle", ErrDamaged, r.Records)
		default:
			return nil, fmt.Errorf("%w: after %d records: %w", ErrDamaged, r.Records, err)
		}
	}
}

// Next returns the next record; io.EOF after the last one of a file that is whole (D3).
func (r *Reader) Next() (Record, error) {
	for !r.ended {
		b, err := r.line()
		if err != nil {
			return Record{}, err
		}
		var l line
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			return Record{}, fmt.Errorf("%w: after %d records: %w", ErrDamaged, r.Records, err)
		}
		if l.End {
			return Record{}, r.end(l)
		}
		r.hash.Write(b)
		if l.Store == "" {
			return r.record(l)
		}
		if _, twice := r.Revisions[l.Store]; twice || len(l.Store) > maxName {
			return Record{}, fmt.Errorf("%w: after %d records store %.64q begins again", ErrDamaged, r.Records, l.Store)
		}
		r.store, r.last = l.Store, nil
		r.Revisions[l.Store] = l.Revision
	}
	return Record{}, io.EOF
}

func (r *Reader) record(l line) (Record, error) {
	out := Record{Store: r.store, Key: l.Bytes, Value: l.Value}
	if l.Key != "" {
		out.Key = []byte(l.Key)
	}
	if out.Value == nil {
		out.Value = []byte{}
	}
	if r.store == "" || bytes.Compare(out.Key, r.last) <= 0 || kv.Validate(nil, []kv.Op{kv.Put(string(out.Key), out.Value)}, nil) != nil {
		return out, fmt.Errorf("%w: record %d, %.64q, cannot be there", ErrDamaged, r.Records+1, out.Key)
	}
	r.last = out.Key
	r.Records++
	return out, nil
}

// end checks the trailer, and that nothing follows it.
func (r *Reader) end(l line) error {
	sum := hex.EncodeToString(r.hash.Sum(nil))
	switch _, err := r.lines.ReadByte(); {
	case l.Records != r.Records:
		return fmt.Errorf("%w: it has %d records, and had %d", ErrDamaged, r.Records, l.Records)
	case l.Hash != sum:
		return fmt.Errorf("%w: its checksum is another one", ErrDamaged)
	case err == nil:
		return fmt.Errorf("%w: it goes on after its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r.ended = true
	return io.EOF
}
