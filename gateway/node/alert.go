package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/alert"
	"github.com/openvstorage/ovgate/internal/kv"
)

// One node of a cluster tells what is wrong on all of them:
//
//	cluster/alert-leader   id of that node
//	alert/told             what was told (observe/alert), as JSON
const (
	alertLeaderKey = "cluster/alert-leader"
	alertToldKey   = "alert/told"
	// askHealth bounds asking another node for its health, healthMost its answer in bytes.
	askHealth  = 5 * time.Second
	healthMost = 1 << 20
)

// alertNode is the node's part in telling what is wrong.
type alertNode struct {
	n       *node
	service *alert.Service
	// silent are nodes that did not answer at the last look; their causes are kept.
	mu   sync.Mutex
	last map[string][]alert.Cause
}

func newAlertNode(n *node) *alertNode {
	a := &alertNode{n: n, last: map[string][]alert.Cause{}}
	a.service = alert.New(alert.Options{
		Log: n.log, Sent: n.alertSent, Causes: a.causes, Leads: a.leads, Load: a.load, Save: a.save,
		Config: func() alert.Config {
			return n.ctl.AlertConfig(func(channel string, err error) {
				n.log.Error("alerts are not sent to a channel: its secret does not open; delete it and make it anew", "channel", channel, "error", err)
			})
		},
	})
	return a
}

// run tells until ctx ends, then lets another node.
func (a *alertNode) run(ctx context.Context) {
	a.service.Run(ctx)
	if len(a.n.cfg.Registry.Etcd) == 0 {
		return
	}
	gctx, cancel := context.WithTimeout(context.Background(), cluster.LeadWait)
	defer cancel()
	if err := a.leader().Give(gctx); err != nil {
		a.n.log.Info("another node tells what is wrong once this node's lease ended", "error", err)
	}
}

func (a *alertNode) leader() cluster.Leader {
	return cluster.Leader{Store: a.n.kv, Key: alertLeaderKey, Node: a.n.self.ID, Leased: a.n.lease.Valid}
}

func (a *alertNode) leads(ctx context.Context) bool {
	if len(a.n.cfg.Registry.Etcd) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, cluster.LeadWait)
	defer cancel()
	leads, err := a.leader().Take(ctx)
	if err != nil {
		a.n.log.Debug("it is not known which node tells what is wrong", "error", err)
	}
	return leads && err == nil
}

func (a *alertNode) load(ctx context.Context) ([]byte, error) {
	rec, err := a.n.kv.Get(ctx, alertToldKey)
	if err != nil || rec == nil {
		return nil, err
	}
	return rec.Value, nil
}

func (a *alertNode) save(ctx context.Context, b []byte) error {
	var cmps []kv.Compare
	if len(a.n.cfg.Registry.Etcd) > 0 {
		cmps = append(cmps, a.leader().Has())
	}
	res, err := a.n.kv.Txn(ctx, cmps, []kv.Op{kv.Put(alertToldKey, b)}, nil)
	if err == nil && !res.Succeeded {
		err = errors.New("another node tells what is wrong now")
	}
	return err
}

// alertAge is how old an answer about health may be for alerts, while nothing changed: for the event
// stream it is looked at as often.
const alertAge = 5 * time.Second

// causes returns what is wrong on every node. Of one that does not answer, what it said
// before counts: that it does not answer is a cause of its own.
func (a *alertNode) causes(ctx context.Context) []alert.Cause {
	out := causesOf(a.n.self.Name, a.n.healthWithin(alertAge))
	if len(a.n.cfg.Registry.Etcd) == 0 {
		return out
	}
	var wg sync.WaitGroup
	now := map[string][]alert.Cause{}
	for _, peer := range a.n.model.Nodes() {
		if peer.ID == a.n.self.ID {
			continue
		}
		wg.Go(func() {
			h, err := a.askHealth(ctx, peer.ID)
			a.mu.Lock()
			defer a.mu.Unlock()
			if now[peer.ID] = causesOf(peer.Name, h); err != nil {
				now[peer.ID] = a.last[peer.ID]
				a.n.log.Debug("a node does not say how it is", "node", peer.Name, "error", err)
			}
		})
	}
	wg.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = now
	for _, id := range slices.Sorted(maps.Keys(now)) { // the order does not matter, but is to stay the same
		out = append(out, now[id]...)
	}
	return out
}

func causesOf(node string, h observe.Health) []alert.Cause {
	out := make([]alert.Cause, 0, len(h.Causes))
	for _, c := range h.Causes {
		out = append(out, alert.Cause{Cause: c, Node: node})
	}
	return out
}

// askHealth asks another node how it is.
func (a *alertNode) askHealth(ctx context.Context, id string) (observe.Health, error) {
	var out observe.Health
	ctx, cancel := context.WithTimeout(ctx, askHealth)
	defer cancel()
	r, err := api.PeerRequest(ctx, http.MethodGet, id, "/status", auth.Principal{Name: "alerts", Rights: auth.Rights{Role: auth.RoleRead}})
	if err != nil {
		return out, err
	}
	res, err := a.n.peers.RoundTrip(r)
	if err != nil {
		return out, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return out, fmt.Errorf("it answers %s", res.Status)
	}
	var s api.Status
	if err := json.NewDecoder(io.LimitReader(res.Body, healthMost)).Decode(&s); err != nil {
		return out, err
	}
	for _, c := range s.Health.Causes {
		out.Causes = append(out.Causes, observe.Cause{State: observe.Level(c.State), Code: c.Code, Text: c.Text, Object: c.Object, Hint: c.Hint})
	}
	return out, nil
}
