package alba

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/internal/kv"
)

// One node of a cluster does the maintenance. What it finds is for all of them:
//
//	cluster/alba-leader   id of that node
//	alba/m                what it found: report, as JSON
//	alba/look             changes when another node asks for a survey,
//	alba/clear            and when it asks that jobs that ended be forgotten
//
// Two agents at a time, which there may be for a moment (cluster.Leader), waste work and harm
// nothing: changes are conditional (package maintenance).
const (
	leaderKey = "cluster/alba-leader"
	reportKey = "alba/m"
	lookKey   = "alba/look"
	clearKey  = "alba/clear"
	// leadEvery is how often the record is looked at.
	leadEvery = 2 * time.Second
	// reportEvents bounds the events of a report, which is one record.
	reportEvents = 100
)

// report is what the node that does the maintenance knows.
type report struct {
	Node   string             `json:"node"`
	Safety maintenance.Safety `json:"safety"`
	Events []Event            `json:"events"` // oldest first
}

// leader is this node's part in the maintenance.
type leader struct {
	s     *Service
	r     *running
	leads atomic.Bool
	told  []byte // the report that is stored
	// looked and cleared are the revisions of lookKey and clearKey that were followed.
	looked, cleared int64
}

// leading tells whether this node does the maintenance now.
func (l *leader) leading() bool {
	return l.s.o.Cluster == nil || l.leads.Load() && l.s.o.Cluster.Leased()
}

// run keeps the record, until the Alba ends.
func (l *leader) run() {
	if l.s.o.Cluster == nil {
		return
	}
	tick := time.NewTicker(leadEvery)
	defer tick.Stop()
	for {
		l.look()
		select {
		case <-tick.C:
		case <-l.r.stop:
			l.give()
			return
		}
	}
}

func (l *leader) look() {
	ctx, cancel := context.WithTimeout(context.Background(), cluster.LeadWait)
	defer cancel()
	leads, err := l.record().Take(ctx)
	if err != nil {
		l.s.o.Log.Debug("it is not known who does the maintenance of the object store", "error", err)
		return // leading needs the lease, too
	}
	if was := l.leads.Swap(leads); leads && !was {
		l.s.o.Log.Info("this node does the maintenance of the object store")
		l.told = nil
		l.r.agent.Look()
	}
	if !leads {
		return
	}
	if err := errors.Join(l.follow(ctx), l.tell(ctx)); err != nil {
		l.s.o.Log.Warn("other nodes do not hear what maintenance of the object store finds", "error", err)
	}
}

// record says which node does the maintenance.
func (l *leader) record() cluster.Leader {
	return cluster.Leader{Store: l.s.o.Registry, Key: leaderKey, Node: l.s.o.Node, Leased: l.s.o.Cluster.Leased}
}

// give lets another node have the record at once.
func (l *leader) give() {
	if !l.leads.Swap(false) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cluster.LeadWait)
	defer cancel()
	if err := l.record().Give(ctx); err != nil {
		l.s.o.Log.Info("another node does the maintenance of the object store once this node's lease ended", "error", err)
	}
}

// follow does what another node asked for.
func (l *leader) follow(ctx context.Context) error {
	for _, ask := range []struct {
		key  string
		done *int64
		do   func()
	}{{lookKey, &l.looked, l.r.agent.Look}, {clearKey, &l.cleared, l.r.agent.ClearJobs}} {
		rec, err := l.s.o.Registry.Get(ctx, ask.key)
		if err != nil {
			return err
		}
		if rec != nil && rec.ModRev != *ask.done {
			*ask.done = rec.ModRev
			ask.do()
		}
	}
	return nil
}

// tell stores what this node found, if that is another than what is stored.
func (l *leader) tell(ctx context.Context) error {
	if l.r.agent.Safety().At.IsZero() {
		return nil // what the one before found says more
	}
	r := report{Node: l.s.o.Node, Safety: l.r.agent.Safety(), Events: l.s.ownEvents()}
	r.Events = r.Events[max(0, len(r.Events)-reportEvents):]
	b, err := json.Marshal(r)
	if err != nil || slices.Equal(b, l.told) {
		return err
	}
	if _, err = l.s.o.Registry.Txn(ctx, []kv.Compare{l.record().Has()}, []kv.Op{kv.Put(reportKey, b)}, nil); err == nil {
		l.told = b
	}
	return err
}

// known returns what maintenance knows, on whatever node it is done.
func (s *Service) known(ctx context.Context, r *running) (report, error) {
	own := report{Node: s.o.Node, Safety: r.agent.Safety(), Events: s.ownEvents()}
	leads := r.leader.leading()
	if leads && (s.o.Cluster == nil || !own.Safety.At.IsZero()) {
		return own, nil
	}
	rec, err := s.o.Registry.Get(ctx, reportKey)
	if err != nil || rec == nil {
		return own, err
	}
	var told report
	if err := json.Unmarshal(rec.Value, &told); err != nil {
		// Of another version, perhaps: what it says is told again by whoever leads next.
		s.o.Log.Warn("what another node found of the object store is not understood", "error", err)
		return own, nil
	}
	if leads {
		own.Safety = told.Safety // until the first survey
		return own, nil
	}
	if told.Node != s.o.Node { // else it is this node's of before
		told.Events = append(told.Events, own.Events...)
	}
	slices.SortStableFunc(told.Events, func(x, y Event) int { return x.At.Compare(y.At) })
	return told, nil
}

// survey has the node that does the maintenance look at every object soon.
func (s *Service) survey(ctx context.Context, r *running) error {
	if r.leader.leading() {
		r.agent.Look()
		return nil
	}
	return s.ask(ctx, lookKey)
}

// ask has the node that does the maintenance do something.
func (s *Service) ask(ctx context.Context, key string) error {
	_, err := s.o.Registry.Txn(ctx, nil, []kv.Op{kv.Put(key, []byte(s.o.Node))}, nil)
	return err
}

// ownEvents returns what happened on this node, oldest first.
func (s *Service) ownEvents() []Event {
	s.eventMu.Lock()
	defer s.eventMu.Unlock()
	return slices.Clone(s.events)
}
