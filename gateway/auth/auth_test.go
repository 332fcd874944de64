package auth

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

func newService(t *testing.T) (*Service, *model.Store, *clock.Manual) {
	t.Helper()
	b, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	m, err := model.Open(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	clk := clock.NewManual(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	s, err := New(t.Context(), m, clk, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, m, clk
}

func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("error %v, want %v", err, want)
	}
}

const good = "correct horse"

func first(t *testing.T, s *Service) {
	t.Helper()
	token, err := s.NewSetupToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Setup(t.Context(), "a", token, "anna", good); err != nil {
		t.Fatal(err)
	}
}

// TestSetupToken: the newest token counts; after the first user there is none.
func TestSetupToken(t *testing.T) {
	s, m, _ := newService(t)
	old, err := s.NewSetupToken(t.Context())
	check(t, err, nil)
	token, err := s.NewSetupToken(t.Context())
	check(t, err, nil)
	_, err = s.Setup(t.Context(), "a", old, "anna", good)
	check(t, err, ErrCredentials)
	u, err := s.Setup(t.Context(), "a", token, "anna", good)
	check(t, err, nil)
	if u.Role != "manage" || strings.Contains(u.Password, good) || !strings.HasPrefix(u.Password, "$argon2id$") {
		t.Errorf("user %+v", u)
	}
	if h, err := m.Setup(t.Context()); err != nil || h != "" {
		t.Errorf("the set-up token is still in force: %q %v", h, err)
	}
	if again, err := s.NewSetupToken(t.Context()); err != nil || again != "" {
		t.Errorf("a set-up token with a user: %q %v", again, err)
	}
}

// TestSessionLife: idle and absolute limits, and the end with the user.
func TestSessionLife(t *testing.T) {
	s, m, clk := newService(t)
	first(t, s)
	login := func() string {
		v, err := s.Login(t.Context(), "a", "anna", good)
		check(t, err, nil)
		return v.Cookie
	}
	c := login()
	if _, ok := m.Session(digest(c)); !ok {
		t.Fatal("the session is not stored under its hash")
	}
	for range 3 {
		clk.Advance(IdleLimit - time.Second)
		_, err := s.Browser(c, true)
		check(t, err, nil)
	}
	clk.Advance(IdleLimit - time.Second)
	_, err := s.Browser(c, false) // a stream: no activity
	check(t, err, nil)
	clk.Advance(2 * time.Second)
	_, err = s.Browser(c, true)
	check(t, err, ErrCredentials)
	c = login()
	for range int(AbsoluteLimit/IdleLimit)*2 - 1 {
		clk.Advance(IdleLimit / 2)
		_, err = s.Browser(c, true)
		check(t, err, nil)
	}
	clk.Advance(IdleLimit / 2)
	_, err = s.Browser(c, true)
	check(t, err, ErrCredentials)
	u, _ := m.User("anna")
	for range maxUserSessions + 5 {
		v, err := s.openSession(t.Context(), "a", "", u)
		check(t, err, nil)
		c = v.Cookie
	}
	if n := len(m.Sessions()); n > maxUserSessions {
		t.Errorf("%d sessions of one user", n)
	}
	check(t, wrong(s.UpdateUser(t.Context(), "anna", UserChange{Password: new("new password")})), nil)
	_, err = s.Browser(c, true)
	check(t, err, ErrCredentials)
}

func wrong[T any](_ T, err error) error { return err }

// TestLastManager: somebody with role manage always stays.
func TestLastManager(t *testing.T) {
	s, _, _ := newService(t)
	first(t, s)
	ctx := t.Context()
	read := RoleRead
	check(t, s.DeleteUser(ctx, "anna"), ErrLastManager)
	check(t, wrong(s.UpdateUser(ctx, "anna", UserChange{Role: &read})), ErrLastManager)
	check(t, wrong(s.CreateUser(ctx, "bert", good, RoleManage, nil)), nil)
	check(t, wrong(s.CreateUser(ctx, "bert", good, RoleManage, nil)), ErrExists)
	check(t, wrong(s.UpdateUser(ctx, "anna", UserChange{Role: &read})), nil)
	check(t, s.DeleteUser(ctx, "bert"), ErrLastManager)
	check(t, s.DeleteUser(ctx, "anna"), nil)
	check(t, s.DeleteUser(ctx, "anna"), nil)
	check(t, wrong(s.UpdateUser(ctx, "anna", UserChange{Role: &read})), ErrNotFound)
	for _, bad := range []string{"", "a b", "-x", strings.Repeat("x", 65), "ä"} {
		check(t, wrong(s.CreateUser(ctx, bad, good, RoleRead, nil)), ErrInvalid)
	}
	for _, bad := range []string{"", "123456789", strings.Repeat("x", maxPasswordBytes+1)} {
		check(t, wrong(s.CreateUser(ctx, "carl", bad, RoleRead, nil)), ErrInvalid)
	}
}

// TestTokens: expiry, role capped by the user's, revocation with the user.
func TestTokens(t *testing.T) {
	s, m, clk := newService(t)
	first(t, s)
	ctx := t.Context()
	check(t, wrong(s.CreateUser(ctx, "bert", good, RoleWrite, nil)), nil)
	if _, _, err := s.CreateToken(ctx, "ci", "bert", Limit{By: Rights{Role: RoleManage}, Role: RoleManage}, 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("a token above its user: %v", err)
	}
	plain, rec, err := s.CreateToken(ctx, "ci", "bert", Limit{By: Rights{Role: RoleManage}, Role: RoleWrite}, time.Hour)
	check(t, err, nil)
	if !strings.HasPrefix(plain, "ovg_") || len(plain) != 4+43 || strings.Contains(fmt.Sprintf("%+v", rec), plain) {
		t.Errorf("token %q, record %+v", plain, rec)
	}
	p, err := s.Bearer(plain)
	check(t, err, nil)
	if p.Role != RoleWrite || p.User != "bert" {
		t.Errorf("principal %+v", p)
	}
	read := RoleRead
	check(t, wrong(s.UpdateUser(ctx, "bert", UserChange{Role: &read})), nil)
	if p, _ := s.Bearer(plain); p.Role != RoleRead {
		t.Errorf("the token kept role %s", p.Role)
	}
	clk.Advance(time.Hour)
	check(t, wrong(s.Bearer(plain)), ErrCredentials)
	_, _, err = s.CreateToken(ctx, "other", "bert", Limit{By: Rights{Role: RoleManage}, Role: RoleRead}, 0)
	check(t, err, nil)
	if n := len(m.Tokens()); n != 1 {
		t.Errorf("%d tokens: the expired one should be gone", n)
	}
	check(t, s.DeleteUser(ctx, "bert"), nil)
	if n := len(m.Tokens()); n != 0 {
		t.Errorf("%d tokens of a deleted user", n)
	}
	// Two nodes: each one's token is its own, whatever the other one does.
	for _, name := range []string{"a", "b"} {
		_, err := m.CreateNode(ctx, model.Node{ID: name, Name: name})
		check(t, err, nil)
	}
	node, err := s.NodeToken(ctx, "a", "")
	check(t, err, nil)
	same, err := s.NodeToken(ctx, "a", node)
	check(t, err, nil)
	second, err := s.NodeToken(ctx, "b", "")
	check(t, err, nil)
	other, err := s.NodeToken(ctx, "a", "lost")
	check(t, err, nil)
	if same != node || other == node {
		t.Error("the node's token is not kept, or not renewed")
	}
	check(t, wrong(s.Bearer(node)), ErrCredentials)
	check(t, wrong(s.Bearer(second)), nil)
	check(t, s.ForgetNode(ctx, "b"), nil)
	check(t, wrong(s.Bearer(second)), ErrCredentials)
	check(t, wrong(s.Bearer(other)), nil)
}

// TestLimit: ten attempts, then one in two minutes, for a name and for an
// address each; a success costs nothing.
func TestLimit(t *testing.T) {
	now := time.Now()
	l := newLimiter()
	for i := range loginBurst {
		if w := l.take(now, "user/a"); w != 0 {
			t.Fatalf("attempt %d waits %s", i, w)
		}
	}
	if w := l.take(now, "addr/x", "user/a"); w <= 0 || w > loginEvery {
		t.Errorf("attempt beyond the burst waits %s", w)
	}
	if w := l.take(now, "addr/x"); w != 0 {
		t.Errorf("a refused attempt cost the address a token: %s", w)
	}
	now = now.Add(loginEvery)
	if w := l.take(now, "user/a"); w != 0 {
		t.Errorf("after %s: waits %s", loginEvery, w)
	}
	for range 3 * loginBurst {
		if w := l.take(now, "user/b"); w != 0 {
			t.Fatalf("a successful attempt cost a token: %s", w)
		}
		l.giveBack(now, "user/b")
	}
	for i := range 2 * limiterMax {
		l.take(now, fmt.Sprint("addr/", i))
	}
	if n := len(l.buckets); n > limiterMax {
		t.Errorf("%d keys are remembered", n)
	}
	if w := l.take(now.Add(loginBurst*loginEvery), "addr/new"); w != 0 {
		t.Errorf("full of what has recovered: waits %s", w)
	}
}

// TestPHC: damaged hashes are refused without asking for all memory.
func TestPHC(t *testing.T) {
	h := newHasher()
	s, err := h.hash(t.Context(), good)
	check(t, err, nil)
	ok, err := h.verify(t.Context(), good, s)
	if !ok || err != nil {
		t.Errorf("right password: %v %v", ok, err)
	}
	ok, err = h.verify(t.Context(), good+" ", s)
	if ok || err != nil {
		t.Errorf("wrong password: %v %v", ok, err)
	}
	for _, bad := range []string{"", "x", strings.Replace(s, "m=47104", "m=4294967295", 1), strings.Replace(s, "t=1", "t=0", 1), strings.Replace(s, "argon2id", "argon2i", 1), s[:len(s)-4], strings.Replace(s, "p=1", "p=0", 1)} {
		if _, err := h.verify(t.Context(), good, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range hashSlots {
		h <- struct{}{}
	}
	if _, err := h.hash(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("with all slots taken: %v", err)
	}
}

func TestRoles(t *testing.T) {
	all := []Role{RoleRead, RoleWrite, RoleManage}
	for i, have := range all {
		for j, need := range all {
			if have.Allows(need) != (i >= j) {
				t.Errorf("%s allows %s: %v", have, need, have.Allows(need))
			}
		}
		if Role("").Allows(have) || have.Allows("") || have.Allows("unknown") {
			t.Error("no role allows something")
		}
	}
	if _, err := ParseRole("admin"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// TestAddrKey: a host cannot escape the limit by the addresses of its network.
func TestAddrKey(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "addr/192.0.2.1", "2001:db8::1": "addr/2001:db8::/64", "2001:db8::ffff:1": "addr/2001:db8::/64",
		"2001:db8:0:1::1": "addr/2001:db8:0:1::/64", "fe80::1%eth0": "addr/fe80::/64", "::ffff:192.0.2.1": "addr/::ffff:192.0.2.1", "": "addr/",
	} {
		if got := addrKey(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
