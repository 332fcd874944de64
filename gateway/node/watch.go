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
	// repairLate is how long repair may take, beyond the wait before it, until it is told.
	repairLate = time.Hour
)

// healthWatch remembers the last look at the node's health.
type healthWatch struct {
	// stale is set when a vPool or vDisk changed since the last look.
	stale  atomic.Bool
	mu     sync.Mutex
	at     time.Time
	last   observe.Health
	wall   time.Time // of the wall clock at at
	jump   time.Duration
	jumpAt time.Time

	forecast observe.Forecast
	latency  observe.Latency
	// thresholds and passed are what metrics pass, as of the last look at them.
	thresholds observe.Thresholds
	passed     []observe.ThresholdCheck
	// repairSince is since when the object store has had incomplete objects at each look.
	repairSince time.Time
	machine     observe.Machine
	machineAt   time.Time
	disks       diskWatch
}

// disksEvery is how often each vDisk is looked at, at least, while nothing that is told of
// changes.
const disksEvery = 30 * time.Second

// diskWatch remembers the last look at all vDisks. Those that were well and idle then are so
// until somebody tells otherwise: a node can have thousands of them.
type diskWatch struct {
	at               time.Time
	wakeups, changes uint64 // as of then
	mirrorable       bool
	others           []string      // ids of those that were not
	rows             []model.VDisk // to be used again
}

// checkHealth looks at the node: at most once per healthAge while nothing changes.
func (n *node) checkHealth() observe.Health { return n.healthWithin(healthAge) }

// healthWithin looks at the node, unless that was done a while ago at most and nothing changed.
func (n *node) healthWithin(age time.Duration) observe.Health {
	w := &n.health
	w.mu.Lock()
	defer w.mu.Unlock()
	now, wall := n.time()
	changed := w.stale.Swap(false)
	if !w.at.IsZero() {
		if !changed && now.Sub(w.at) < age {
			return w.last
		}
		if j := wall.Sub(w.wall) - now.Sub(w.at); j.Abs() > time.Second {
			w.jump, w.jumpAt = j, now
		}
	}
	w.at, w.wall = now, wall
	stores := n.remoteStats()
	c := n.checks(wall, stores)
	c.Disks = w.disks.look(n, now, changed)
	w.remember(n, now, &c, stores)
	w.last = c.Evaluate()
	return w.last
}

// trends are how places fill, as of a look at the node's health that is not older than healthAge.
func (n *node) trends() []observe.Trend {
	n.checkHealth()
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	return n.health.forecast.Trends()
}

// remember adds to a look what follows from those before.
func (w *healthWatch) remember(n *node, now time.Time, c *observe.Checks, stores []observe.RemoteMetrics) {
	if now.Sub(w.jumpAt) < jumpShown {
		c.ClockJump = w.jump
	}
	c.Full = w.forecast.Full(now, c.Places())
	means := w.latency.Observe(now, stores)
	for i, r := range c.Remotes {
		c.Remotes[i].Mean = means[r.VPool]
	}
	if a := c.Alba; a != nil && a.Repair > 0 {
		if w.repairSince.IsZero() {
			w.repairSince = now
		}
		a.RepairSince, a.RepairLate = w.repairSince, now.Sub(w.repairSince) >= repairLate+n.cfg.AutoRepair
	} else if a == nil || a.Err == "" {
		w.repairSince = time.Time{}
	}
	if w.machineAt.IsZero() || now.Sub(w.machineAt) >= machineEvery {
		w.machine, w.machineAt = n.machine(), now
	}
	c.Machine = w.machine
	if w.thresholds.Due(now) {
		w.passed = w.thresholds.Observe(now, n.ctl.Thresholds(), n.figures(c, stores))
	}
	c.Thresholds = w.passed
}

// figures are what thresholds are compared with.
func (n *node) figures(c *observe.Checks, stores []observe.RemoteMetrics) observe.Figures {
	f := observe.Figures{
		Node: n.self.Name, Pools: c.Pools, Remotes: stores, LocalTotal: c.LocalTotal, LocalFree: c.LocalFree, Alba: c.Alba,
	}
	running, idle := n.ctl.Sample(n.health.thresholds.Known)
	f.Disks = make([]observe.DiskFigures, 0, len(running))
	for _, r := range running {
		if name, ok := n.model.VDiskName(r.ID); ok {
			f.Disks = append(f.Disks, observe.DiskFigures{ID: r.ID, Name: name, Stats: r.Stats, Idle: r.Idle, Requests: r.Requests})
		}
	}
	f.Idle = make([]observe.IdleFigures, 0, len(idle))
	for _, id := range idle {
		if name, ok := n.model.VDiskName(id); ok {
			f.Idle = append(f.Idle, observe.IdleFigures{ID: id, Name: name})
		}
	}
	return f
}

// causesEvery is how often vCenters are told what is wrong with their datastores.
const causesEvery = 10 * time.Second

// tellCenters tells vCenters what is wrong, until ctx ends.
func (n *node) tellCenters(ctx context.Context) {
	t := time.NewTicker(causesEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.vsphere.Causes(n.healthWithin(causesEvery).Causes)
		}
	}
}

// works returns once the locks of all that serves could be had, for systemd's watchdog:
// those of sessions, vDisks, journals and caches. It asks nobody outside.
func (n *node) works() {
	n.front.Sessions()
	n.ctl.Running()
	n.host.Usage()
}

// checks looks at everything but vDisks; ends of certificates go by the wall clock.
func (n *node) checks(wall time.Time, stores []observe.RemoteMetrics) observe.Checks {
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
	c.Audit, c.Events, c.History = n.audit.Status().Err, n.events.Status().Err, n.history.Err()
	if n.syslog != nil {
		if lost, err := n.syslog.Status(); err != nil {
			c.Syslog = &observe.SyslogCheck{Server: n.cfg.Events.Syslog, Err: err, Lost: lost}
		}
	}
	for _, f := range n.alerts.service.Failures() {
		c.AlertChannels = append(c.AlertChannels, observe.AlertChannelCheck{Name: f.Channel, Since: f.Since, Err: f.Err})
	}
	if n.tls != nil {
		n.tls.observe(&c, wall)
	}
	c.Alba = n.checkAlba()
	c.Cluster, c.Registry = n.member.observe(wall), n.registryMembers()
	if err := n.recordsErr.Load(); err != nil {
		c.RegistryErr = *err
	}
	for _, r := range stores {
		c.Remotes = append(c.Remotes, observe.RemoteCheck{VPool: r.VPool, Open: r.Stats.Breaker != remote.BreakerClosed, LastError: r.Stats.LastError, Denied: r.Stats.Denied})
	}
	for _, s := range n.ctl.CloudStates() {
		c.Clouds = append(c.Clouds, observe.CloudCheck{Name: s.Cloud, Err: s.Err, Down: s.Down})
	}
	c.Datastores = n.vsphere.Stuck()
	c.Sessions, c.Transfers = n.checkSessions(), n.ctl.StaleTransfers()
	if total, free, err := n.local.Usage(); err == nil {
		c.LocalTotal, c.LocalFree = total, free
	}
	for _, p := range n.model.VPools() {
		if !n.ctl.Reached(p) {
			continue
		}
		st := n.ctl.PoolStatus(p.ID)
		check := observe.PoolCheck{Name: p.Name, Deleting: p.State == model.StateDeleting, Attached: st.Attached, Err: st.Err, Total: st.Usage.Total, Free: st.Usage.Free}
		check.DeletesOff, check.BackupMade, check.DeletesWhy = n.ctl.DeletesOff(p.ID)
		check.Strangers = n.ctl.Strangers(p.ID)
		c.Pools = append(c.Pools, check)
	}
	return c
}

// look returns the vDisks with which something is wrong. changed: something did since the
// last look.
func (w *diskWatch) look(n *node, now time.Time, changed bool) (wrong []observe.DiskCheck) {
	wakeups, changes, mirrorable := n.ctl.Wakeups(), n.model.JobChanges(), n.ctl.Mirrorable()
	w.rows = w.rows[:0]
	if changed || w.at.IsZero() || now.Sub(w.at) >= disksEvery || wakeups != w.wakeups || changes != w.changes || mirrorable != w.mirrorable || !n.ctl.Permitted() {
		w.at, w.wakeups, w.changes, w.mirrorable = now, wakeups, changes, mirrorable
		w.rows = n.model.AppendVDisks(w.rows, func(model.VDisk) bool { return true })
	} else {
		for _, id := range w.others {
			if v, ok := n.model.VDisk(id); ok {
				w.rows = append(w.rows, v)
			}
		}
	}
	w.others = w.others[:0]
	late := n.ctl.LateSnapshots(w.rows)
	for _, v := range w.rows {
		st := n.ctl.DiskCondition(v)
		verified, _ := n.model.Verification(v.ID)
		check := observe.DiskCheck{
			Damaged: verified.BadObjects, Name: v.Name, State: st.State, Reason: st.Reason, Open: st.Open, Journal: st.Stats.JournalBytes, JournalQuota: st.Stats.JournalQuota, MapErr: st.Stats.MapErr,
			DTL: st.Stats.DTL, Mirrorable: mirrorable, SnapshotLate: late[v.ID],
			FailedJobs: n.failedJobs(v.ID, st.Open),
		}
		if check.Wrong() {
			wrong = append(wrong, check)
		} else if st.Idle {
			continue
		}
		w.others = append(w.others, v.ID)
	}
	clear(w.rows)
	return wrong
}

// checkSessions looks at iSCSI sessions; one of another node is looked at there.
func (n *node) checkSessions() (out observe.SessionsCheck) {
	now, _ := n.time()
	for _, l := range n.front.Lost() {
		out.Lost = append(out.Lost, observe.LostSession{Initiator: l.Initiator, Target: l.Target, Address: l.Remote, Dropped: l.Dropped})
	}
	for _, s := range n.front.Sessions() {
		if !s.Forwarded && !s.Blind.IsZero() {
			out.Blind = append(out.Blind, observe.BlindSession{Initiator: s.Initiator, Target: s.Target, For: now.Sub(s.Blind)})
		}
	}
	return out
}

// failedJobs are the scheduled jobs of a vDisk that is open here whose newest run failed.
func (n *node) failedJobs(id string, open bool) (out []observe.FailedJob) {
	if !open {
		return nil
	}
	for _, name := range model.JobNames {
		if all := n.model.JobRunsOf(id, name).Runs; len(all) > 0 && all[0].Result == model.RunFailed { // the newest
			out = append(out, observe.FailedJob{Name: string(name), Why: all[0].Text, At: all[0].Ended})
		}
	}
	return out
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
				if !n.ctl.Reached(p) {
					continue
				}
				st := n.ctl.PoolStatus(p.ID)
				out = append(out, observe.PoolMetrics{Name: p.Name, Attached: st.Attached, Total: st.Usage.Total, Free: st.Usage.Free})
			}
			return out
		},
		Host: n.host.Usage, Frontend: n.front.Stats, Health: n.checkHealth, Clients: n.hub.Clients, Alba: n.checkAlba, Remotes: n.remoteStats,
		Cluster: func() *observe.Cluster { return n.member.observe(time.Now()) }, Registry: n.registryMembers,
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
