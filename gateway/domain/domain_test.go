package domain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// cluster is one of three racks with a node each, that run the registry.
func cluster() Facts {
	f := Facts{Members: 3}
	for i := range 3 {
		f.Nodes = append(f.Nodes, Node{ID: fmt.Sprint("n", i+1), Name: fmt.Sprint("node", i+1), Domain: fmt.Sprint("rack", i+1), Up: true, Copies: true, Member: true})
	}
	return f
}

func TestVDisks(t *testing.T) {
	safe := VDisk{ID: "a", Node: "n1", Copy: "n2"}
	for name, c := range map[string]struct {
		v      VDisk
		change func(*Facts)
		want   string // fate when rack1, rack2 and rack3 are lost; empty: it is not of it
	}{
		"mirrored":                    {safe, nil, "takenOver stays "},
		"not mirrored":                {VDisk{Node: "n1"}, nil, "waits  "},
		"closed":                      {VDisk{Node: "n1", Clean: true}, nil, "takenOver  "},
		"in a directory":              {VDisk{Node: "n1", Local: true, Copy: "n2"}, nil, "gone stays "},
		"both in one":                 {safe, func(f *Facts) { f.Nodes[1].Domain = "rack1" }, "waits  "},
		"its copy's node is down":     {safe, func(f *Facts) { f.Nodes[1].Up = false }, "waits stays "},
		"closed, and all others down": {VDisk{Node: "n1", Clean: true}, func(f *Facts) { f.Nodes[1].Up, f.Nodes[2].Up, f.Members = false, false, 0 }, "waits  "},
		"no majority is left":         {safe, func(f *Facts) { f.Nodes[2].Domain = "rack1" }, "waits stays "},
		"an etcd of others":           {safe, func(f *Facts) { f.Nodes[2].Domain, f.Members = "rack1", 0 }, "takenOver stays "},
		"its node left":               {VDisk{Node: "gone"}, nil, "  "},
	} {
		f := cluster()
		if c.change != nil {
			c.change(&f)
		}
		f.VDisks = []VDisk{c.v}
		var got []string
		for _, rack := range []string{"rack1", "rack2", "rack3"} {
			fate := ""
			for _, p := range VDisks(f, rack) {
				fate = string(p.Fate)
			}
			got = append(got, fate)
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestLost(t *testing.T) {
	now := time.Unix(1, 0)
	for name, c := range map[string]struct {
		o       Objects
		working int
		want    int64
	}{
		"no device":                   {Objects{}, 0, 0},
		"not surveyed":                {Objects{}, 2, -1},
		"fewer devices than may fail": {Objects{At: now, All: 10, Tolerates: map[int]int64{2: 10}}, 2, 0},
		"as many objects as fall":     {Objects{At: now, All: 10, Tolerates: map[int]int64{1: 4, 2: 6}}, 2, 4},
		"spread by domain":            {Objects{At: now, All: 10, Tolerates: map[int]int64{2: 10}, Spread: map[int]int64{1: 10}}, 6, 0},
		"some are":                    {Objects{At: now, All: 10, Tolerates: map[int]int64{2: 10}, Spread: map[int]int64{1: 7}}, 6, 3},
		"spread in vain":              {Objects{At: now, All: 10, Tolerates: map[int]int64{2: 10}, Spread: map[int]int64{0: 2, 1: 8}}, 6, 2},
		"what is lost already":        {Objects{At: now, All: 10, Tolerates: map[int]int64{-1: 3, 5: 7}}, 2, 0},
	} {
		if got := c.o.lost(c.working); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestAssess(t *testing.T) {
	f := cluster()
	f.Nodes = append(f.Nodes, Node{ID: "n4", Name: "node4", Up: true})
	f.Devices = []Device{
		{Domain: "rack1", Working: true, Total: 100, Used: 10}, {Domain: "rack1", Total: 100, Used: 20}, {Domain: "rack9", Machine: "10.0.0.9:8500", Working: true, Total: 50, Used: 1},
	}
	f.VDisks = []VDisk{{ID: "a", Node: "n1", Copy: "n2"}, {ID: "b", Node: "n1"}, {ID: "c", Node: "n1", Local: true}, {ID: "d", Node: "n2", Copy: "n1"}}
	f.Objects = Objects{At: time.Unix(1, 0), All: 5, Tolerates: map[int]int64{0: 5}}
	var names []string
	for _, d := range Assess(f) {
		names = append(names, d.Name)
		if d.Name != "rack1" {
			continue
		}
		got := fmt.Sprint(len(d.Nodes), d.Devices, d.Failed, d.Total, d.Used, d.VDisks, d.Copies, d.TakenOver, d.Waits, d.Gone, d.Lost, d.Quorum, " ", d.State)
		if want := "1 2 1 200 30 3 1 1 1 1 5 true error"; got != want {
			t.Errorf("rack1: %s, want %s", got, want)
		}
		want := []string{
			"1 vDisk is taken over by nodes elsewhere, with all that was acknowledged.", "1 vDisk waits for it: the newest writes are nowhere else.", "1 vDisk is lost unless it comes back: only a node in it has the vPool.",
			"1 vDisk that is served elsewhere has the copy of its journal here, and gets another one.", "By the last survey up to 5 objects could not be read: spread their preset by domain, or over more devices elsewhere.",
		}
		if !slices.Equal(d.Loss, want) {
			t.Errorf("rack1: %q, want %q", d.Loss, want)
		}
	}
	if want := []string{"rack1", "rack2", "rack3", "rack9", ""}; !slices.Equal(names, want) {
		t.Errorf("domains %q, want %q", names, want)
	}
}

// TestStates: what is said of each kind of domain, and how bad it is.
func TestStates(t *testing.T) {
	alone := Facts{Nodes: []Node{{ID: "n1", Up: true}}, VDisks: []VDisk{{Node: "n1"}}}
	two := cluster()
	two.Nodes[1].Domain = "rack1"
	two.VDisks = []VDisk{{Node: "n1", Copy: "n3"}}
	stored := cluster()
	stored.Devices, stored.Objects = []Device{{Domain: "rack1", Working: true}}, Objects{At: time.Unix(1, 0), All: 3, Tolerates: map[int]int64{1: 3}}
	empty := stored
	empty.Objects = Objects{At: time.Unix(1, 0)}
	for name, c := range map[string]struct {
		facts Facts
		state State
		says  string
	}{
		"objects are safe": {stored, OK, "By the last survey every object stays readable."},
		"no object":        {empty, OK, "At the last survey no object was stored."},
		"nothing is there": {cluster(), OK, "Nothing is served or kept there."},
		"all is there":     {alone, Warning, "All nodes are in it: nothing serves until it is back."},
		"the majority":     {two, Bad, "The registry loses its majority: nobody takes over, and vDisks stop once their journals are full."},
	} {
		if d := Assess(c.facts)[0]; d.State != c.state || d.Loss[0] != c.says {
			t.Errorf("%s: %s %q, want %s %q", name, d.State, d.Loss, c.state, c.says)
		}
	}
}
