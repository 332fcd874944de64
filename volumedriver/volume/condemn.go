package volume

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Data that a scrub replaced is condemned by the head that says the new log, and only
// deleted after that (rule E7). There can be thousands of such objects, so they are
// deleted beside the commits, and each head repeats those that are left: whoever
// opens the vDisk after a crash finds them there and goes on.

// deleteStreams bounds the deletes of one vDisk at a time: enough to hide the latency
// of an object store, few beside the uploads of a node.
const deleteStreams = 4

// condemnedData returns the data objects that a head condemns. Superseded heads,
// pasts and claims are found by listing.
func condemnedData(h *Head) []string {
	var out []string
	for _, name := range h.Condemned {
		if strings.HasPrefix(name, vdiskPrefix(h.VDisk)+scoDir) || strings.HasPrefix(name, vdiskPrefix(h.VDisk)+tlogDir) {
			out = append(out, name)
		}
	}
	return out
}

// doom notes objects that the committed head condemned.
func (u *uploader) doom(names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.doomed = append(u.doomed, names...)
}

func (u *uploader) doomedNames() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.doomed)
}

// deleteDoomed deletes what is condemned and returns how many objects that were; what
// fails stays condemned. Repeating it, also beside itself, does no harm.
func (v *Volume) deleteDoomed(ctx context.Context) (int, error) {
	names := v.up.doomedNames()
	gone := make(map[string]bool, len(names))
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	next := make(chan string)
	for range min(deleteStreams, len(names)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for name := range next {
				err := v.p.remove(ctx, name)
				mu.Lock()
				if gone[name] = err == nil; err != nil && first == nil {
					first = err
				}
				mu.Unlock()
			}
		}()
	}
	for _, name := range names {
		mu.Lock()
		failed := first
		mu.Unlock()
		if failed != nil || ctx.Err() != nil || v.ctx.Err() != nil {
			break
		}
		next <- name
	}
	close(next)
	wg.Wait()
	v.up.mu.Lock()
	before := len(v.up.doomed)
	v.up.doomed = slices.DeleteFunc(v.up.doomed, func(n string) bool { return gone[n] })
	done := before - len(v.up.doomed)
	v.up.mu.Unlock()
	v.stats.scrubDeleted.Add(uint64(done))
	if first == nil {
		first = ctx.Err()
	}
	return done, first
}

// finishDoomed deletes what an earlier opening left condemned.
func (v *Volume) finishDoomed() {
	defer v.wg.Done()
	for wait := minBackoff; len(v.up.doomedNames()) > 0; wait = min(2*wait, maxBackoff) {
		if _, err := v.deleteDoomed(v.ctx); err == nil || !v.sleep(v.ctx, wait) {
			return
		}
	}
}
