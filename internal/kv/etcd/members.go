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
)

const (
	// memberWait bounds how long a member is waited for.
	memberWait = 3 * time.Second
	// defaultQuota bounds the database of a member that does not tell its quota, in bytes.
	defaultQuota = 2 << 30
)

// MemberState is what a member says of itself.
type MemberState struct {
	Endpoint string
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
	endpoints := s.c.Endpoints()
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
	st, err := s.c.Status(ctx, endpoint)
	if err != nil {
		m.Err = s.explain(ctx, err)
		if errors.Is(m.Err, context.DeadlineExceeded) {
			m.Err = fmt.Errorf("etcd: no answer within %v", memberWait)
		}
		return m
	}
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
