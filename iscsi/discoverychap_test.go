package iscsi_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestDiscoveryCHAP: what a discovery session proves, by the mode of the server.
func TestDiscoveryCHAP(t *testing.T) {
	const none = 0
	const refused = 0x0201
	plain := func(o *initiator.Options) {}
	chap := func(o *initiator.Options) { o.CHAPUser, o.CHAPSecret = user, secret }
	mutual := func(o *initiator.Options) { chap(o); o.MutualUser, o.MutualSecret = "target", mutualSecret }
	wrong := func(o *initiator.Options) { chap(o); o.CHAPSecret = "some other secret" }
	other := func(o *initiator.Options) { chap(o); o.CHAPUser = user + "x" }
	for _, tc := range []struct {
		name string
		mode iscsi.DiscoveryCHAP
		who  string // A: of the group with CHAP; B: of the one without
		as   func(*initiator.Options)
		want uint16
	}{
		{"open, plain", iscsi.DiscoveryOpen, hostA, plain, none},
		{"open, CHAP", iscsi.DiscoveryOpen, hostA, chap, refused},
		{"optional, plain", iscsi.DiscoveryOptional, hostA, plain, none},
		{"optional, CHAP", iscsi.DiscoveryOptional, hostA, chap, none},
		{"optional, mutual", iscsi.DiscoveryOptional, hostA, mutual, none},
		{"optional, wrong secret", iscsi.DiscoveryOptional, hostA, wrong, refused},
		{"optional, wrong user", iscsi.DiscoveryOptional, hostA, other, refused},
		{"optional, of a group without CHAP", iscsi.DiscoveryOptional, hostB, chap, refused},
		{"optional, of no group", iscsi.DiscoveryOptional, hostB + "x", chap, refused},
		{"required, plain", iscsi.DiscoveryRequired, hostA, plain, refused},
		{"required, CHAP", iscsi.DiscoveryRequired, hostA, chap, none},
		{"required, mutual", iscsi.DiscoveryRequired, hostA, mutual, none},
		{"required, wrong secret", iscsi.DiscoveryRequired, hostA, wrong, refused},
		{"required, of a group without CHAP", iscsi.DiscoveryRequired, hostB, chap, refused},
		{"required, of no group", iscsi.DiscoveryRequired, hostB + "x", chap, refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := start(t, iscsi.Config{DiscoveryCHAP: tc.mode}, func(s *iscsi.TargetSpec) {
				s.Groups = []iscsi.Group{
					{Name: "chap", Initiators: []string{hostA}, Auth: &iscsi.Auth{User: user, Secret: secret, MutualUser: "target", MutualSecret: mutualSecret}},
					{Name: "plain", Initiators: []string{hostB}},
				}
			})
			o := initiator.Options{Address: n.addr, Initiator: tc.who}
			tc.as(&o)
			found, err := initiator.Discover(n.ctx, o)
			var le *initiator.LoginError
			switch {
			case tc.want == none && (err != nil || len(found) != 1 || found[0].Name != targetName):
				t.Errorf("it found %+v %v", found, err)
			case tc.want != none && (!errors.As(err, &le) || le.Status != tc.want):
				t.Errorf("it found %+v %v, want status %04x", found, err, tc.want)
			}
		})
	}
}

// TestUnproven: an initiator that does not take what the target proves hangs up, and the server
// says so. One that goes away before that says nothing.
func TestUnproven(t *testing.T) {
	var mu sync.Mutex
	var told []iscsi.Refusal
	n := start(t, iscsi.Config{Refused: func(r iscsi.Refusal) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, r)
	}}, func(s *iscsi.TargetSpec) {
		s.Groups = open(&iscsi.Auth{User: user, Secret: secret, MutualUser: "target", MutualSecret: mutualSecret})
	})
	_, err := n.connect(func(o *initiator.Options) {
		o.Initiator, o.CHAPUser, o.CHAPSecret, o.MutualUser, o.MutualSecret = hostA, user, secret, "target", "some other secret"
	})
	if err == nil || !strings.Contains(err.Error(), "did not prove") {
		t.Fatalf("the initiator takes it: %v", err)
	}
	eventually(t, n, "told of it", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 1 })
	mu.Lock()
	defer mu.Unlock()
	if r := told[0]; r.Initiator != hostA || r.Target != targetName || !strings.Contains(r.Reason.Error(), "another mutual secret") || strings.Contains(r.Reason.Error(), mutualSecret) {
		t.Errorf("it is told %+v", r)
	}
}
