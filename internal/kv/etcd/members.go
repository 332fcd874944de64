package etcd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// memberWait bounds how long a member is waited for.
	memberWait = 3 * time.Second
	// defaultQuota bounds the database of a member that does not tell its quota, in bytes.
	defaultQuota = 2 << 30
)

// Member is a member of the cluster, as its others know it.
type Member struct {
	ID      uint64
	Name    string // empty: it has not started yet
	Peer    string // URL for the other members; empty: none
	Client  string // URL for Stores; empty: it has not started yet
	Learner bool   // it gets what is written, and does not count for a quorum
}

// members is Member of what etcd says.
func members(in []*etcdserverpb.Member) []Member {
	out := make([]Member, len(in))
	for i, m := range in {
		out[i] = Member{ID: m.ID, Name: m.Name, Learner: m.IsLearner}
		if len(m.PeerURLs) > 0 {
			out[i].Peer = m.PeerURLs[0]
		}
		if len(m.ClientURLs) > 0 {
			out[i].Client = m.ClientURLs[0]
		}
	}
	return out
}

// List returns the members, as a quorum knows them.
func (s *Store) List(ctx context.Context) ([]Member, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	res, err := ask(ctx, s, func(ctx context.Context, c *conn, _ bool) (*clientv3.MemberListResponse, error) {
		return c.MemberList(ctx)
	})
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return members(res.Members), nil
}

// Add makes who will serve other members at a URL a learner, and returns all members. There
// is one learner at a time.
func (s *Store) Add(ctx context.Context, peer string) ([]Member, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	res, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.MemberAddResponse, error) {
		return c.MemberAddAsLearner(ctx, []string{peer})
	})
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return members(res.Members), nil
}

// Promote makes a learner a member that counts. It is refused until the learner has what the
// others have.
func (s *Store) Promote(ctx context.Context, id uint64) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.MemberPromoteResponse, error) {
		return c.MemberPromote(ctx, id)
	})
	return s.explain(ctx, err)
}

// Move tells the others where a member serves them.
func (s *Store) Move(ctx context.Context, id uint64, peer string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.MemberUpdateResponse, error) {
		return c.MemberUpdate(ctx, id, []string{peer})
	})
	return s.explain(ctx, err)
}

// Remove takes a member out. It is refused when the others would have no quorum then; of one
// that is none it says nothing.
func (s *Store) Remove(ctx context.Context, id uint64) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	_, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.MemberRemoveResponse, error) {
		return c.MemberRemove(ctx, id)
	})
	if errors.Is(err, rpctypes.ErrMemberNotFound) {
		err = nil
	}
	return s.explain(ctx, err)
}

// Defragment gives the space that a member's database does not use back to its disk. The member
// answers nothing meanwhile: some seconds for each gigabyte that is used.
func (s *Store) Defragment(ctx context.Context, endpoint string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	cl, done, err := s.reach(ctx, endpoint)
	if err != nil {
		return s.explain(ctx, err)
	}
	defer done()
	_, err = cl.Defragment(ctx, endpoint)
	return s.explain(ctx, err)
}

// Disarm ends an alarm of the whole cluster that its database is full. It comes back when it is.
func (s *Store) Disarm(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	res, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.AlarmResponse, error) { return c.AlarmList(ctx) })
	if err != nil {
		return s.explain(ctx, err)
	}
	for _, a := range res.Alarms {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if _, err := once(ctx, s, func(ctx context.Context, c *conn) (*clientv3.AlarmResponse, error) {
			return c.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a))
		}); err != nil {
			return s.explain(ctx, err)
		}
	}
	return nil
}

// Endpoints are the members that are asked.
func (s *Store) Endpoints() []string { return s.peers.endpoints() }

// SetEndpoints replaces the members that are asked.
func (s *Store) SetEndpoints(endpoints []string) { s.peers.set(endpoints) }

// once asks one member, once: who changes the members looks first what there is to change. It
// ends when the member does not answer any more.
func once[T any](ctx context.Context, s *Store, send func(ctx context.Context, c *conn) (T, error)) (T, error) {
	c, err := s.peers.pick(ctx)
	if err != nil {
		var none T
		return none, err
	}
	v, err := send(ctx, c)
	if err != nil && c.isGone() && ctx.Err() == nil {
		err = fmt.Errorf("member %s does not answer: %w", c.peer.endpoint, err)
	}
	return v, err
}

// reach returns a client that talks to any member, and what ends its use.
func (s *Store) reach(ctx context.Context, endpoint string) (*clientv3.Client, func(), error) {
	if c := s.peers.at(endpoint); c != nil {
		return c.Client, func() {}, nil
	}
	cl, err := s.peers.dial(ctx, endpoint)
	if err != nil {
		return nil, nil, err
	}
	return cl, func() { _ = cl.Close() }, nil
}

// MemberState is what a member says of itself.
type MemberState struct {
	Endpoint string
	ID       uint64
	Leads    bool
	Err      error // why it says nothing
	// Size is of its database file, InUse what of that is not free, in bytes. Beyond Quota the
	// cluster takes no change.
	Size, InUse, Quota int64
	// Alarms are those that are raised in the cluster, such as NOSPACE and CORRUPT.
	Alarms []string
}

// alarmName finds the name in what etcd says of an alarm.
var alarmName = regexp.MustCompile(`alarm:\s*([A-Z]+)`)

// Members asks every endpoint, side by side. It returns within seconds, or with ctx.
func (s *Store) Members(ctx context.Context) []MemberState {
	return s.MembersAt(ctx, s.Endpoints())
}

// MembersAt is Members of these endpoints.
func (s *Store) MembersAt(ctx context.Context, endpoints []string) []MemberState {
	out := make([]MemberState, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() { out[i] = s.member(ctx, e) })
	}
	wg.Wait()
	return out
}

func (s *Store) member(ctx context.Context, endpoint string) MemberState {
	m := MemberState{Endpoint: endpoint}
	if m.Err = s.ready(ctx); m.Err != nil {
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, memberWait)
	defer cancel()
	var st *clientv3.StatusResponse
	cl, done, err := s.reach(ctx, endpoint)
	if err == nil {
		defer done()
		st, err = cl.Status(ctx, endpoint)
	}
	if err != nil {
		m.Err = s.explain(ctx, err)
		if errors.Is(m.Err, context.DeadlineExceeded) {
			m.Err = fmt.Errorf("etcd: no answer within %v", memberWait)
		}
		return m
	}
	m.ID, m.Leads = st.Header.MemberId, st.Header.MemberId == st.Leader
	m.Size, m.InUse, m.Quota = st.DbSize, st.DbSizeInUse, st.DbSizeQuota
	if m.Quota <= 0 {
		m.Quota = defaultQuota
	}
	for _, e := range st.Errors {
		name := strings.TrimSpace(e)
		if f := alarmName.FindStringSubmatch(e); f != nil {
			name = f[1]
		}
		if !slices.Contains(m.Alarms, name) {
			m.Alarms = append(m.Alarms, name)
		}
	}
	return m
}
