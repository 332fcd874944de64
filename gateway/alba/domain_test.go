package alba

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/preset"
)

// The devices of a node are in the domain that its configuration names now. A preset that
// spreads by domain is refused while there are devices of which nobody said that, and by
// the node's name; then it says what survives in domains.
func TestDomainOfNode(t *testing.T) {
	data := t.TempDir()
	store := registry(t, data)
	var dirs []Dir
	for _, d := range []string{"1", "2", "3", "4"} {
		dirs = append(dirs, Dir{Path: filepath.Join(data, "disk"+d), Bytes: 1 << 30})
	}
	s := newService(t, data, store, dirs...)
	racks := NewPreset{Name: "racks", Policies: []preset.Policy{{K: 2, M: 2, C: 3, X: 4}, {K: 1, M: 1, C: 2, X: 1}}, Spread: preset.ByDomain}
	_, err := s.CreatePreset(t.Context(), racks)
	if !errors.Is(err, manager.ErrInvalid) || !strings.Contains(err.Error(), "n1, where device 1 is, has none: set domain in the node's configuration") {
		t.Fatalf("without a domain: %v", err)
	}
	domains := func(want string) {
		t.Helper()
		osds, err := s.OSDs(t.Context())
		must(t, err)
		for _, o := range osds {
			if len(osds) != len(dirs) || o.Domain != want {
				t.Errorf("device %d is in %q, want %q", o.Number, o.Domain, want)
			}
		}
	}
	domains("")
	for _, domain := range []string{"rack1", "rack2"} {
		must(t, s.Close())
		sealer := s.o.Sealer
		s = newService(t, data, store, dirs...)
		s.o.Sealer, s.o.Domain = sealer, domain
		must(t, s.Open(t.Context()))
		domains(domain)
	}
	defer func() { must(t, s.Close()) }()
	p, err := s.CreatePreset(t.Context(), racks)
	must(t, err)
	if p.Spread != preset.ByDomain || p.Now != "(2,2,3,4)" || p.OutlivesNode || !strings.Contains(p.Explain, "any 2 disks (") {
		t.Errorf("one domain: %+v", p)
	}
	// A device without which the preset cannot be met stays.
	if _, err := s.CreatePreset(t.Context(), NewPreset{Name: "tight", Policies: []preset.Policy{{K: 2, M: 2, C: 4, X: 4}}, Spread: preset.ByDomain}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Decommission(t.Context(), 1)
	if !errors.Is(err, manager.ErrUnsafe) || !strings.Contains(err.Error(), "device 1 of domain rack2") || !strings.Contains(err.Error(), "in 1 domain: bring devices back or add some") {
		t.Errorf("decommissioned: %v", err)
	}
	_, err = s.UpdatePreset(t.Context(), "racks", []preset.Policy{{K: 1, M: 1, C: 2, X: 1}}, 0, 0)
	must(t, err)
	p, err = s.Preset(t.Context(), "racks")
	must(t, err)
	if p.Spread != preset.ByDomain || p.Now != "" || !strings.Contains(p.Problem, "in 1 domain:") {
		t.Errorf("two domains are needed: %+v", p)
	}
}

// A node says where it is itself; of a machine that is no node the one says it who claims
// its ASD.
func TestDomainOfMachine(t *testing.T) {
	s := newService(t, t.TempDir(), nil)
	s.o.Domain = "rack1"
	all := &nodes{all: map[string]Node{}}
	all.set(Node{ID: idOf("n2"), Name: "n2", Domain: "rack2"})
	s.o.Cluster = &member{all, nil, nil, nil}
	for _, c := range []struct{ machine, domain, id, in, err string }{
		{"n2", "", idOf("n2"), "rack2", ""},
		{"n2", "rack2", idOf("n2"), "rack2", ""},
		{"n2", "rack3", "", "", `node n2 says that it is in "rack2"`},
		{"storage1", "rack3", "storage1", "rack3", ""},
		{"storage1", "", "storage1", "", ""},
	} {
		id, in, err := s.machine(c.machine, c.domain)
		if id != c.id || in != c.in || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s in %q: %q in %q, %v", c.machine, c.domain, id, in, err)
		}
	}
	if err := (Claim{Directory: "/d", Domain: "rack1"}).check(); !errors.Is(err, manager.ErrInvalid) {
		t.Errorf("a directory with a domain: %v", err)
	}
}

// The sentence tells what of domains may be lost, where something is spread by them.
func TestDomainsInWords(t *testing.T) {
	for _, c := range []struct {
		domains map[int]int64
		want    string
	}{
		{nil, "everything survives the loss of any 2 more devices"},
		{map[int]int64{2: 5}, "everything survives the loss of any 2 more devices; what is spread by domain, of any 2 domains"},
		{map[int]int64{2: 5, 1: 1, 0: 0}, "everything survives the loss of any 2 more devices; what is spread by domain, of any 1 domain"},
		{map[int]int64{2: 5, 0: 1}, "everything survives the loss of any 2 more devices; the loss of a domain could lose some of what is spread by domain"},
	} {
		st := Status{Made: true, Safety: maintenance.Safety{At: time.Unix(1, 0), Tolerates: map[int]int64{2: 6}, Domains: c.domains}}
		if got := st.Sentence(); got != c.want {
			t.Errorf("%v: %s", c.domains, got)
		}
	}
}
