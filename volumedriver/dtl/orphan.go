package dtl

import (
	"context"
	"time"
)

// Copy is what a Server has of a vDisk.
type Copy struct {
	VDisk      [16]byte
	Node       string // whose copy it is
	Epoch      uint32
	Generation uint64
	Adopted    bool
	Unused     time.Duration // since its node asked for something
}

// Usage is what a Server has.
type Usage struct {
	Copies, Sessions int
	Bytes, MaxBytes  int64 // of chunks
}

// Usage returns how full the server is.
func (s *Server) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Sessions: len(s.sessions), Bytes: s.bytes, MaxBytes: s.o.MaxBytes}
	for _, c := range s.copies {
		if c.kept.Load() {
			u.Copies++
		}
	}
	return u
}

// Copies returns what there is, in no particular order.
func (s *Server) Copies() []Copy {
	s.mu.Lock()
	all := make([]*copyOf, 0, len(s.copies))
	for _, c := range s.copies {
		all = append(all, c)
	}
	s.mu.Unlock()
	now := s.o.Clock.Now()
	var out []Copy
	for _, c := range all {
		c.mu.Lock()
		if st := &c.state; st.Generation != 0 {
			out = append(out, Copy{VDisk: c.vdisk, Node: st.Node, Epoch: st.Epoch, Generation: st.Generation, Adopted: st.Adopted, Unused: now.Sub(c.used)})
		}
		c.mu.Unlock()
	}
	return out
}

// Collect forgets a copy that orphan says nobody needs, by what the registry says; one that
// was adopted stays. Requests for the copy wait until orphan has answered, which it does
// soon after ctx ends: so what the registry says of the copy is not older than the newest
// request that the copy answered. An error of orphan keeps the copy.
func (s *Server) Collect(ctx context.Context, vdisk [16]byte, orphan func(context.Context, Copy) (bool, error)) (gone bool, err error) {
	s.mu.Lock()
	c := s.copies[vdisk]
	s.mu.Unlock()
	if c == nil {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.state
	if st.Generation == 0 || st.Adopted || s.ended() {
		return false, nil
	}
	gone, err = orphan(ctx, Copy{VDisk: vdisk, Node: st.Node, Epoch: st.Epoch, Generation: st.Generation, Unused: s.o.Clock.Now().Sub(c.used)})
	if err != nil || !gone {
		return false, err
	}
	return true, c.forget()
}
