package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

// ListNodes lists the nodes of the cluster.
func (s *Server) ListNodes(ctx context.Context, r ListNodesRequestObject) (ListNodesResponseObject, error) {
	look, vdisks := s.memberLook(ctx), s.vdisksByNode(s.sight(ctx))
	var rows []Member
	for _, n := range s.opt.Model.Nodes() {
		if matches(r.Params.Q, n.Name, nil) {
			rows = append(rows, s.memberOf(n, look, vdisks[n.ID]))
		}
	}
	items, next, err := page(rows, func(m Member) model.Keys { return model.Keys{Text: m.Name, ID: m.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListNodes200JSONResponse{items, next}, err
}

// GetNode shows a node.
func (s *Server) GetNode(ctx context.Context, r GetNodeRequestObject) (GetNodeResponseObject, error) {
	n, err := s.findNode(r.Node)
	if err != nil {
		return nil, err
	}
	return GetNode200JSONResponse(s.memberOf(n, s.memberLook(ctx), s.vdisksByNode(s.sight(ctx))[n.ID])), nil
}

// findNode finds a node by its name or id.
func (s *Server) findNode(ref string) (model.Node, error) {
	n, ok := s.opt.Model.FindNode(ref)
	if !ok {
		return n, &control.Error{Code: control.CodeNotFound, Object: "node " + ref, Message: "there is no such node", Hint: "ovgate node list shows the nodes of the cluster"}
	}
	return n, nil
}

// GetNodeMachine shows the machine of a node, which is asked itself.
func (s *Server) GetNodeMachine(ctx context.Context, r GetNodeMachineRequestObject) (GetNodeMachineResponseObject, error) {
	n, err := s.findNode(r.Node)
	if err == nil {
		err = s.askNode(ctx, n, "machine")
	}
	if err != nil {
		return nil, err
	}
	m := s.opt.Machine()
	m.Node, m.Version, m.Go = Node{ID: n.ID, Name: n.Name}, s.opt.Version.Version, s.opt.Version.Go
	m.Health, m.ObservedAt = healthOf(s.opt.Health()), s.clock.Now().UTC()
	return GetNodeMachine200JSONResponse(m), nil
}

// nodeFilter is the id of the node that a list is narrowed to; empty: to none.
func (s *Server) nodeFilter(ref *string) (string, error) {
	if value(ref) == "" {
		return "", nil
	}
	n, err := s.findNode(*ref)
	return n.ID, err
}

// memberLook is what is known of nodes at a moment.
type memberLook struct {
	at     time.Time
	self   string
	living map[string]bool // who has its lease; nil: the registry does not answer
	peers  map[string]cluster.Peer
}

// memberLook asks the registry once, which is bounded in time, and no node.
func (s *Server) memberLook(ctx context.Context) memberLook {
	l := memberLook{at: s.clock.Now(), self: s.opt.NodeID, peers: map[string]cluster.Peer{}}
	if living, err := s.opt.Living(ctx); err == nil {
		l.living = living
	}
	for _, p := range s.opt.Cluster.Peers() {
		l.peers[p.ID] = p
	}
	return l
}

// state is what the registry says.
func (l memberLook) state(id string) MemberState {
	switch {
	case l.living == nil:
		return MemberStateUnknown
	case l.living[id]:
		return MemberStateUp
	}
	return MemberStateDown
}

// liveness is what gossip says of a node, and since when. Without gossip nothing is known of
// others; with it, one that stopped before anybody heard of it is dead when the registry
// says so too.
func (l memberLook) liveness(n model.Node) (MemberLiveness, time.Time) {
	id := n.ID
	p, heard := l.peers[id]
	switch {
	case id == l.self:
		return MemberLivenessAlive, p.Since
	case !heard && len(l.peers) > 0 && l.living != nil && !l.living[id] && !n.Started.IsZero():
		return MemberLivenessDead, time.Time{}
	case !heard:
		return MemberLivenessUnknown, time.Time{}
	case p.Liveness == cluster.Alive:
		return MemberLivenessAlive, p.Since
	case p.Liveness == cluster.Left:
		return MemberLivenessLeft, p.Since
	case l.living[id]:
		return MemberLivenessSuspect, p.Since
	}
	return MemberLivenessDead, p.Since
}

// nodeEvent is about a node, by gossip alone: events wait for no registry.
func (s *Server) nodeEvent(n model.Node) NodeEvent {
	look := memberLook{self: s.opt.NodeID, peers: map[string]cluster.Peer{}}
	for _, p := range s.opt.Cluster.Peers() {
		look.peers[p.ID] = p
	}
	l, _ := look.liveness(n)
	return NodeEvent{ID: n.ID, Name: n.Name, Liveness: l}
}

// vdisksByNode counts the vDisks of each node that can be read.
func (s *Server) vdisksByNode(seen *sight) map[string]int {
	count := map[string]int{}
	s.opt.Model.VDisks(func(v model.VDisk) bool {
		if seen.vpool(v.VPool) && v.State != model.StateTrashed && v.State != model.StateDeleting {
			count[v.Node]++
		}
		return false
	})
	return count
}

func (s *Server) memberOf(n model.Node, look memberLook, vdisks int) Member {
	portals := n.Portals
	if portals == nil {
		portals = []string{}
	}
	m := Member{
		ID: n.ID, Name: n.Name, State: look.state(n.ID), Self: n.ID == s.opt.NodeID, Draining: n.Draining, Version: n.Version, URL: n.API, Portals: portals,
		Dtl: n.DTL, Domain: n.Domain, Vdisks: vdisks, JoinedAt: n.Joined, ObservedAt: look.at.UTC(),
	}
	if !n.Started.IsZero() {
		m.StartedAt = &n.Started
	}
	var since time.Time
	if m.Liveness, since = look.liveness(n); !since.IsZero() {
		m.LivenessMs = new(max(look.at.Sub(since), 0).Milliseconds())
	}
	if p, ok := look.peers[n.ID]; ok && p.Liveness == cluster.Alive {
		load := p.Info.Load
		m.Load = &MemberLoad{CPU: load.CPU, Memory: load.Memory, Journal: load.Journal, Vdisks: load.VDisks}
	}
	return m
}
