package precheck

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLook(t *testing.T) {
	eth := NIC{Name: "eth0", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}, MTU: 9000, Up: true, Mbits: 10000}
	with := func(change func(*NIC)) []NIC {
		n := eth
		change(&n)
		return []NIC{n}
	}
	yes := true
	reach := func(r Reach) []Peer {
		return []Peer{{Name: "beta", Timely: true, Ports: []Reach{r}}}
	}
	for name, c := range map[string]struct {
		facts Facts
		want  string // is one of the checks
	}{
		"clock kept":     {Facts{Synced: &yes}, "ok clock [] The kernel's clock is kept by a time server"},
		"clock not kept": {Facts{Synced: new(bool)}, "warning clock [] Nothing keeps the kernel's clock"},
		"not told":       {Facts{}, "info clock [] The kernel does not tell whether something keeps its clock"},
		"clocks agree":   {Facts{Peers: []Peer{{Name: "beta", Timely: true, Apart: time.Second}}}, "ok clock [node beta] The clocks agree"},
		"ahead":          {Facts{Peers: []Peer{{Name: "beta", Timely: true, Apart: 3 * time.Second}}}, "error clock [node beta] Its clock is 3s ahead"},
		"behind":         {Facts{Peers: []Peer{{Name: "beta", Timely: true, Apart: -2 * time.Second}}}, "error clock [node beta] Its clock is 2s behind"},
		"silent":         {Facts{Peers: []Peer{{Name: "beta"}}}, "warning clock [node beta] It does not tell its time"},

		"loopback":      {Facts{Listeners: []Listener{{"iscsi", "127.0.0.1:3260"}}}, "info interface [127.0.0.1:3260] iSCSI: reached from this machine alone"},
		"loopback six":  {Facts{Listeners: []Listener{{"api", "[::1]:8443"}}}, "info interface [[::1]:8443] API and console: reached from this machine alone"},
		"a name":        {Facts{Listeners: []Listener{{"api", "node1.example.org:8443"}}}, "info interface [node1.example.org:8443] API and console: reached by a name, whose interface is not looked at"},
		"of a router":   {Facts{Listeners: []Listener{{"iscsi", "10.0.0.9:3260"}}, Interfaces: []NIC{eth}}, "info interface [10.0.0.9:3260] iSCSI: the address is on no interface of this machine"},
		"interface":     {Facts{Listeners: []Listener{{"iscsi", "10.0.0.5:3260"}}, Interfaces: []NIC{eth}}, "ok interface [10.0.0.5:3260] iSCSI: on eth0, MTU 9000, 10000 Mbit/s"},
		"no link":       {Facts{Listeners: []Listener{{"iscsi", "10.0.0.5:3260"}}, Interfaces: with(func(n *NIC) { n.Up = false })}, "error interface [10.0.0.5:3260] iSCSI: eth0 has no link"},
		"slow link":     {Facts{Listeners: []Listener{{"dtl", "10.0.0.5:8600"}}, Interfaces: with(func(n *NIC) { n.Mbits = 100 })}, "warning interface [10.0.0.5:8600] Copies of journals: on eth0, MTU 9000, 100 Mbit/s"},
		"small packets": {Facts{Listeners: []Listener{{"dtl", "10.0.0.5:8600"}}, Interfaces: with(func(n *NIC) { n.MTU, n.Mbits = 1400, 0 })}, "warning interface [10.0.0.5:8600] Copies of journals: on eth0, MTU 1400"},

		"reached":     {Facts{Peers: reach(Reach{Service: "dtl", Address: "10.0.0.6:8600", Segment: 8948, NIC: "eth0"}), Interfaces: []NIC{eth}}, "ok port [node beta] Copies of journals: reached at 10.0.0.6:8600"},
		"not reached": {Facts{Peers: reach(Reach{Service: "dtl", Address: "10.0.0.6:8600", Err: errors.New("timeout")})}, "error port [node beta] Copies of journals: not reached at 10.0.0.6:8600: timeout"},
		"cut packets": {Facts{Peers: reach(Reach{Service: "alba", Address: "10.0.0.6:8550", Segment: 1448, NIC: "eth0"}), Interfaces: []NIC{eth}}, "warning port [node beta] Devices of the object store: reached at 10.0.0.6:8550, in segments of 1448 bytes where eth0 has an MTU of 9000"},
		"loopback's MTU": {Facts{Peers: reach(Reach{Service: "api", Address: "127.0.0.1:8443", Segment: 21845, NIC: "lo"}), Interfaces: []NIC{{Name: "lo", MTU: 65536, Up: true, Loopback: true}}},
			"ok port [node beta] API and console: reached at 127.0.0.1:8443"},

		"place":       {Facts{Places: []Place{{Path: "/d", Device: "sda1", Total: 100, Free: 60}}}, "ok disk [/d] It is used; its file system on sda1 is 40 % full"},
		"almost full": {Facts{Places: []Place{{Path: "/d", Device: "sda1", Total: 100, Free: 15}}}, "warning disk [/d] It is used; its file system on sda1 is 85 % full"},
		"full":        {Facts{Places: []Place{{Path: "/d", Device: "sda1", Total: 100, Free: 5}}}, "error disk [/d] It is used; its file system on sda1 is 95 % full"},
		"read only":   {Facts{Places: []Place{{Path: "/d", ReadOnly: true}}}, "error disk [/d] Its file system takes no writes"},
		"not used":    {Facts{Places: []Place{{Path: "/d", Problem: "it is empty"}}}, "error disk [/d] It is not used: it is empty"},
		"slow writes": {Facts{Places: []Place{{Path: "/d", Device: "sdb", Write: true, Rotational: true}}}, "warning disk [/d] Journals are on sdb, a hard disk"},
		"together":    {Facts{Places: []Place{{Path: "/d/1", Device: "sda1", Alba: true}, {Path: "/d/2", Device: "sda1", Alba: true}}}, "info disk [sda1] 2 devices of the object store are on it"},
	} {
		var all []string
		found := false
		for _, got := range Look(c.facts) {
			all = append(all, got.String())
			found = found || got.String() == c.want
			if (got.State == Warning || got.State == Bad) && (got.Means == "" || got.Fix == "") {
				t.Errorf("%s: %s: it does not say what it means and what to do", name, got)
			}
		}
		if !found {
			t.Errorf("%s:\n%s\nlack %s", name, strings.Join(all, "\n"), c.want)
		}
	}
}

func TestWorst(t *testing.T) {
	for want, states := range map[State][]State{OK: nil, Info: {OK, Info}, Warning: {Info, Warning, OK}, Bad: {Warning, Bad, OK}} {
		var checks []Check
		for _, s := range states {
			checks = append(checks, Check{State: s})
		}
		if got := Worst(checks); got != want {
			t.Errorf("%v: %s, want %s", states, got, want)
		}
	}
}
