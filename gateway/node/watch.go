package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

const (
	// healthAge is how old an answer about health may be: probes may ask often.
	healthAge = time.Second
	// jumpShown is how long a jump of the clock is reported.
	jumpShown = 10 * time.Minute
)

// healthWatch remembers the last look at the node's health.
type healthWatch struct {
	// stale is set when a vPool or vDisk changed since the last look.
	stale  atomic.Bool
	mu     sync.Mutex
	at     time.Time
	last   observe.Health
	jump   time.Duration
	jumpAt time.Time
}

// checkHealth looks at the node: at most once per healthAge while nothing changes.
func (n *node) checkHealth() observe.Health {
	w := &n.health
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.at.IsZero() {
		if changed := w.stale.Swap(false); !changed && now.Sub(w.at) < healthAge {
			return w.last
		}
		// Round strips the monotonic reading: this is the wall clock's way.
		if j := now.Round(0).Sub(w.at.Round(0)) - now.Sub(w.at); j.Abs() > time.Second {
			w.jump, w.jumpAt = j, now
		}
	}
	w.at = now
	c := n.checks(now)
	if now.Sub(w.jumpAt) < jumpShown {
		c.ClockJump = w.jump
	}
	w.last = c.Evaluate()
	return w.last
}

func (n *node) checks(now time.Time) observe.Checks {
	usage := n.host.Usage()
	c := observe.Checks{Journal: usage.JournalError, ReadCaches: slices.Clone(n.readCacheErrs)}
	for _, d := range usage.WriteDisks {
		if d.Err != nil {
			c.WriteDisks = append(c.WriteDisks, fmt.Errorf("%s: %w", d.Name, d.Err))
		}
	}
	for _, r := range usage.ReadCaches {
		if r.Err != nil {
			c.ReadCaches = append(c.ReadCaches, fmt.Errorf("read cache %s: %w", r.Name, r.Err))
		}
	}
	if n.tls != nil {
		c.HasCert, c.CertLeft = true, n.tls.expiry.Sub(now)
	}
	c.Alba = n.checkAlba()
	for _, r := range n.remoteStats() {
		c.Remotes = append(c.Remotes, observe.RemoteCheck{VPool: r.VPool, Open: r.Stats.Breaker != remote.BreakerClosed, LastError: r.Stats.LastError, Denied: r.Stats.Denied})
	}
	if total, free, err := n.local.Usage(); err == nil {
		c.LocalTotal, c.LocalFree = total, free
	}
	for _, p := range n.model.VPools() {
		st := n.ctl.PoolStatus(p.ID)
		c.Pools = append(c.Pools, observe.PoolCheck{Name: p.Name, Deleting: p.State == model.StateDeleting, Attached: st.Attached, Err: st.Err, Total: st.Usage.Total, Free: st.Usage.Free})
	}
	for _, v := range n.model.VDisks(nil) {
		st := n.ctl.DiskCondition(v)
		verified, _ := n.model.Verification(v.ID)
		c.Disks = append(c.Disks, observe.DiskCheck{
			Damaged: verified.BadObjects, Name: v.Name, State: st.State, Reason: st.Reason, Open: st.Open, Journal: st.Stats.JournalBytes, JournalQuota: st.Stats.JournalQuota, MapErr: st.Stats.MapErr,
		})
	}
	return c
}

// metrics is where the Prometheus metrics are read from.
func (n *node) metrics() observe.Source {
	return observe.Source{
		Disks: func() []observe.DiskMetrics {
			pools := map[string]string{}
			for _, p := range n.model.VPools() {
				pools[p.ID] = p.Name
			}
			var out []observe.DiskMetrics
			luns := n.lunStats()
			for _, r := range n.ctl.Running() {
				if v, ok := n.model.VDisk(r.ID); ok {
					out = append(out, observe.DiskMetrics{Name: v.Name, VPool: pools[v.VPool], Stats: r.Stats, LUN: luns(v)})
				}
			}
			return out
		},
		Pools: func() []observe.PoolMetrics {
			var out []observe.PoolMetrics
			for _, p := range n.model.VPools() {
				st := n.ctl.PoolStatus(p.ID)
				out = append(out, observe.PoolMetrics{Name: p.Name, Attached: st.Attached, Total: st.Usage.Total, Free: st.Usage.Free})
			}
			return out
		},
		Host: n.host.Usage, Frontend: n.front.Stats, Health: n.checkHealth, Clients: n.hub.Clients, Alba: n.checkAlba, Remotes: n.remoteStats,
	}
}

// remoteStats returns the counters of vPools on Swift and S3.
func (n *node) remoteStats() []observe.RemoteMetrics {
	var out []observe.RemoteMetrics
	for id, s := range n.remotes.all() {
		if p, ok := n.model.VPool(id); ok {
			out = append(out, observe.RemoteMetrics{VPool: p.Name, Stats: s.Stats()})
		}
	}
	return out
}

// albaLook bounds a look at the object store's records.
const albaLook = 2 * time.Second

// checkAlba looks at the object store; nil when there is none.
func (n *node) checkAlba() *observe.Alba {
	if !n.alba.Made() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), albaLook)
	defer cancel()
	return n.alba.Check(ctx)
}

// lunStats returns a look-up of what initiators did to a vDisk, nil while it is
// not served. It asks for one target at a time, and once for each.
func (n *node) lunStats() func(model.VDisk) *iscsi.LUNStats {
	known := map[string]map[uint16]*iscsi.LUNStats{}
	return func(v model.VDisk) *iscsi.LUNStats {
		iqn, lun, ok := n.ctl.Placed(v)
		if !ok {
			return nil
		}
		if known[iqn] == nil {
			known[iqn] = map[uint16]*iscsi.LUNStats{}
			info, _ := n.ctl.TargetInfo(iqn)
			for i := range info.LUNs {
				known[iqn][info.LUNs[i].Number] = &info.LUNs[i].Stats
			}
		}
		return known[iqn][lun]
	}
}

func randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("draw a key: %w", err)
	}
	return b, nil
}
