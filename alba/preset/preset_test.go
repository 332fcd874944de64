package preset

import (
	"errors"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/fragment"
)

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]string{
		"4,2,5,2":    "(4,2,5,2)",
		" (1,2,2,1)": "(1,2,2,1)",
		"1,0,1,1":    "(1,0,1,1)",
	} {
		p, err := ParsePolicy(text)
		if err != nil || p.String() != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
		b, _ := p.MarshalText()
		var again Policy
		if err := again.UnmarshalText(b); err != nil || again != p {
			t.Errorf("%q: %v after text, %v", text, again, err)
		}
	}
	for _, text := range []string{"", "4,2,5", "4,2,5,2,1", "a,2,5,2", "0,2,2,1", "4,2,3,2", "4,2,7,2", "4,-1,4,2", "4,2,5,0", "33,2,34,2", "32,17,40,2"} {
		if _, err := ParsePolicy(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// P2: the first policy whose c is met, with as many fragments as have a place.
func TestChoose(t *testing.T) {
	p := Preset{Name: "p", Policies: []Policy{{5, 4, 8, 3}, {2, 2, 3, 4}}}
	for _, c := range []struct {
		nodes []int
		want  Policy
		n     int
	}{
		{[]int{3, 3, 3}, Policy{5, 4, 8, 3}, 9},
		{[]int{9, 9, 9}, Policy{5, 4, 8, 3}, 9},
		{[]int{3, 3, 2}, Policy{5, 4, 8, 3}, 8},
		{[]int{3, 3, 1}, Policy{2, 2, 3, 4}, 4},
		{[]int{9, 9}, Policy{2, 2, 3, 4}, 4},
		{[]int{3}, Policy{2, 2, 3, 4}, 3},
	} {
		q, n, err := p.Choose(c.nodes)
		if err != nil || q != c.want || n != c.n {
			t.Errorf("%v: %v with %d, %v", c.nodes, q, n, err)
		}
	}
	if _, _, err := p.Choose([]int{2}); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("two devices: %v", err)
	}
}

// What the default preset is for a cluster, and how it is put into words.
func TestAutomatic(t *testing.T) {
	for _, c := range []struct {
		nodes []int
		first string
		last  string
		says  string
	}{
		{[]int{1}, "(1,0,1,1)", "(1,0,1,1)", "the loss of no disk"},
		{[]int{2}, "(1,1,2,2)", "(1,1,2,2)", "any 1 disk"},
		{[]int{3}, "(2,1,3,3)", "(1,1,2,2)", "any 1 disk"},
		{[]int{4}, "(2,2,3,4)", "(1,1,2,2)", "any 2 disks"},
		{[]int{6}, "(4,2,5,6)", "(1,1,2,2)", "any 2 disks"},
		{[]int{12}, "(8,4,10,12)", "(1,1,2,2)", "any 4 disks"},
		{[]int{1, 1}, "(1,1,2,1)", "(1,1,2,2)", "any 1 disk or 1 node"},
		{[]int{4, 4}, "(2,2,3,2)", "(1,1,2,2)", "any 2 disks or 1 node"},
		{[]int{1, 1, 1}, "(1,2,2,1)", "(1,1,2,2)", "any 2 disks or 2 nodes"},
		{[]int{2, 2, 2}, "(4,2,5,2)", "(1,1,2,2)", "any 2 disks or 1 node"},
		{[]int{4, 4, 4}, "(8,4,10,4)", "(1,1,2,2)", "any 4 disks or 1 node"},
		{[]int{1, 1, 1, 1, 1, 1}, "(4,2,5,1)", "(1,1,2,2)", "any 2 disks or 2 nodes"},
	} {
		got := Automatic(c.nodes)
		p := Preset{Name: "auto", Policies: got, FragmentBytes: DefaultFragmentBytes}
		if err := p.Validate(); err != nil {
			t.Errorf("%v: %v", c.nodes, err)
			continue
		}
		if got[0].String() != c.first || got[len(got)-1].String() != c.last {
			t.Errorf("%v: %v", c.nodes, got)
		}
		if err := p.Redundant(); (err == nil) != (c.first != "(1,0,1,1)") {
			t.Errorf("%v: %v", c.nodes, err)
		}
		if says := p.Explain(got[0], c.nodes); !strings.Contains(says, c.says) {
			t.Errorf("%v: %s", c.nodes, says)
		}
		if q, n, err := p.Choose(c.nodes); err != nil || q != got[0] || n != q.N() {
			t.Errorf("%v: chosen %v with %d, %v", c.nodes, q, n, err)
		}
	}
}

// The count of nodes that may be lost is exact: no larger set of nodes, and every
// set of that size, holds at most m fragments.
func TestCompleteSafety(t *testing.T) {
	for _, p := range []Policy{{1, 2, 2, 1}, {2, 1, 3, 1}, {4, 2, 5, 2}, {5, 4, 8, 3}, {8, 4, 10, 4}} {
		for nodes := 3; nodes <= 6; nodes++ {
			perNode := make([]int, nodes)
			for i := range perNode {
				perNode[i] = p.X
			}
			if p.Places(perNode) < p.N() {
				continue
			}
			on := spread(p.N(), p.X, perNode)
			most := 0
			for set := range 1 << nodes {
				lost, size := 0, 0
				for i := range nodes {
					if set>>i&1 == 1 {
						lost += on[i]
						size++
					}
				}
				if size == p.Complete(perNode).Groups && lost > p.M {
					t.Errorf("%v on %d nodes: %b loses %d", p, nodes, set, lost)
				}
				if size == p.Complete(perNode).Groups+1 {
					most = max(most, lost)
				}
			}
			if most <= p.M {
				t.Errorf("%v on %d nodes: any %d nodes may go, %d reported", p, nodes, p.Complete(perNode).Groups+1, p.Complete(perNode).Groups)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := Preset{Name: "p", Policies: []Policy{{2, 1, 3, 1}}, FragmentBytes: 1 << 20}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Preset){
		"name":     func(p *Preset) { p.Name = "a b" },
		"policies": func(p *Preset) { p.Policies = nil },
		"twice":    func(p *Preset) { p.Policies = append(p.Policies, p.Policies[0]) },
		"policy":   func(p *Preset) { p.Policies = []Policy{{2, 1, 1, 1}} },
		"size":     func(p *Preset) { p.FragmentBytes = 1000 },
		"piece":    func(p *Preset) { p.PieceBytes = 8 << 10 },
	} {
		p := good
		change(&p)
		if err := p.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for bytes, want := range map[int]fragment.PieceSize{0: fragment.Piece64K, 64 << 10: fragment.Piece64K, 16 << 10: fragment.Piece16K, 4 << 10: fragment.Piece4K} {
		p := good
		p.PieceBytes = bytes
		if got, err := p.PieceSize(); got != want || err != nil || p.Validate() != nil {
			t.Errorf("pieces of %d bytes: %v, %v, %v", bytes, got, err, p.Validate())
		}
	}
	good.PieceBytes = -4096
	if err := good.Validate(); err == nil || !strings.Contains(err.Error(), "preset p") || !strings.Contains(err.Error(), "4 KiB, 16 KiB or 64 KiB") {
		t.Errorf("negative pieces: %v", err)
	}
	if err := (Preset{Name: "p", Policies: []Policy{{4, 2, 4, 2}}}).Redundant(); err == nil || !strings.Contains(err.Error(), "c >= k+1") {
		t.Errorf("c = k: %v", err)
	}
}
