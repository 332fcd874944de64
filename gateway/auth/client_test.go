package auth

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
)

// newClient makes a client of anna.
func newClient(t *testing.T, s *Service, name string, life time.Duration, types ...string) model.Client {
	t.Helper()
	plain, c, err := s.CreateClient(t.Context(), NewClient{Name: name, User: "anna", GrantTypes: types, Limit: Limit{By: Rights{Role: RoleManage}, Role: RoleWrite}, Life: life})
	if err != nil {
		t.Fatal(err)
	}
	if c.Hash == "" || c.Hash == plain {
		t.Errorf("the secret is kept as %q", c.Hash)
	}
	if got, err := s.AuthenticateClient(t.Context(), "a", c.ID, plain); err != nil || got.ID != c.ID {
		t.Errorf("its secret: %v", err)
	}
	return c
}

// TestGivenBounds: tokens of clients and sign-ins expire, are forgotten, and are so many at most,
// beside those of people.
func TestGivenBounds(t *testing.T) {
	s, m, clk := newService(t)
	first(t, s)
	ctx := t.Context()
	c := newClient(t, s, "web", 30*time.Hour, GrantClient, GrantPassword)
	var firstOne Given
	for i := range 2 * maxGiven {
		clk.Advance(time.Second)
		g, err := s.GiveClient(ctx, c, "")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			firstOne = g
		}
		if p, err := s.Bearer(g.Access); err != nil || p.User != "anna" || p.Role != RoleWrite {
			t.Fatalf("token %d: %+v, %v", i, p, err)
		}
	}
	if _, err := s.Bearer(firstOne.Access); !errors.Is(err, ErrCredentials) || len(m.Tokens()) != maxGiven {
		t.Errorf("the oldest of %d tokens: %v", len(m.Tokens()), err)
	}
	for range maxGiven + 3 {
		clk.Advance(time.Second)
		if _, err := s.GivePassword(ctx, "a", c, "anna", good, "read"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.Families()); n != maxGiven {
		t.Errorf("there are %d sign-ins", n)
	}
	clk.Advance(AccessLife + time.Second)
	g, err := s.GivePassword(ctx, "a", c, "anna", good, "read")
	if err != nil || len(m.Tokens()) != 1 {
		t.Fatalf("after an hour there are %d tokens, %v", len(m.Tokens()), err)
	}
	clk.Advance(RefreshLife)
	if _, err := s.GiveRefresh(ctx, c, g.Refresh, ""); !errors.Is(err, ErrCredentials) || len(m.Families()) != maxGiven-1 {
		t.Errorf("a refresh token after a day: %v, %d sign-ins", err, len(m.Families()))
	}
	// No token outlives its client.
	clk.Advance(c.Expires.Sub(clk.Now()) - time.Minute)
	if g, err := s.GiveClient(ctx, c, ""); err != nil || !g.Expires.Equal(c.Expires) {
		t.Errorf("a token until %v of a client until %v", g.Expires, c.Expires)
	}
	clk.Advance(30 * time.Hour)
	if _, err := s.AuthenticateClient(ctx, "b", c.ID, "x"); !errors.Is(err, ErrCredentials) {
		t.Errorf("a client that has expired: %v", err)
	}
	if err := s.DeleteClient(ctx, c.ID); err != nil || len(m.Tokens())+len(m.Families())+len(m.Clients()) != 0 {
		t.Errorf("after the client: %v, %d tokens, %d sign-ins", err, len(m.Tokens()), len(m.Families()))
	}
}

// TestRefreshOnce: of requests with one refresh token, one succeeds at most, and what it gave is
// good unless another of them came after it.
func TestRefreshOnce(t *testing.T) {
	s, m, _ := newService(t)
	first(t, s)
	ctx := t.Context()
	c := newClient(t, s, "web", 0, GrantPassword)
	g, err := s.GivePassword(ctx, "a", c, "anna", good, "")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			_, err := s.GiveRefresh(ctx, c, g.Refresh, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrCredentials) {
				t.Errorf("refresh: %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d requests with one refresh token succeeded", won)
	}
	if _, err := s.GiveRefresh(ctx, c, g.Refresh, ""); !errors.Is(err, ErrCredentials) || len(m.Families()) != 0 {
		t.Errorf("used again: %v, %d sign-ins", err, len(m.Families()))
	}
	for _, bad := range []string{"", "ovr_", "ovr_.", "ovr_x.y", "ovg_x", "ovr_../../user/anna.x", "ovr_00000000-0000-0000-0000-000000000000.x"} {
		if _, err := s.GiveRefresh(ctx, c, bad, ""); !errors.Is(err, ErrCredentials) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := s.RevokeGiven(ctx, c, bad); err != nil {
			t.Errorf("revocation of %q: %v", bad, err)
		}
	}
}
