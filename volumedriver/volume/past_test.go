package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// pastOracle knows the points that a vDisk can go back to. The log is the list of
// the steps that led to the present content.
type pastOracle struct {
	step   int
	log    []int
	points map[string]pastPoint
}

// pastPoint is a snapshot, or a moment: then its name starts with "@".
type pastPoint struct {
	content []uint32
	maybe   map[int64][]uint32
	step    int
	log     []int
}

// done follows a step.
func (p *pastOracle) done(o *oracle, s step) {
	if p.points == nil {
		p.points = map[string]pastPoint{}
	}
	p.step++
	p.log = append(slices.Clip(p.log), p.step)
	switch s.special {
	case "snapshot", "moment":
		p.points[s.name] = pastPoint{slices.Clone(o.cur), maps.Clone(o.maybe), p.step, p.log}
	case "drop":
		delete(p.points, s.name)
	case "rollback":
		to := p.points[s.name]
		p.log = to.log
		o.cur, o.maybe = make([]uint32, len(o.cur)), maps.Clone(to.maybe) // the size stays
		copy(o.cur, to.content)
		for name, pt := range p.points {
			if name[0] != '@' && !slices.Contains(p.log, pt.step) {
				delete(p.points, name)
			}
		}
	}
}

// snapshots returns the names of the snapshots, sorted.
func (p *pastOracle) snapshots() []string { return snapshotsOf(p.points) }

func snapshotsOf(points map[string]pastPoint) []string {
	var out []string
	for name := range points {
		if name[0] != '@' {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// sortedNames returns the snapshots of an open vDisk.
func sortedNames(v *Volume) []string {
	var out []string
	for _, s := range v.Snapshots() {
		out = append(out, s.Name)
	}
	slices.Sort(out)
	return out
}

// pastScript is a workload with snapshots, their deletion, and rollbacks to
// snapshots and to moments, also such that an earlier rollback left behind.
func pastScript(steps int) (size int64, out []step) {
	r := mrand.New(mrand.NewPCG(43, 8))
	size = 512 << 10
	o := newOracle(size)
	var moments []string
	pick := func(l []string) string { return l[r.IntN(len(l))] }
	for i := range steps {
		s := randomStep(r, size, MinClusterSize, 32<<10, uint32(i+1))
		live := o.past.snapshots()
		switch k := i % 20; {
		case k%4 == 3 && k < 16:
			s = step{special: "snapshot", name: fmt.Sprint("s", i)}
		case k == 9:
			s = step{special: "commit"}
		case k == 10:
			s = step{special: "moment", name: fmt.Sprint("@", i)}
			moments = append(moments, s.name)
		case k == 13 && len(live) > 0:
			s = step{special: "drop", name: pick(live)}
		case k == 17 && i%60 == 57:
			s = step{special: "rollback", name: pick(moments)}
		case k == 17 && len(live) > 0:
			s = step{special: "rollback", name: pick(live)}
		case k == 18:
			s = step{special: []string{"restart", "kill"}[i/20%2]}
		}
		o.done(s)
		out = append(out, s)
	}
	return size, out
}

// verifySnapshot rolls a crashed world back to one of its snapshots.
func (c *crashRun) verifySnapshot(n *node, v *Volume) error {
	ctx := context.Background()
	l := sortedNames(v)
	if len(l) == 0 {
		return nil
	}
	name := l[int(c.points.Load())%len(l)]
	if err := v.Close(ctx); err != nil {
		return err
	}
	if _, err := n.pool.Rollback(ctx, c.id, Point{Snapshot: name}); err != nil {
		return err
	}
	v, err := n.pool.Open(ctx, c.id)
	if err != nil {
		return err
	}
	have, err := readVersions(v)
	if err != nil {
		return err
	}
	for _, points := range c.past {
		if pt, ok := points[name]; ok && sameVersions(have, pt.content) {
			return nil
		}
	}
	return fmt.Errorf("snapshot %s does not hold what it was made of", name)
}

// runPast executes a rollback, or remembers a moment.
func (c *crashRun) runPast(n *node, v *Volume, o *oracle, s step) (*node, *Volume) {
	defer o.done(s)
	if s.special == "moment" {
		c.moment[s.name] = time.Now()
		return n, v
	}
	ctx := context.Background()
	if err := v.Close(ctx); err != nil {
		c.t.Fatal(err)
	}
	if _, err := n.pool.Rollback(ctx, c.id, c.point(s.name)); err != nil {
		c.t.Fatalf("step %s: %v", s, err)
	}
	return n, n.open(c.id)
}

func (c *crashRun) point(name string) Point {
	if name[0] == '@' {
		return Point{At: c.moment[name]}
	}
	return Point{Snapshot: name}
}

// TestCrashPast crashes at every point of making and deleting snapshots and of
// rolling back: content and snapshots are those before the step, or after it.
func TestCrashPast(t *testing.T) {
	size, steps := pastScript(140)
	(&crashRun{past: []map[string]pastPoint{}}).test(t, size, steps)
}

// pastStep makes, deletes or goes back to a snapshot, or goes back to a moment.
func (m *model) pastStep() {
	ctx := context.Background()
	live := m.o.past.snapshots()
	s := step{special: "snapshot", name: fmt.Sprint("s", m.ops)}
	switch x := m.r.IntN(12); {
	case x < 3 && len(live) > 0:
		s = step{special: "drop", name: live[m.r.IntN(len(live))]}
	case x < 6 && len(live) > 0:
		s = step{special: "rollback", name: live[m.r.IntN(len(live))]}
	case x < 7:
		s = step{special: "moment", name: fmt.Sprint("@", m.ops)}
	case x < 9 && len(m.moments) > 0:
		var l []string
		for name := range m.moments {
			l = append(l, name)
		}
		slices.Sort(l)
		s = step{special: "rollback", name: l[m.r.IntN(len(l))]}
	}
	if m.r.IntN(3) == 0 {
		m.cloneStep()
		return
	}
	m.note("%s", s)
	switch s.special {
	case "snapshot":
		_, err := m.v.Snapshot(ctx, SnapshotSpec{Name: s.name, Labels: map[string]string{"op": s.name}})
		m.must(err)
	case "drop":
		m.must(m.v.DeleteSnapshot(ctx, s.name, false))
	case "moment":
		m.must(m.v.Commit(ctx))
		m.moments[s.name] = m.n.host.o.Clock.Now()
	case "rollback":
		pt := Point{Snapshot: s.name}
		if s.name[0] == '@' {
			pt = Point{At: m.moments[s.name]}
		}
		if m.r.IntN(2) == 0 {
			m.must(m.v.Close(ctx))
		} else {
			m.n.kill()
			m.n = m.w.mustStart(m.t)
		}
		_, err := m.n.pool.Rollback(ctx, m.id, pt)
		m.must(err)
		m.v, err = m.n.pool.Open(ctx, m.id)
		m.must(err)
	}
	m.o.done(s)
	m.must(m.checkSnapshots())
	if s.special == "rollback" {
		m.must(m.o.checkAll(m.v, false))
	}
}

// cloneStep makes a clone of a snapshot, a moment or now, and sees what becomes of it
// under changes, restarts, a flatten, and while its parent goes on.
func (m *model) cloneStep() {
	ctx := context.Background()
	pt, want := Point{}, pastPoint{content: m.o.cur, maybe: m.o.maybe}
	var l []string
	for name := range m.o.past.points {
		l = append(l, name)
	}
	slices.Sort(l)
	if len(l) > 0 && m.r.IntN(4) > 0 {
		name := l[m.r.IntN(len(l))]
		want = m.o.past.points[name]
		if pt.Snapshot = name; name[0] == '@' {
			pt = Point{At: m.moments[name]}
		}
	}
	// An id of its own: a store that is still removing a clone takes nothing under its id.
	m.clones++
	id := testID(100)
	binary.BigEndian.PutUint32(id[1:], m.clones)
	m.note("clone %+v", pt)
	m.must(m.n.pool.Clone(ctx, CloneSpec{ID: id, Name: "clone", Source: m.id, From: pt}))
	v, err := m.n.pool.Open(ctx, id)
	m.must(err)
	o := newOracle(v.Size())
	copy(o.cur, want.content)
	o.maybe = maps.Clone(want.maybe)
	m.must(o.checkAll(v, true))
	if m.r.IntN(2) == 0 {
		m.scrub(m.v)
	}
	for range m.r.IntN(30) {
		m.ver++
		s := randomStep(m.r, v.Size(), m.cs, int64(v.MaxIO()), m.ver)
		m.note("in the clone %s", s)
		m.must(o.run(v, s))
		if m.r.IntN(10) == 0 {
			m.must(m.o.run(m.v, m.draw()))
		}
	}
	if m.r.IntN(2) == 0 {
		m.note("flatten")
		m.must(v.Flatten(ctx, nil))
	}
	if m.r.IntN(2) == 0 {
		m.scrub(v)
		m.must(o.checkAll(v, false))
	}
	if m.r.IntN(2) == 0 {
		m.n.kill()
		m.reopen()
		v, err = m.n.pool.Open(ctx, id)
		m.must(err)
	}
	m.must(o.checkAll(v, false))
	m.must(v.Close(ctx))
	m.must(m.n.pool.Delete(ctx, id))
	m.must(countsRight(m.w))
}

func (m *model) checkSnapshots() error {
	if have, want := sortedNames(m.v), m.o.past.snapshots(); !slices.Equal(have, want) {
		return fmt.Errorf("snapshots %q, want %q", have, want)
	}
	return nil
}

// TestErrorEveryOperationPast is TestErrorEveryOperation with snapshots and
// rollbacks: none of them is half done.
func TestErrorEveryOperationPast(t *testing.T) {
	size, steps := pastScript(100)
	testErrors(t, size, steps, stride(2, 61))
}

// pastFaulty runs a step that concerns snapshots. Under a fault it may fail, and is
// asked for again until it is done; each time it may take patience.
func pastFaulty(t *testing.T, n *node, v *Volume, id ID, o *oracle, moments map[string]time.Time, s step, patience time.Duration) (*node, *Volume, error) {
	var err error
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		switch s.special {
		case "snapshot":
			_, err = v.Snapshot(ctx, SnapshotSpec{ID: testID(byte(o.past.step)), Name: s.name})
		case "drop":
			err = v.DeleteSnapshot(ctx, s.name, false)
		case "scrub":
			_, err = v.Scrub(ctx, ScrubOptions{})
		case "moment":
			if err = v.Commit(ctx); err == nil {
				moments[s.name] = n.host.o.Clock.Now()
			}
		case "rollback":
			pt := Point{Snapshot: s.name}
			if s.name[0] == '@' {
				pt = Point{At: moments[s.name]}
			}
			_ = v.Close(ctx)
			_, err = n.pool.Rollback(ctx, id, pt)
		}
		cancel()
		done := err == nil
		if !done || s.special == "rollback" {
			var rerr error
			if n, v, rerr = restartFaulty(t, n.w, n, id, false); rerr != nil {
				return n, v, rerr
			}
		}
		if done {
			o.done(s)
			return n, v, nil
		}
	}
	return n, v, fmt.Errorf("not done: %w", err)
}

// goldenPast has every field.
func goldenPast() *Past {
	return &Past{Format: PastFormat, VDisk: testID(0xd0), FirstSeq: 901,
		Runs:   []Run{{First: 1 << 31, End: 1<<31 + 2, Epoch: 2, Nonce: 0xbb}, {First: 1, End: 9, FirstSeq: 1, LastSeq: 500}},
		Before: []Line{{Until: 1_700_000_000_000_000_003, Runs: []Run{{First: 1, End: 15, FirstSeq: 1, LastSeq: 900}}}},
		Pins: []Pin{{ID: testID(0xe0), Name: "<monday>", Labels: map[string]string{"a": "ü"}, Consistent: true, Sticky: true, Automatic: true,
			Time: 1_700_000_000_000_000_001, Seq: 17, Size: 64 << 40}, {ID: testID(0xe1), Name: "b", Time: 1_700_000_000_000_000_002, Seq: 18, Size: 4096}}}
}

func TestPastGolden(t *testing.T) {
	p := goldenPast()
	ref, obj, err := p.encode(Opening{Epoch: 3, Nonce: 0xcafe}, 1<<33)
	if err != nil {
		t.Fatal(err)
	}
	kept := goldenFile(t, "past.txt", obj)
	got, err := decodePast(p.VDisk, *ref, kept)
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("%v: %+v", err, got)
	}
	h := goldenHead()
	h.Past = ref
	hobj, _, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := decodeHead(goldenFile(t, "head-past.txt", hobj))
	if err != nil || !reflect.DeepEqual(back, h) {
		t.Fatalf("%v: %+v", err, back)
	}
	h.Parent = &Parent{VDisk: testID(0xd1), Seq: 1<<63 + 3, Snapshot: "monday"}
	h.NextMovedSCO, h.NextMovedTLog, h.Template = movedNumbers+9, movedNumbers+2, true
	if hobj, _, err = h.encode(); err != nil {
		t.Fatal(err)
	}
	kept2 := goldenFile(t, "head-clone.txt", hobj)
	if back, _, err = decodeHead(kept2); err != nil || !reflect.DeepEqual(back, h) {
		t.Fatalf("%v: %+v", err, back)
	}
	if !bytes.Contains(kept2, []byte(`"needs":["past","parent","template"]`)) {
		t.Fatalf("an older program would take a clone for a vDisk of its own: %s", kept2)
	}
	h.Scrubbed = 1_700_000_000_000_000_004
	if hobj, _, err = h.encode(); err != nil {
		t.Fatal(err)
	}
	kept3 := goldenFile(t, "head-scrub.txt", hobj)
	if back, _, err = decodeHead(kept3); err != nil || !reflect.DeepEqual(back, h) {
		t.Fatalf("%v: %+v", err, back)
	}
	if !bytes.Contains(kept3, []byte(`"needs":["past","parent","template","scrub"]`)) {
		t.Fatalf("an older program would not know collected TLogs: %s", kept3)
	}
	if want := "v/d0000000-0000-4000-8000-000000000000/past/00000003-0000000200000000-0000cafe"; pastName(p.VDisk, *ref) != want {
		t.Fatalf("%s, want %s", pastName(p.VDisk, *ref), want)
	}
	for i := range obj { // no changed byte passes
		obj[i] ^= 1
		if got, err := decodePast(p.VDisk, *ref, obj); err == nil && !reflect.DeepEqual(got, p) {
			t.Fatalf("byte %d changed passes", i)
		}
		obj[i] ^= 1
	}
	if ref, obj, err := (&Past{Format: PastFormat, VDisk: p.VDisk}).encode(Opening{}, 1); ref != nil || obj != nil || err != nil {
		t.Fatalf("nothing is encoded as %+v %q %v", ref, obj, err)
	}
}

func TestPastRefused(t *testing.T) {
	id := testID(0xd0)
	const ok = `"format":1,"vdisk":"d0000000-0000-4000-8000-000000000000"`
	for _, c := range []struct {
		name, body string
		format     any
		pins       int
		want       string
	}{
		{"the least", "{" + ok + "}", 1, 0, ""},
		{"newer format", "{" + ok + "}", 2, 0, "upgrade"},
		{"no number", "{" + ok + "}", "x", 0, "header line"},
		{"no json", "{", 1, 0, "damaged"},
		{"other vdisk", `{"format":1,"vdisk":"d1000000-0000-4000-8000-000000000000"}`, 1, 0, "fields"},
		{"other count", "{" + ok + "}", 1, 1, "fields"},
		{"empty run", "{" + ok + `,"runs":[{"first":5,"end":5,"firstSeq":1,"lastSeq":2}]}`, 1, 0, "run"},
		{"seqs backwards", "{" + ok + `,"before":[{"until":1,"runs":[{"first":1,"end":5,"firstSeq":3,"lastSeq":2}]}]}`, 1, 0, "run"},
		{"pins backwards", "{" + ok + `,"pins":[{"seq":2,"id":"d1000000-0000-4000-8000-000000000000"},{"seq":1,"id":"d1000000-0000-4000-8000-000000000000"}]}`, 1, 2, "order"},
	} {
		sum := sha256.Sum256([]byte(c.body))
		obj := fmt.Appendf(nil, "%s%v %x\n%s\n", pastMagic, c.format, sum, c.body)
		_, err := decodePast(id, PastRef{Hash: hex.EncodeToString(sum[:]), Pins: c.pins}, obj)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzDecodePast(f *testing.F) {
	_, obj, err := goldenPast().encode(Opening{Epoch: 3}, 1)
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(obj, []byte("\n"))
	f.Add(string(bytes.TrimSpace(body)), 2)
	f.Add(`{"format":1,"vdisk":"d0000000-0000-4000-8000-000000000000"}`, 0)
	f.Fuzz(func(t *testing.T, body string, pins int) {
		sum := sha256.Sum256([]byte(body))
		ref := PastRef{Hash: hex.EncodeToString(sum[:]), Pins: pins}
		p, err := decodePast(testID(0xd0), ref, fmt.Appendf(nil, "%s1 %x\n%s\n", pastMagic, sum, body))
		if err != nil {
			return
		}
		r, obj, err := p.encode(Opening{Epoch: 1}, 1)
		if err != nil || r == nil {
			return // too large, or nothing
		}
		if again, err := decodePast(testID(0xd0), *r, obj); err != nil || len(again.Runs) != len(p.Runs) || len(again.Pins) != len(p.Pins) {
			t.Fatalf("does not survive another round: %v", err)
		}
		contains(p.Runs, 5)
		lastSeq(p.Runs)
	})
}
