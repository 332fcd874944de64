package iscsi_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

const hostA, hostB, hostC = "iqn.2026-01.host:a", "iqn.2026-01.host:b", "iqn.2026-01.host:c"

func as(name string) func(*initiator.Options) {
	return func(o *initiator.Options) { o.Initiator = name }
}

// masked runs a target with three units: a sees two of them under other numbers,
// one of them read-only; b sees another one; anybody else all three.
func masked(t *testing.T) *node {
	return start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		s.LUNs = nil
		for _, n := range []uint16{0, 7, 300} {
			s.LUNs = append(s.LUNs, lunSpec(n, iscsitest.NewDisk(int64(n+1)<<20, nil)))
		}
		s.Groups = []iscsi.Group{
			{Name: "a", Initiators: []string{strings.ToUpper(hostA)}, LUNs: []iscsi.LUNMap{{Number: 1, LUN: 300}, {Number: 0, LUN: 7, ReadOnly: true}}},
			{Name: "b", Initiators: []string{hostB}, LUNs: []iscsi.LUNMap{{Number: 7, LUN: 0}}},
			{Name: "rest", Any: true},
		}
	})
}

// ready logs in without touching a unit.
func (n *node) ready(change func(*initiator.Options), luns ...uint16) *initiator.Session {
	n.t.Helper()
	s, err := n.dial(change)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, l := range luns {
		if err := s.Ready(n.ctx, l); err != nil {
			n.t.Fatal(err)
		}
	}
	return s
}

func (n *node) update() {
	n.t.Helper()
	if err := n.srv.UpdateTarget(n.spec); err != nil {
		n.t.Fatal(err)
	}
}

// sizes tells the LUNs that a session is shown, and which of the units each is.
func sizes(n *node, s *initiator.Session) string {
	luns, err := s.ReportLUNs(n.ctx)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, l := range luns {
		if err := s.Ready(n.ctx, l); err != nil {
			return err.Error()
		}
		c, err := s.ReadCapacity(n.ctx, l)
		if err != nil {
			return err.Error()
		}
		out = append(out, fmt.Sprintf("%d=%d", l, c.Blocks>>11-1))
	}
	return strings.Join(out, " ")
}

// TestMasking: initiators see what their group maps, under its numbers, and
// nothing else.
func TestMasking(t *testing.T) {
	n := masked(t)
	for name, want := range map[string]string{hostA: "0=7 1=300", hostB: "7=0", hostC: "0=0 7=7 300=300"} {
		if got := sizes(n, n.ready(as(name))); got != want {
			t.Errorf("%s sees %s, want %s", name, got, want)
		}
	}
	a := n.ready(as(hostA), 0, 1)
	for _, hidden := range []uint16{7, 300, 2} {
		wantSense(t, a.TestUnitReady(n.ctx, hidden), 5, 0x25, 0)
		wantSense(t, a.ReadAt(n.ctx, hidden, make([]byte, 512), 0), 5, 0x25, 0)
		wantSense(t, a.WriteAt(n.ctx, hidden, make([]byte, 512), 0), 5, 0x25, 0)
		if b, err := a.Inquiry(n.ctx, hidden, -1); err != nil || b[0] != 0x7f {
			t.Errorf("INQUIRY of LUN %d: % x, %v", hidden, b, err)
		}
		if code, err := a.TaskManagement(n.ctx, initiator.LogicalUnitReset, hidden, nil); err != nil || code != 2 {
			t.Errorf("reset of LUN %d: %d, %v", hidden, code, err)
		}
	}
	for _, i := range n.srv.Sessions() {
		if want := map[string]string{hostA: "a", hostB: "b", hostC: "rest"}[i.Initiator]; i.Group != want {
			t.Errorf("%s is in group %s", i.Initiator, i.Group)
		}
	}
	if g := n.srv.Targets()[0].Groups; len(g) != 3 || g[0].Sessions != 2 || g[0].Initiators[0] != hostA || len(g[0].LUNs) != 2 || !g[2].Any {
		t.Errorf("groups %+v", g)
	}
}

// TestReadOnlyMap: a group's write protection is its own.
func TestReadOnlyMap(t *testing.T) {
	n := masked(t)
	a, c := n.ready(as(hostA), 0, 1), n.ready(as(hostC), 7)
	block := make([]byte, 512)
	protected := func(s *initiator.Session, lun uint16) bool {
		m := &initiator.Command{LUN: lun, CDB: cdb(0x1a, 0x08, 0x0a, 0, 255), In: make([]byte, 255)}
		if err := s.Do(n.ctx, m); err != nil {
			t.Error(err)
		}
		return m.In[2]&0x80 != 0
	}
	for name, write := range map[string]func() error{
		"WRITE":             func() error { return a.WriteAt(n.ctx, 0, block, 0) },
		"WRITE SAME":        func() error { return a.WriteSame(n.ctx, 0, block, 0, 1, false) },
		"UNMAP":             func() error { return a.Unmap(n.ctx, 0, initiator.Extent{Blocks: 8}) },
		"COMPARE AND WRITE": func() error { return a.CompareAndWrite(n.ctx, 0, block, block, 0) },
	} {
		t.Run(name, func(t *testing.T) { wantSense(t, write(), 7, 0x27, 0) })
	}
	if err := a.ReadAt(n.ctx, 0, block, 0); err != nil {
		t.Error(err)
	}
	for _, err := range []error{a.WriteAt(n.ctx, 1, block, 0), c.WriteAt(n.ctx, 7, block, 0)} {
		if err != nil {
			t.Errorf("a unit that is not protected: %v", err)
		}
	}
	if !protected(a, 0) || protected(a, 1) || protected(c, 7) {
		t.Error("WP is not what the maps say")
	}
	n.spec.Groups[0].LUNs[1].ReadOnly = false
	n.update()
	wantSense(t, a.TestUnitReady(n.ctx, 0), 6, 0x2a, 1)
	if err := a.TestUnitReady(n.ctx, 1); err != nil {
		t.Errorf("the other unit: %v", err)
	}
	if err := a.WriteAt(n.ctx, 0, block, 0); err != nil || protected(a, 0) {
		t.Errorf("after the change: %v", err)
	}
}

// TestViewChange: changes reach exactly those who see them.
func TestViewChange(t *testing.T) {
	n := masked(t)
	a, b, c := n.ready(as(hostA), 0, 1), n.ready(as(hostB), 7), n.ready(as(hostC), 0, 7, 300)
	quiet := func(s *initiator.Session, luns ...uint16) {
		t.Helper()
		for _, l := range luns {
			if err := s.TestUnitReady(n.ctx, l); err != nil {
				t.Errorf("LUN %d: %v", l, err)
			}
		}
	}
	changed := func(s *initiator.Session, luns ...uint16) {
		t.Helper()
		for _, l := range luns {
			wantSense(t, s.TestUnitReady(n.ctx, l), 6, 0x3f, 0x0e)
		}
	}
	n.update() // nothing changed
	quiet(a, 0, 1)
	quiet(b, 7)
	quiet(c, 0, 7, 300)

	n.spec.Groups[1].LUNs = append(n.spec.Groups[1].LUNs, iscsi.LUNMap{Number: 9, LUN: 300})
	n.update()
	quiet(a, 0, 1)
	changed(b, 7, 9)
	quiet(c, 0, 7, 300)

	if err := a.Do(n.ctx, &initiator.Command{LUN: 1, CDB: cdb(0x16)}); err != nil { // RESERVE
		t.Fatal(err)
	}
	wantStatus(t, c.TestUnitReady(n.ctx, 300), initiator.ReservationConflict)
	n.spec.Groups[0].LUNs = n.spec.Groups[0].LUNs[1:] // a loses its LUN 1, and what it reserved there
	n.update()
	changed(a, 0)
	wantSense(t, a.TestUnitReady(n.ctx, 1), 5, 0x25, 0)
	quiet(b, 7, 9)
	quiet(c, 300)

	n.spec.Groups[0].LUNs = []iscsi.LUNMap{{Number: 0, LUN: 0}} // another unit under the same number
	n.update()
	changed(a, 0)
	if got := sizes(n, a); got != "0=0" {
		t.Errorf("a sees %s", got)
	}
	quiet(b, 7, 9)

	if err := n.srv.CapacityChanged(targetName, 300); err != nil { // of b's LUN 9 and c's LUN 300
		t.Fatal(err)
	}
	quiet(a, 0)
	quiet(b, 7)
	wantSense(t, b.TestUnitReady(n.ctx, 9), 6, 0x2a, 9)
	wantSense(t, c.TestUnitReady(n.ctx, 300), 6, 0x2a, 9)
}

// TestRemovedLUN: commands in flight finish, later ones find no unit.
func TestRemovedLUN(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	other := iscsitest.NewDisk(1<<20, nil)
	n.spec.LUNs = append(n.spec.LUNs, lunSpec(1, other))
	n.update()
	s := n.ready(nil, 0, 1)
	n.disk.Hold()
	done := make(chan error, 1)
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { done <- c.Err }}
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the read is inside the disk", func() bool { return n.disk.Held() == 1 })
	n.spec.LUNs = n.spec.LUNs[1:]
	n.update()
	wantSense(t, s.TestUnitReady(n.ctx, 0), 5, 0x25, 0)
	wantSense(t, s.TestUnitReady(n.ctx, 1), 6, 0x3f, 0x0e)
	n.disk.Release()
	if err := <-done; err != nil {
		t.Errorf("the command in flight: %v", err)
	}
}

// TestMoveBetweenGroups: who stays and who has to log in again.
func TestMoveBetweenGroups(t *testing.T) {
	one, two := &iscsi.Auth{User: "one", Secret: "secret of group one"}, &iscsi.Auth{User: "two", Secret: "secret of group two"}
	login := func(o *initiator.Options) {
		o.Initiator, o.CHAPUser, o.CHAPSecret = hostA, one.User, one.Secret
	}
	in := func(name string, a *iscsi.Auth) iscsi.Group {
		return iscsi.Group{Name: name, Initiators: []string{hostA}, Auth: a}
	}
	for name, tc := range map[string]struct {
		to   []iscsi.Group
		stay bool
	}{
		"same group":                {[]iscsi.Group{in("g", one)}, true},
		"new secret of the group":   {[]iscsi.Group{in("g", two)}, true},
		"group without CHAP":        {[]iscsi.Group{in("h", nil)}, true},
		"group of the same secret":  {[]iscsi.Group{in("h", &iscsi.Auth{User: one.User, Secret: one.Secret})}, true},
		"group of another secret":   {[]iscsi.Group{in("h", two)}, false},
		"named elsewhere and open":  {[]iscsi.Group{{Name: "h", Initiators: []string{hostB}}, {Name: "g", Any: true, Auth: one}}, true},
		"taken off":                 {[]iscsi.Group{{Name: "g", Initiators: []string{hostB}, Auth: one}}, false},
		"group removed":             {nil, false},
		"group removed, open other": {[]iscsi.Group{{Name: "h", Any: true}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.Groups = []iscsi.Group{in("g", one)} })
			s := n.login(login)
			n.spec.Groups = tc.to
			n.update()
			if tc.stay {
				if err := s.TestUnitReady(n.ctx, 0); err != nil {
					t.Error(err)
				}
				return
			}
			select {
			case <-s.Done():
			case <-n.ctx.Done():
				t.Error("the session stayed")
			}
		})
	}
}

// TestUpdateUnderLoad changes maps and units while sessions read and write.
func TestUpdateUnderLoad(t *testing.T) {
	n := masked(t)
	ctx, stop := context.WithCancel(n.ctx)
	done := make(chan error, 3)
	for _, name := range []string{hostA, hostB, hostC} {
		s := n.ready(as(name))
		go func() {
			for ctx.Err() == nil {
				for _, l := range []uint16{0, 1, 7, 300} {
					if err := s.ReadAt(n.ctx, l, make([]byte, 4096), 0); s.Err() != nil {
						done <- fmt.Errorf("%s: %w", name, err)
						return
					}
				}
			}
			done <- nil
		}()
	}
	all := n.spec.LUNs
	for i := range 300 {
		n.spec.LUNs = all
		n.spec.Groups[0].LUNs = []iscsi.LUNMap{{Number: uint16(i % 2), LUN: all[i%3].Number, ReadOnly: i%5 == 0}}
		n.spec.Groups[1].LUNs = nil
		if i%3 == 1 {
			n.spec.Groups[0].LUNs = nil
			n.spec.LUNs = all[:2]
		}
		n.update()
	}
	stop()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestGroupValidation: refusals name what is wrong and change nothing.
func TestGroupValidation(t *testing.T) {
	const short = "elevenbytes"
	auth := func(a iscsi.Auth) func(*iscsi.TargetSpec) {
		return func(s *iscsi.TargetSpec) { s.Groups[0].Auth = &a }
	}
	portal := func(p iscsi.Portal) func(*iscsi.TargetSpec) {
		return func(s *iscsi.TargetSpec) { s.Portals = []iscsi.Portal{p} }
	}
	n := masked(t)
	for name, tc := range map[string]struct {
		spoil func(*iscsi.TargetSpec)
		says  string // parts of the message, separated by |
	}{
		"group name":        {func(s *iscsi.TargetSpec) { s.Groups[0].Name = "A b" }, `group "A b"`},
		"no group name":     {func(s *iscsi.TargetSpec) { s.Groups[0].Name = "" }, `group ""`},
		"group twice":       {func(s *iscsi.TargetSpec) { s.Groups[1].Name = "a" }, "group a|twice"},
		"any twice":         {func(s *iscsi.TargetSpec) { s.Groups[1].Any = true }, "groups b and rest"},
		"initiator":         {func(s *iscsi.TargetSpec) { s.Groups[1].Initiators = []string{"host"} }, `group b|"host"`},
		"initiator twice":   {func(s *iscsi.TargetSpec) { s.Groups[1].Initiators = []string{hostB, hostB} }, "group b|" + hostB + " is given twice"},
		"in two groups":     {func(s *iscsi.TargetSpec) { s.Groups[1].Initiators = []string{hostA} }, hostA + " is in the groups a and b"},
		"LUN number twice":  {func(s *iscsi.TargetSpec) { s.Groups[0].LUNs[1].Number = 1 }, "group a|LUN 1 is mapped twice"},
		"LUN number":        {func(s *iscsi.TargetSpec) { s.Groups[0].LUNs[1].Number = 16384 }, "group a|LUN 16384"},
		"unknown LUN":       {func(s *iscsi.TargetSpec) { s.Groups[1].LUNs[0].LUN = 5 }, "group b|LUN 7 stands for LUN 5"},
		"one LUN twice":     {func(s *iscsi.TargetSpec) { s.Groups[0].LUNs[1].LUN = 300 }, "group a|LUN 300 of the target is mapped twice"},
		"LUN taken":         {func(s *iscsi.TargetSpec) { s.LUNs[1].Number = 0 }, "LUN 0 is given twice"},
		"short secret":      {auth(iscsi.Auth{User: "u", Secret: short}), "group a|12 to 255 bytes"},
		"long secret":       {auth(iscsi.Auth{User: "u", Secret: strings.Repeat("x", 256)}), "group a|12 to 255 bytes"},
		"short mutual":      {auth(iscsi.Auth{User: "u", Secret: secret, MutualUser: "m", MutualSecret: short}), "group a|mutual CHAP secret"},
		"mutual, no secret": {auth(iscsi.Auth{User: "u", Secret: secret, MutualUser: "m"}), "group a|mutual CHAP secret"},
		"mutual, no user":   {auth(iscsi.Auth{User: "u", Secret: secret, MutualSecret: secret + "x"}), "group a|mutual CHAP user"},
		"same secrets":      {auth(iscsi.Auth{User: "u", Secret: secret, MutualUser: "m", MutualSecret: secret}), "group a|must differ"},
		"no user":           {auth(iscsi.Auth{Secret: secret}), "group a|CHAP user"},
		"portal":            {portal(iscsi.Portal{Address: "here", Group: 1}), `"here" is not host:port`},
		"bare IPv6":         {portal(iscsi.Portal{Address: "fd00::5", Group: 1}), "[fd00::5]:3260"},
		"port 0":            {portal(iscsi.Portal{Address: "10.0.0.5:0", Group: 1}), "not host:port"},
		"wildcard":          {portal(iscsi.Portal{Address: "0.0.0.0:3260", Group: 1}), "wildcard"},
		"IPv6 wildcard":     {portal(iscsi.Portal{Address: "[::]:3260", Group: 1}), "wildcard"},
		"comma in host":     {portal(iscsi.Portal{Address: "a,2:3260", Group: 1}), "not host:port"},
		"zone":              {portal(iscsi.Portal{Address: "[fe80::1%eth0]:3260", Group: 1}), "not host:port"},
		"no group tag":      {portal(iscsi.Portal{Address: "10.0.0.5:3260"}), "10.0.0.5:3260|group must be"},
		"local name":        {portal(iscsi.Portal{Address: "10.0.0.5:3260", Local: "host:3260", Group: 1}), `local address "host:3260"`},
		"local without":     {portal(iscsi.Portal{Address: "10.0.0.5:3260", Local: "10.0.0.5", Group: 1}), "local address"},
		"portal twice": {func(s *iscsi.TargetSpec) {
			s.Portals = []iscsi.Portal{{Address: "10.0.0.5:3260", Group: 1}, {Address: "10.0.0.5:3260", Group: 2}}
		}, "10.0.0.5:3260 is given twice"},
		"port group tag":   {func(s *iscsi.TargetSpec) { s.PortGroups = []iscsi.PortGroup{{}} }, "port group tag"},
		"port group state": {func(s *iscsi.TargetSpec) { s.PortGroups = []iscsi.PortGroup{{Tag: 1, State: 5}} }, "port group 1"},
		"port group twice": {func(s *iscsi.TargetSpec) { s.PortGroups = []iscsi.PortGroup{{Tag: 1}, {Tag: 1}} }, "port group 1 is given twice"},
		"redirect":         {func(s *iscsi.TargetSpec) { s.Redirect = &iscsi.Redirect{Addresses: []string{"there"}} }, "redirect"},
		"redirect nowhere": {func(s *iscsi.TargetSpec) { s.Redirect = &iscsi.Redirect{} }, "redirect"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := n.spec
			spec.LUNs = append([]iscsi.LUNSpec(nil), spec.LUNs...)
			spec.Groups = append([]iscsi.Group(nil), spec.Groups...)
			for i := range spec.Groups {
				spec.Groups[i].LUNs = append([]iscsi.LUNMap(nil), spec.Groups[i].LUNs...)
			}
			tc.spoil(&spec)
			before := fmt.Sprintf("%+v", n.srv.Targets())
			err := n.srv.UpdateTarget(spec)
			if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), short) {
				t.Fatalf("%v", err)
			}
			for _, part := range strings.Split(targetName+"|"+tc.says, "|") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if now := fmt.Sprintf("%+v", n.srv.Targets()); now != before {
				t.Errorf("changed:\n%s\n%s", before, now)
			}
			if err := iscsi.NewServer(iscsi.Config{}).AddTarget(spec); err == nil {
				t.Error("a new target takes it")
			}
		})
	}
}

// TestResetMasked: resets touch what the initiator sees.
func TestResetMasked(t *testing.T) {
	n := masked(t)
	n.spec.Groups[2].LUNs = []iscsi.LUNMap{{Number: 4, LUN: 7}, {Number: 5, LUN: 0}}
	n.update()
	a, b, c := n.ready(as(hostA), 0, 1), n.ready(as(hostB), 7), n.ready(as(hostC), 4, 5)
	for _, fn := range []byte{initiator.TargetWarmReset, initiator.TargetColdReset} {
		if err := b.Do(n.ctx, &initiator.Command{LUN: 7, CDB: cdb(0x16)}); err != nil { // RESERVE
			t.Fatal(err)
		}
		if code, err := a.TaskManagement(n.ctx, fn, 0, nil); err != nil || code != 0 {
			t.Fatalf("answer %d, %v", code, err)
		}
		if fn == initiator.TargetWarmReset {
			wantSense(t, a.TestUnitReady(n.ctx, 0), 6, 0x29, 3)
			wantSense(t, a.TestUnitReady(n.ctx, 1), 6, 0x29, 3)
			wantSense(t, c.TestUnitReady(n.ctx, 4), 6, 0x29, 3)
			wantStatus(t, c.TestUnitReady(n.ctx, 5), initiator.ReservationConflict)
		} else {
			<-c.Done()
			<-a.Done()
		}
		if err := b.TestUnitReady(n.ctx, 7); err != nil {
			t.Errorf("a unit that is masked: %v", err)
		}
	}
}

// TestPortalRemoved: sessions through a portal that goes, or joins another port
// group, have to come in anew.
func TestPortalRemoved(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	second, _ := n.listen("127.0.0.1:0")
	portal := func(a string, group uint16) iscsi.Portal { return iscsi.Portal{Address: a, Local: a, Group: group} }
	n.spec.Portals = []iscsi.Portal{portal(n.addr, 1), portal(second, 2)}
	n.update()
	stays := n.login(nil)
	through := func(o *initiator.Options) { o.Address = second }
	for _, list := range [][]iscsi.Portal{{portal(n.addr, 1)}, {portal(n.addr, 1), portal(second, 3)}} {
		goes := n.login(through)
		n.spec.Portals = list
		n.update()
		select {
		case <-goes.Done():
		case <-n.ctx.Done():
			t.Fatal("the session stayed")
		}
		n.spec.Portals = []iscsi.Portal{portal(n.addr, 1), portal(second, 2)}
		n.update()
	}
	if err := stays.Ready(n.ctx, 0); err != nil {
		t.Error(err)
	}
}

// listen serves n on another address of this machine.
func (n *node) listen(address string) (string, bool) {
	n.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", false
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.srv.Serve(l) // its error says that the server was shut down
	}()
	n.t.Cleanup(func() {
		_ = l.Close()
		<-served
	})
	return l.Addr().String(), true
}

// TestPortals: a target is reached through its portals only, and each gives its
// group; discovery tells all of them wherever it asks.
func TestPortals(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	second, _ := n.listen("127.0.0.1:0")
	hidden, _ := n.listen("127.0.0.1:0")
	wild, _ := n.listen("127.0.0.3:0")
	_, port, _ := net.SplitHostPort(wild)
	n.spec.Portals = []iscsi.Portal{
		{Address: "192.0.2.1:3260", Local: n.addr, Group: 1},
		{Address: "[2001:db8::1]:3260", Local: second, Group: 2},
		{Address: "san.example:3260", Local: "0.0.0.0:" + port, Group: 3},
	}
	groups := map[string]uint16{n.addr: 1, second: 2, wild: 3}
	if six, ok := n.listen("[::1]:0"); ok {
		n.spec.Portals = append(n.spec.Portals, iscsi.Portal{Address: six, Local: six, Group: 4})
		groups[six] = 4
	} else {
		t.Log("no IPv6 on this machine")
	}
	n.update()
	want := "["
	for _, p := range n.spec.Portals {
		want += fmt.Sprintf("%s,%d ", p.Address, p.Group)
	}
	want = strings.TrimSpace(want) + "]"
	for at, group := range groups {
		s, err := n.dial(func(o *initiator.Options) { o.Address = at })
		if err != nil {
			t.Errorf("%s: %v", at, err)
			continue
		}
		ids, err := s.Inquiry(n.ctx, 0, 0x83)
		port := []byte{0x51, 0x94, 0, 4, 0, 0, 0, byte(group)}
		if err != nil || !strings.Contains(string(ids), string(port)) || !strings.Contains(string(ids), fmt.Sprintf("%s,t,0x%04x", targetName, group)) {
			t.Errorf("%s: identifiers % x, %v", at, ids, err)
		}
		got, err := initiator.Discover(n.ctx, initiator.Options{Address: at})
		if err != nil || len(got) != 1 || fmt.Sprint(got[0].Addresses) != want {
			t.Errorf("%s: discovery %v, %v, want %s", at, got, err, want)
		}
		text, err := s.Text(n.ctx, "SendTargets=\x00")
		if err != nil || !strings.Contains(text, "TargetName="+targetName+"\x00TargetAddress="+n.spec.Portals[0].Address+",1\x00") {
			t.Errorf("%s: %q, %v", at, text, err)
		}
	}
	for _, i := range n.srv.Sessions() {
		if i.PortalGroup != groups[i.Local] {
			t.Errorf("session through %s is in group %d", i.Local, i.PortalGroup)
		}
	}
	if _, err := n.dial(func(o *initiator.Options) { o.Address = hidden }); loginStatus(err) != 0x0203 {
		t.Errorf("through an address that is no portal: %v", err)
	}
	if got, err := initiator.Discover(n.ctx, initiator.Options{Address: hidden}); err != nil || len(got) != 1 {
		t.Errorf("discovery through it: %v, %v", got, err)
	}
}

// TestPortalWithoutLocal: portals that do not say where they are bound fit any
// address; the one that is told as this address first.
func TestPortalWithoutLocal(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	second, _ := n.listen("127.0.0.1:0")
	n.spec.Portals = []iscsi.Portal{{Address: "192.0.2.1:3260", Group: 5}, {Address: n.addr, Group: 6}}
	n.update()
	for at, group := range map[string]uint16{n.addr: 6, second: 5} {
		s := n.login(func(o *initiator.Options) { o.Address = at })
		if got := n.srv.Sessions()[0].PortalGroup; got != group {
			t.Errorf("%s is in group %d, want %d", at, got, group)
		}
		if err := s.Logout(n.ctx); err != nil {
			t.Error(err)
		}
		eventually(t, n, "the session is gone", func() bool { return len(n.srv.Sessions()) == 0 })
	}
}
