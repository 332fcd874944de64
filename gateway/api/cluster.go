package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

// ClusterPart is the node's part in its cluster.
type ClusterPart struct {
	ID   string // UUID
	Name string // empty: the node is in no cluster
	Etcd bool   // the registry is in etcd
	Own  bool   // whose members nodes run
	// Registry are its members, as they were seen last.
	Registry []observe.RegistryMember
	Created  time.Time
	Gossip   string // HOST:PORT
	// CertificateEnds is of the node's certificate, AuthorityEnds of the cluster's.
	CertificateEnds, AuthorityEnds time.Time
}

// Admission is what a node that joins gets.
type Admission struct {
	cluster.JoinAnswer
	Name    string   // of the cluster
	SealKey string   // hex; seals the secrets of the registry
	Etcd    []string // URLs of the registry's members
	Prefix  string   // of its keys
	Own     bool     // nodes of the cluster run them
}

// Cluster is the node's part in its cluster; gateway/node implements it. Errors that its
// caller is to be told are *control.Error, *cluster.RefusedError or those of a token.
type Cluster interface {
	Status() ClusterPart
	// Peers are the nodes that gossip knows; none without a cluster.
	Peers() []cluster.Peer
	Init(ctx context.Context, name string) error
	NewToken(ctx context.Context, life time.Duration, urls []string) (cluster.Token, time.Time, error)
	Tokens(ctx context.Context) ([]cluster.TokenInfo, error)
	RevokeToken(ctx context.Context, id string) error
	Admit(ctx context.Context, r cluster.JoinRequest) (Admission, error)
	// Leave takes this node out of the cluster; it stops soon after.
	Leave(ctx context.Context) error
	// Remove takes a dead node out, named by id or name; absent is no error.
	Remove(ctx context.Context, ref string) error
}

// alone is the part of a node that has none.
type alone struct{ Cluster }

func (alone) Status() ClusterPart   { return ClusterPart{} }
func (alone) Peers() []cluster.Peer { return nil }

// GetCluster shows the cluster.
func (s *Server) GetCluster(ctx context.Context, _ GetClusterRequestObject) (GetClusterResponseObject, error) {
	return GetCluster200JSONResponse(s.clusterOf(ctx)), nil
}

// InitCluster makes the node the first of a cluster.
func (s *Server) InitCluster(ctx context.Context, r InitClusterRequestObject) (InitClusterResponseObject, error) {
	if err := s.opt.Cluster.Init(ctx, r.Body.Name); err != nil {
		return nil, err
	}
	return InitCluster200JSONResponse(s.clusterOf(ctx)), nil
}

func (s *Server) clusterOf(ctx context.Context) ClusterStatus {
	p := s.opt.Cluster.Status()
	out := ClusterStatus{ID: p.ID, Name: some(p.Name), Registry: ClusterStatusRegistryEmbedded, ObservedAt: s.clock.Now().UTC()}
	switch {
	case p.Own:
		out.Registry = ClusterStatusRegistryNodes
	case p.Etcd:
		out.Registry = ClusterStatusRegistryEtcd
	}
	if len(p.Registry) > 0 {
		var members []RegistryMember
		for _, m := range p.Registry {
			members = append(members, s.registryMember(m))
		}
		out.RegistryMembers = &members
	}
	if p.Name != "" {
		out.CreatedAt, out.Gossip = new(p.Created.UTC()), some(p.Gossip)
		out.CertificateEndsAt, out.AuthorityEndsAt = new(p.CertificateEnds.UTC()), new(p.AuthorityEnds.UTC())
	}
	look := s.memberLook(ctx)
	for _, n := range s.opt.Model.Nodes() {
		out.Nodes.Total++
		switch l, _ := look.liveness(n); l {
		case MemberLivenessAlive:
			out.Nodes.Alive++
		case MemberLivenessSuspect:
			out.Nodes.Suspect++
		case MemberLivenessDead:
			out.Nodes.Dead++
		case MemberLivenessLeft:
			out.Nodes.Left++
		default:
			out.Nodes.Unknown++
		}
	}
	return out
}

func (s *Server) registryMember(m observe.RegistryMember) RegistryMember {
	out := RegistryMember{URL: m.Endpoint, State: RegistryMemberStateUp, Leads: m.Leads, SizeBytes: m.Size, QuotaBytes: m.Quota, Error: some(m.Err)}
	if n, ok := s.opt.Model.Node(m.Node); ok {
		out.Node = &n.Name
	}
	switch {
	case m.Learner:
		out.State = RegistryMemberStateLearner
	case m.Err != "":
		out.State = RegistryMemberStateDown
	}
	return out
}

// LeaveCluster takes this node out of the cluster.
func (s *Server) LeaveCluster(ctx context.Context, _ LeaveClusterRequestObject) (LeaveClusterResponseObject, error) {
	if err := s.opt.Cluster.Leave(ctx); err != nil {
		return nil, err
	}
	return LeaveCluster204Response{}, nil
}

// RemoveNode takes a dead node out of the cluster.
func (s *Server) RemoveNode(ctx context.Context, r RemoveNodeRequestObject) (RemoveNodeResponseObject, error) {
	if err := s.opt.Cluster.Remove(ctx, r.Node); err != nil {
		return nil, err
	}
	return RemoveNode204Response{}, nil
}

// ListJoinTokens lists the tokens that let nodes join.
func (s *Server) ListJoinTokens(ctx context.Context, r ListJoinTokensRequestObject) (ListJoinTokensResponseObject, error) {
	all, err := s.opt.Cluster.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	rows := []JoinToken{}
	for _, t := range all {
		v := JoinToken{ID: t.ID, Created: t.Created.UTC(), Expires: t.Expires.UTC(), State: JoinTokenStateWaiting}
		switch {
		case t.Used != "":
			v.State, v.Node = JoinTokenStateUsed, some(t.Used)
		case !s.clock.Now().Before(t.Expires):
			v.State = JoinTokenStateExpired
		}
		if matches(r.Params.Q, t.ID+" "+t.Used, nil) {
			rows = append(rows, v)
		}
	}
	items, next, err := page(rows, func(t JoinToken) model.Keys { return model.Keys{Text: t.Expires.Format(time.RFC3339), ID: t.ID} }, "expires", false, r.Params.Cursor, r.Params.Limit)
	return ListJoinTokens200JSONResponse{items, next}, err
}

// CreateJoinToken makes a token; it is in this answer only.
func (s *Server) CreateJoinToken(ctx context.Context, r CreateJoinTokenRequestObject) (CreateJoinTokenResponseObject, error) {
	life, urls := cluster.TokenLife, []string(nil)
	if r.Body != nil {
		if r.Body.LifeMs != nil {
			life = time.Duration(min(*r.Body.LifeMs, (cluster.TokenLifeMost+time.Hour).Milliseconds())) * time.Millisecond
		}
		if r.Body.Urls != nil {
			urls = *r.Body.Urls
		}
	}
	if len(urls) > maxJoinURLs {
		return nil, refuseField("urls", "", "a token names at most %d nodes", maxJoinURLs)
	}
	t, expires, err := s.opt.Cluster.NewToken(ctx, life, urls)
	if err != nil {
		return nil, err
	}
	return CreateJoinToken201JSONResponse{ID: t.ID, Token: t.String(), Expires: expires, Urls: t.URLs}, nil
}

// maxJoinURLs is how many nodes a token names.
const maxJoinURLs = 8

// RevokeJoinToken makes a token useless.
func (s *Server) RevokeJoinToken(ctx context.Context, r RevokeJoinTokenRequestObject) (RevokeJoinTokenResponseObject, error) {
	if err := s.opt.Cluster.RevokeToken(ctx, r.Token); err != nil {
		return nil, err
	}
	return RevokeJoinToken204Response{}, nil
}

// joinsMost is how many joins run at once. Each asks the registry, and anybody may try.
const joinsMost = 4

// JoinCluster lets a node in that has a token.
func (s *Server) JoinCluster(ctx context.Context, r JoinClusterRequestObject) (JoinClusterResponseObject, error) {
	select {
	case s.joins <- struct{}{}:
		defer func() { <-s.joins }()
	default:
		return nil, &refusal{problem{status: http.StatusTooManyRequests, Error: Error{Code: "rate_limited", Message: "other nodes join at this moment", Hint: some("try again")}, after: time.Second}}
	}
	b := r.Body
	a, err := s.opt.Cluster.Admit(ctx, cluster.JoinRequest{
		Token: b.Token, Secret: b.Secret, Cluster: value(b.Cluster), Node: b.Node, Name: b.Name, Version: b.Version, Format: b.Format, Clock: b.Clock, Request: []byte(b.Request),
	})
	if err != nil {
		return nil, joinRefused(b.Name, err)
	}
	return JoinCluster200JSONResponse{
		Cluster: a.Cluster, Name: a.Name, Ca: string(a.CA), Certificate: string(a.Certificate), SealKey: strings.TrimSpace(a.SealKey), Etcd: a.Etcd, Prefix: a.Prefix, Own: a.Own,
	}, nil
}

// joinRefused gives a refusal its answer. Who has no token learns no more than that.
func joinRefused(name string, err error) error {
	object := "node " + clip(name)
	for _, bad := range []error{cluster.ErrTokenUnknown, cluster.ErrTokenUsed, cluster.ErrTokenExpired} {
		if errors.Is(err, bad) {
			return refuse(http.StatusUnauthorized, "bad_join_token", object, "make a new one with ovgate cluster token create", "%v", bad)
		}
	}
	var r *cluster.RefusedError
	if errors.As(err, &r) {
		return refuse(http.StatusConflict, "join_refused", object, r.Hint, "%s", r.Message)
	}
	return err
}
