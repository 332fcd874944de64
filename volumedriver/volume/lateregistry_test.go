package volume

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// keptReg keeps every change that was made, as a network does that delivers it once more.
type keptReg struct {
	*memRegistry
	mu   sync.Mutex
	kept []Change
}

func (r *keptReg) Apply(ctx context.Context, changes ...Change) error {
	r.mu.Lock()
	for _, c := range changes {
		if c.Old != nil && c.New != nil {
			old, now := *c.Old, *c.New
			r.kept = append(r.kept, Change{&old, &now})
		}
	}
	r.mu.Unlock()
	return r.memRegistry.Apply(ctx, changes...)
}

// TestLateChange: a change of the registry that is carried out late, or once more, when its
// owner has gone on, changes nothing: a copy that does not count any more is not called good
// again (O2).
func TestLateChange(t *testing.T) {
	p := newPair(t, 27)
	reg := &keptReg{memRegistry: p.a.reg}
	p.a.registry = reg
	id := testID(1)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 1<<20)
	v := a.open(id)
	for range 3 {
		p.net.setCut(false)
		mustState(t, v, DTLOK)
		mustWrite(t, v, 0, 1)
		p.net.setCut(true)
		mustWrite(t, v, 0, 2)
		if d := p.record(id).DTL; d.State != DTLDegraded {
			t.Fatalf("the registry says %+v", d)
		}
		reg.mu.Lock()
		kept := reg.kept
		reg.mu.Unlock()
		for i, c := range kept {
			if err := reg.memRegistry.Apply(context.Background(), c); !errors.Is(err, ErrConflict) {
				t.Fatalf("change %d, once more: %v: %+v became %+v", i, err, c.Old.DTL, c.New.DTL)
			}
		}
	}
	a.kill()
	b.close()
}
