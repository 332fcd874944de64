package faultproxy

import (
	"crypto/sha256"
	"hash"
	"io"
	"slices"
	"sync"
)

// namesLimit bounds the names that are watched (F3), some 200 bytes each.
const namesLimit = 1 << 20

// names are the digests of what was put under each name first.
type names struct {
	mu      sync.Mutex
	digests map[string][sha256.Size]byte
	changed []string // names that were put with other bytes later
}

// watched is the body of a PUT on its way to the store. The transport may go on reading
// while the answer is there.
type watched struct {
	io.Reader
	mu   sync.Mutex // guards what follows
	sum  hash.Hash
	n    int64
	over bool // the body came to its end
}

func newWatched(body io.Reader) *watched { return &watched{Reader: body, sum: sha256.New()} }

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.sum.Write(p[:n])
	w.n += int64(n)
	w.over = w.over || err == io.EOF
	return n, err
}

// Close implements io.Closer; the server closes the body of a request.
func (w *watched) Close() error { return nil }

// note keeps what the store was given under a name, and did not refuse: it is there, or
// may be. size is that of the body, -1 if that is not known; a part of it is no object.
func (s *names) note(name string, w *watched, size int64) {
	w.mu.Lock()
	whole, digest := w.n == size || size < 0 && w.over, [sha256.Size]byte(w.sum.Sum(nil))
	w.mu.Unlock()
	if !whole {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first, known := s.digests[name]
	switch {
	case known && first != digest && !slices.Contains(s.changed, name):
		s.changed = append(s.changed, name)
	case !known && len(s.digests) < namesLimit:
		if s.digests == nil {
			s.digests = map[string][sha256.Size]byte{}
		}
		s.digests[name] = digest
	}
}

// Names returns how many names were put, as far as they are watched.
func (p *Proxy) Names() int {
	p.names.mu.Lock()
	defer p.names.mu.Unlock()
	return len(p.names.digests)
}

// Overwritten returns the paths of objects that were put more than once with other
// bytes, whether or not they were deleted between.
func (p *Proxy) Overwritten() []string {
	p.names.mu.Lock()
	defer p.names.mu.Unlock()
	return slices.Clone(p.names.changed)
}
