package dtl

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/lineartest"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// A simulation of who owns a vDisk, its mirrored log and its head, on three nodes. The peer
// is the real Server, over a real journal pool on a file system that crashes; so is the
// owner's journal, and the recovery of both. The owner's part (package volume, mirror.go and
// committer.go), the connections, the registry, clocks that run apart, crashes, pauses and
// losses are made here, and the backend (simobjects_test.go) and forwarding
// (simforward_test.go), in one goroutine: a seed makes one schedule.
//
// Checked: what an opening finds holds all that was answered, and all that a read returned;
// no read lacks any of that; no opening answers what a newer one that serves does not have;
// no head lists an object that is gone; nothing is carried out that its client was told is
// over; what clients heard is linearizable, block by block.

var (
	simSeed  = flag.Uint64("sim.seed", 1, "seed of the first schedule")
	simCount = flag.Int("sim.count", 250, "schedules")
)

// Broken variants, which the checks must catch.
const (
	simWhole      = ""
	simNoEpochs   = "no epoch check at the peer"
	simReuse      = "seq reused in an epoch"
	simTail       = "replayed tail served before it is mirrored"
	simForged     = "copy called good after a reboot of the peer that lost it"
	simNoChange   = "registry record that comes back"
	simNoGrant    = "reads without a grant"
	simSolo       = "answered before the registry knows that the copy is lost"
	simDelete     = "delayed delete by an old owner, of what a head condemns that was not committed"
	simNames      = "delayed delete by an old owner, of a name that comes back"
	simStale      = "forwarded stale write, whose time on the way is not counted"
	simResend     = "forwarded write that is sent again"
	simSteps      = 800
	simBlocks     = 3
	simMaxRecords = 120
	simChunks     = 24
	simSearch     = 20 * time.Second // milliseconds, on a machine that is not busy
)

// simRec is the registry's record of the vDisk; every change compares all of it.
type simRec struct {
	owner, peer, journal string
	epoch                uint32
	ok                   bool
	gen, change          uint64
	head                 int // number of the head object
}

// sim is one schedule.
type sim struct {
	t        *testing.T
	r        *rand.Rand
	variant  string
	now      time.Duration
	nodes    []*simNode
	links    []*simLink
	rec      simRec
	heads    []simHead           // by number
	store    map[string][]uint64 // objects: ids of writes
	puts     int
	deletes  []string          // on their way
	opens    map[uint32]uint64 // epoch -> first seq
	calls    []*simCall        // of the registry, on their way
	away     bool              // the registry
	id       uint64            // of the newest write
	must     []uint64          // what every later opening has
	served   *simOpening       // the newest that answered anything
	clients  []*simClient
	channels []*simChannel
	history  lineartest.History
	blind    bool // the history alone is checked
	fail     string

	simCounts
}

// simCounts are what happened.
type simCounts struct{ acks, reads, takeovers, goods, fences, forwards int }

func (c *simCounts) add(o simCounts) {
	c.acks, c.reads, c.takeovers = c.acks+o.acks, c.reads+o.reads, c.takeovers+o.takeovers
	c.goods, c.fences, c.forwards = c.goods+o.goods, c.fences+o.fences, c.forwards+o.forwards
}

// simNode is a node: its disk outlives its process.
type simNode struct {
	s     *sim
	name  string
	rate  float64      // of its clock
	disk  *blockfs.Mem // as it is at first
	fs    *blockfs.Mem
	pool  *journal.Pool
	srv   *Server // nil: it is down
	sleep time.Duration
	own   *simOpening
	found *simRec // what it saw before it opens the vDisk
	fwd   simForwarder
}

func (n *simNode) Now() time.Time {
	return time.Unix(1e9, 0).Add(time.Duration(float64(n.s.now) * n.rate))
}

// NewTimer makes one that does not run: nothing waits here.
func (n *simNode) NewTimer(time.Duration) clock.Timer { return simTimer{} }

type simTimer struct{}

func (simTimer) C() <-chan time.Time      { return nil }
func (simTimer) Stop() bool               { return true }
func (simTimer) Reset(time.Duration) bool { return true }
func (simTimer) ResetAt(time.Time) bool   { return true }

func (n *simNode) awake() bool { return n.srv != nil && n.s.now >= n.sleep }

// simLink is a connection of an owner to a peer.
type simLink struct {
	net.Conn
	from, to *simNode
	ss       *session
	req      []*work
	ans      []answer
	broken   bool
	granted  time.Time
}

func (l *simLink) Close() error { l.broken = true; return nil }

// simCall is a change of the registry; done is nil when its asker does not wait any more.
type simCall struct {
	old, now simRec
	done     func(ok bool)
	asker    *simOpening
}

// simOpening is an owner.
type simOpening struct {
	n         *simNode
	rec       simRec // as the registry has it
	first     uint64
	log       *journal.Log
	ids       []uint64 // the whole log, from seq 1
	pend      []*simWrite
	applied   uint64
	committed uint64
	fenced    bool
	call      *simCall
	asked     time.Time

	m       *simMirror
	must    bool
	guard   *simMirror
	through uint64
	phase   int
}

const (
	simBegun = iota
	simRaise
	simGood
)

type simWrite struct {
	id, seq uint64
	rec     journal.Record
	wrote   bool
	op      *lineartest.Op // of a client of this node
	cmd     *simCommand    // else
	ch      *simChannel    // over which cmd came
	late    bool           // cmd was over when it came
}

// simMirror is what an owner knows of its copy.
type simMirror struct {
	peer                  *simNode
	gen, start, durable   uint64
	left                  []simFrame
	begun, asked, offline time.Time
	link, on              *simLink
	pending               map[uint64]time.Time
	kinds                 map[uint64]uint16
	failed                bool
}

type simFrame struct {
	last  uint64
	frame []byte
	since time.Time
}

// simImages are disks of nodes with a journal pool that has all its chunks. Making them takes
// longer than a schedule.
var simImages struct {
	sync.Once
	disks [3]*blockfs.Mem
}

func simDisks(t *testing.T) [3]*blockfs.Mem {
	simImages.Do(func() {
		for i := range simImages.disks {
			n := &simNode{s: &sim{t: t, r: rand.New(rand.NewPCG(uint64(i), 1))}, fs: blockfs.NewMem()}
			n.boot()
			n.pool.Close()
			simImages.disks[i] = n.fs.Crash(blockfs.CrashConfig{})
		}
	})
	return simImages.disks
}

var simDisk = [16]byte{0x51, 6: 0x40, 8: 0x80}

func newSim(t *testing.T, seed uint64, variant string) *sim {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 77)), variant: variant, heads: []simHead{{}}, store: map[string][]uint64{}, opens: map[uint32]uint64{}}
	for b := range uint64(simBlocks) {
		s.clients = append(s.clients, &simClient{block: b})
	}
	for i, name := range []string{"a", "b", "c"} {
		n := &simNode{s: s, name: name, rate: []float64{1, 0.97, 1.04}[(i+int(seed))%3], disk: simDisks(t)[i]}
		n.fs = n.disk.Crash(blockfs.CrashConfig{})
		s.nodes = append(s.nodes, n)
		n.boot()
	}
	s.rec = simRec{owner: "a", journal: "a"}
	return s
}

func (s *sim) wrong(format string, a ...any) {
	if s.fail == "" && !s.blind {
		s.fail = fmt.Sprintf("at %v: ", s.now) + fmt.Sprintf(format, a...)
	}
}

func (s *sim) chance(percent int) bool { return s.r.IntN(100) < percent }

// boot starts a node's process on what its disk has.
func (n *simNode) boot() {
	var seed [32]byte // generations that come again are not what is looked for
	binary.LittleEndian.PutUint64(seed[:], n.s.r.Uint64())
	rnd := &lockedRand{r: rand.NewChaCha8(seed)}
	var err error
	if n.pool, err = journal.OpenPool(journal.PoolOptions{FS: n.fs, Dir: "journal", ChunkBytes: testChunk, MaxBytes: simChunks * testChunk, Rand: rnd}); err != nil {
		n.s.t.Fatal(err)
	}
	n.fill()
	if n.srv, err = NewServer(ServerOptions{Cluster: "c", Node: n.name, FS: n.fs, Dir: "dtl", Pool: n.pool, Clock: n, Rand: rnd}); err != nil {
		n.s.t.Fatal(err)
	}
	close(n.srv.done) // no timers: promises are not made
}

// crash ends the process; what of unsynced writes is there afterwards, chance decides.
func (n *simNode) crash(lose bool) {
	s := n.s
	kind := []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll, blockfs.Tear, blockfs.Reorder}[s.r.IntN(4)]
	after := n.fs.Crash(blockfs.CrashConfig{Unsynced: kind, Rand: rand.New(rand.NewPCG(s.r.Uint64(), 1))})
	forged := map[[16]byte]state{}
	for id, c := range n.srv.copies {
		if c.log != nil {
			forged[id] = c.state
			if s.variant == simForged {
				st := c.state
				st.Start = c.durable() + 1 // where the empty copy goes on
				forged[id] = st
			}
		}
	}
	n.fs.Kill()
	n.pool.Close()
	n.fs, n.srv, n.own, n.found, n.fwd = after, nil, nil, nil, simForwarder{}
	for _, l := range s.links {
		if l.from == n || l.to == n {
			l.broken = true
		}
	}
	if lose {
		n.lose()
	}
	if lose && s.variant == simForged {
		n.boot()
		for id, st := range forged {
			c := &copyOf{s: n.srv, vdisk: id, state: st}
			c.log = c.newLog(st.Start, nil)
			n.srv.copies[id] = c
		}
	}
}

// lose takes from a node what its journal's chunks held. What the server says of its copies
// stays.
func (n *simNode) lose() {
	had := n.fs
	n.fs = n.disk.Crash(blockfs.CrashConfig{})
	list, err := had.List("dtl")
	if err != nil {
		n.s.t.Fatal(err)
	}
	for _, e := range list {
		b, err := blockfs.ReadFile(had, "dtl/"+e.Name, e.Size)
		if err == nil {
			err = blockfs.WriteFile(n.fs, "dtl/"+e.Name, b)
		}
		if err != nil {
			n.s.t.Fatal(err)
		}
	}
}

// valid is the epoch table.
func (s *sim) valid(epoch uint32, first, last uint64) bool {
	from, ok := s.opens[epoch]
	if !ok || first+1 < from {
		return false
	}
	for e, f := range s.opens {
		if e > epoch && last >= f {
			return false
		}
	}
	return true
}

// open takes the vDisk over from its copy, or goes on with the node's own journal. It looks
// at one step, and acts at a later one.
func (n *simNode) open() {
	s := n.s
	if s.away || n.own != nil && !n.own.fenced {
		return
	}
	if n.found == nil || s.chance(30) {
		r := s.rec
		n.found = &r
		return
	}
	r := *n.found
	n.found = nil
	switch {
	case r.owner == n.name && r.journal == n.name:
	case r.ok && r.peer == n.name:
		n.srv.mu.Lock()
		c := n.srv.copies[simDisk]
		n.srv.mu.Unlock()
		if c == nil {
			return
		}
		a, wait, err := c.adopt(r.gen)
		if err == nil && wait > 0 && s.chance(50) {
			c.s.refuse(a.Node)
		}
		if err != nil || wait > 0 {
			return
		}
	default:
		return
	}
	head, lost := s.load(r.head)
	if lost != "" {
		if s.rec == r {
			s.wrong("node %s finds no object %s, which head %d lists", n.name, lost, r.head)
		}
		return // what an old head lists is deleted
	}
	tail, err := journal.Recover(n.pool, simDisk, uint64(len(head))+1, s.valid)
	if err != nil && s.rec != r {
		return // the head is an old one, and what it lacks was given back
	}
	if err != nil {
		s.wrong("node %s finds its journal damaged: %v", n.name, err)
		return
	}
	ids := head
	for _, f := range tail.Tail {
		ids = append(ids, f.Header.Extents[0].LBA/8)
	}
	reuse := s.variant == simReuse && r.owner == n.name && r.ok && s.opens[r.epoch] > 0
	next := simRec{owner: n.name, journal: n.name, epoch: r.epoch + 1, head: r.head}
	if reuse {
		next = r
	}
	if s.rec != r {
		tail.Abandon()
		return
	}
	s.rec = next
	if !reuse {
		s.opens[next.epoch] = tail.LastSeq + 1
	}
	if r.owner != n.name {
		s.takeovers++
	}
	for _, id := range s.must {
		if !slices.Contains(ids, id) {
			s.wrong("node %s opens epoch %d with %d writes, and lacks write %d", n.name, next.epoch, len(ids), id)
		}
	}
	o := &simOpening{n: n, rec: next, first: tail.LastSeq + 1, ids: ids, applied: tail.LastSeq, committed: uint64(s.heads[r.head].seq)}
	o.log = journal.NewLog(journal.LogOptions{Pool: n.pool, VDisk: simDisk, Epoch: next.epoch, Cluster: testCluster, NextSeq: tail.LastSeq + 1}, tail)
	n.own = o
	if reuse {
		for _, p := range s.nodes {
			if p.name == r.peer {
				o.m = o.newMirror(p)
				o.m.gen, o.m.durable, o.must, o.guard, o.phase = r.gen, o.applied, true, o.m, simGood
			}
		}
	}
}

func (o *simOpening) newMirror(peer *simNode) *simMirror {
	now := o.n.Now()
	return &simMirror{peer: peer, start: o.log.NextSeq(), durable: o.log.NextSeq() - 1, begun: now, offline: now,
		pending: map[uint64]time.Time{}, kinds: map[uint64]uint16{}}
}

// write takes a write in, of a client of this node (nil), or a command that came to this node
// (without ch) or another one.
func (o *simOpening) write(cmd *simCommand, ch *simChannel) {
	s := o.n.s
	if len(o.ids) >= simMaxRecords {
		return
	}
	size := journal.RecordBytes(1, 1, testCluster)
	if !o.log.Fits(size) {
		o.land(len(o.pend))
		if err := o.log.AwaitChunk(); err != nil {
			s.t.Fatalf("%v: node %s has %+v, the log %d bytes", err, o.n.name, o.n.pool.Usage(), o.log.Bytes())
		}
	}
	w := &simWrite{seq: o.log.NextSeq(), cmd: cmd, ch: ch}
	if cmd != nil {
		w.id, w.late = cmd.id, cmd.over
	} else {
		s.id++
		w.id = s.id
		w.op = s.history.Write(w.id%simBlocks, w.id)
	}
	b := &journal.Batch{Seqs: 1, Time: int64(o.log.NextSeq()), Parts: [][]byte{content(w.id, 1)},
		Extents: []journal.Extent{{LBA: w.id * 8, Length: 8, Kind: journal.KindData}}}
	o.log.Build(b, &w.rec)
	o.ids, o.pend = append(o.ids, w.id), append(o.pend, w)
	if m := o.m; m != nil && !m.failed {
		f := simFrame{w.seq, append([]byte(nil), w.rec.Bytes()...), o.n.Now()}
		m.left = append(m.left, f)
		if m.on != nil && !m.on.broken {
			o.send(m.on, typeAppend, f.last, f.frame)
		}
	}
}

// land makes the first n records that wait durable here.
func (o *simOpening) land(n int) {
	for _, w := range o.pend[:n] {
		if !w.wrote {
			o.log.Start(&w.rec)
			if _, err := o.log.Finish(&w.rec); err != nil {
				o.n.s.t.Fatal(err)
			}
			w.wrote = true
		}
	}
}

// finish answers what both nodes have, or what may be answered alone.
func (o *simOpening) finish() {
	s := o.n.s
	for len(o.pend) > 0 && o.pend[0].wrote && !o.fenced {
		w := o.pend[0]
		alone := s.variant == simSolo && o.m != nil && o.m.failed
		if o.must && !alone && (o.m == nil || o.m.durable < w.seq) {
			return
		}
		o.pend, o.applied = o.pend[1:], w.seq
		s.acks++
		if s.served != nil && s.served.rec.epoch > o.rec.epoch && !slices.Contains(s.served.ids[:s.served.applied], w.id) {
			s.wrong("epoch %d answers write %d, which epoch %d, that serves, does not have", o.rec.epoch, w.id, s.served.rec.epoch)
		}
		o.serves()
		s.must = append(s.must, w.id)
		o.answer(w)
	}
}

// answer tells who asked for a write that it is done.
func (o *simOpening) answer(w *simWrite) {
	s := o.n.s
	switch {
	case w.late:
		s.wrong("write %d is carried out after its client went on without it", w.id)
	case w.cmd == nil:
		w.op.Done()
	case w.ch != nil:
		w.ch.back = append(w.ch.back, simReply{cmd: w.cmd, done: true, now: o.n.Now()})
	default:
		w.cmd.op.Done()
		s.told(w.cmd)
	}
}

func (o *simOpening) serves() {
	if s := o.n.s; s.served == nil || s.served.rec.epoch <= o.rec.epoch {
		s.served = o
	}
}

// read answers a read of a client, if it may.
func (o *simOpening) read() {
	s := o.n.s
	if g := o.guard; g != nil && s.variant != simNoGrant && (g.on == nil || g.on.broken || !o.n.Now().Before(g.on.granted)) {
		return
	}
	s.reads++
	block, value := uint64(s.r.IntN(simBlocks)), uint64(0)
	op := s.history.Read(block)
	for _, id := range o.ids[:o.applied] {
		if id%simBlocks == block {
			value = id
		}
	}
	op.Saw(value)
	for _, id := range s.must {
		if !slices.Contains(o.ids[:o.applied], id) {
			s.wrong("node %s, epoch %d, reads without write %d", o.n.name, o.rec.epoch, id)
		}
	}
	for _, id := range o.ids[:o.applied] {
		if !slices.Contains(s.must, id) {
			s.must = append(s.must, id) // it was seen
		}
	}
	o.serves()
}

// change asks the registry for a change; one at a time.
func (o *simOpening) change(to func(*simRec), done func()) {
	s := o.n.s
	now := o.rec
	to(&now)
	if now.ok != o.rec.ok || now.gen != o.rec.gen {
		if now.change++; s.variant == simNoChange {
			now.change = 0
		}
	}
	c := &simCall{old: o.rec, now: now, asker: o}
	c.done = func(ok bool) {
		o.call = nil
		if !ok {
			o.fenced = true
			s.fences++
			return
		}
		o.rec = now
		done()
	}
	o.call, o.asked = c, o.n.Now()
	s.calls = append(s.calls, c)
}

// settleCall looks what became of a change whose answer did not come.
func (o *simOpening) settleCall() {
	s, c := o.n.s, o.call
	if c == nil || s.away || o.n.Now().Sub(o.asked) < time.Second {
		return
	}
	switch s.rec {
	case c.now:
		c.done(true)
	case c.old: // asked again; the first one may come yet
		again := *c
		c.done = nil
		o.call, o.asked = &again, o.n.Now()
		s.calls = append(s.calls, &again)
	default:
		c.done(false)
		c.done = nil
	}
}

// registry carries a call out, or loses its answer.
func (s *sim) registry() {
	if len(s.calls) == 0 || s.away {
		return
	}
	i := s.r.IntN(len(s.calls))
	c := s.calls[i]
	s.calls = slices.Delete(s.calls, i, i+1)
	ok := s.rec == c.old
	if ok {
		s.rec = c.now
		if c.now.ok {
			s.goods++
		}
	}
	if s.chance(15) { // the network carries it out once more, later
		again := *c
		again.done = nil
		s.calls = append(s.calls, &again)
	}
	if c.done != nil && c.asker.call == c && c.asker.n.awake() && c.asker.n.own == c.asker && !s.chance(20) {
		if ok {
			c.done(true)
		} else {
			c.asker.asked = time.Time{} // it looks what the registry says
			c.asker.settleCall()
		}
	}
}

func (o *simOpening) send(l *simLink, typ uint16, seq uint64, frame []byte) {
	s, m := o.n.s, o.m
	s.id++ // ids of requests and of writes need not be apart
	w := &work{ss: l.ss, typ: typ, req: request{id: s.id, vdisk: simDisk, epoch: o.rec.epoch, cluster: testCluster, generation: m.gen, seq: seq}}
	if typ == typeOpen {
		w.req.generation = 0
	}
	if frame != nil {
		w.body = blockfs.AlignedBuffer(len(frame))
		copy(w.body, frame)
	}
	m.pending[s.id], m.kinds[s.id], m.asked = o.n.Now(), typ, o.n.Now()
	l.req = append(l.req, w)
}

// tick is what the owner does by itself.
func (o *simOpening) tick() {
	s, now := o.n.s, o.n.Now()
	if o.fenced {
		return
	}
	o.settleCall()
	if o.fenced {
		return
	}
	o.land(s.r.IntN(len(o.pend) + 1))
	o.finish()
	m := o.m
	if m == nil && o.call == nil && s.chance(30) {
		others := slices.DeleteFunc(slices.Clone(s.nodes), func(n *simNode) bool { return n == o.n })
		o.m, o.phase = o.newMirror(others[s.r.IntN(2)]), simBegun
		m = o.m
	}
	if m != nil {
		o.connect(now)
		if l := m.link; l == nil && now.Sub(m.offline) >= defaultLost || len(m.left) > 0 && now.Sub(m.left[0].since) >= defaultLost || m.gen == 0 && now.Sub(m.begun) >= defaultLost {
			m.failed = true
		}
		if m.failed {
			m.on = nil
		}
	}
	if o.call != nil {
		return
	}
	switch {
	case m == nil:
		o.commit(o.applied)
	case m.failed && (o.phase == simGood || o.rec.ok):
		o.change(func(r *simRec) { r.ok, r.peer, r.gen = false, "", 0 }, o.alone)
	case m.failed:
		o.alone()
	case o.phase == simBegun && m.gen != 0 && o.committed < m.start-1 && s.variant != simTail:
		o.commit(m.start - 1)
	case o.phase == simBegun && m.gen != 0:
		o.must, o.through, o.phase = true, o.log.NextSeq()-1, simRaise
	case o.phase == simRaise && m.durable >= o.through:
		o.guard, o.phase = m, simGood
		o.change(func(r *simRec) { r.ok, r.peer, r.gen = true, m.peer.name, m.gen }, func() {
			if m.on != nil {
				o.send(m.on, typeRelease, m.start-1, nil)
			}
		})
	case o.phase == simGood && s.chance(10):
		o.commit(o.applied)
	}
}

// alone goes on without a copy.
func (o *simOpening) alone() {
	s, m := o.n.s, o.m
	if m.link != nil && !m.link.broken && m.gen != 0 && s.chance(70) {
		o.send(m.link, typeDrop, 0, nil)
	}
	o.must, o.guard, o.m, o.phase = false, nil, nil, simBegun
	o.finish()
}

// commit makes a head of all up to seq, if that is in the map.
func (o *simOpening) commit(seq uint64) {
	s := o.n.s
	if seq <= o.committed || o.applied < seq {
		return
	}
	head, condemned := s.newHead(o, seq)
	if s.variant == simDelete {
		s.deletes = append(s.deletes, condemned...)
	}
	o.change(func(r *simRec) { r.head = head }, func() {
		o.committed = seq
		if s.variant != simDelete {
			s.deletes = append(s.deletes, condemned...)
		}
		o.log.Release(seq)
		if m := o.m; m != nil && m.on != nil && !m.on.broken {
			o.send(m.on, typeRelease, seq, nil)
		}
		if seq+1 >= o.first && o.n.srv.Has(simDisk) {
			if err := o.n.srv.Discard(simDisk); err != nil {
				s.t.Fatal(err)
			}
		}
	})
}

// connect keeps a connection to the peer, with pings.
func (o *simOpening) connect(now time.Time) {
	s, m := o.n.s, o.m
	if m.link != nil && m.link.broken {
		m.link, m.on, m.offline = nil, nil, now
		clear(m.pending)
	}
	if m.link == nil {
		if m.failed || !m.peer.awake() || s.chance(40) || m.peer.srv.refuses(o.n.name) {
			return
		}
		l := &simLink{from: o.n, to: m.peer}
		l.ss = &session{s: m.peer.srv, raw: l, node: o.n.name, ready: make(chan struct{}, 1), heard: m.peer.Now()}
		m.peer.srv.sessions[l.ss] = struct{}{}
		s.links = append(s.links, l)
		m.link = l
		typ, seq := typeOpen, m.start
		if m.gen != 0 {
			typ, seq = typeResume, 0
		}
		o.send(l, uint16(typ), seq, nil)
	} else if now.Sub(m.asked) >= pingEvery {
		o.send(m.link, typePing, 0, nil)
	}
}

// request has the peer serve the next request of a connection.
func (s *sim) request(l *simLink) {
	if l.broken || len(l.req) == 0 || !l.to.awake() {
		return
	}
	w := l.req[0]
	l.req = l.req[1:]
	if err := l.ss.admit(len(w.body)); err != nil {
		l.Close()
		return
	}
	if w.typ == typePing {
		l.ss.answer(answer{id: w.req.id}, 0)
	} else if c, err := l.to.srv.copyFor(w.req.vdisk, w.typ == typeOpen); err != nil {
		l.ss.answer(failed(w.req.id, err), len(w.body))
	} else {
		c.serve(w)
	}
	l.to.srv.mu.Lock()
	out := l.ss.out
	l.ss.out = nil
	l.to.srv.mu.Unlock()
	for _, a := range out {
		if s.variant == simNoEpochs && a.code == codeOf(ErrFenced) {
			a = answer{id: a.id, generation: w.req.generation, seq: math.MaxUint64 >> 1}
		}
		l.ans = append(l.ans, a)
	}
}

// answer has the owner hear the next answer of a connection.
func (s *sim) answer(l *simLink) {
	if l.broken || len(l.ans) == 0 || !l.from.awake() {
		return
	}
	a := l.ans[0]
	l.ans = l.ans[1:]
	o := l.from.own
	if o == nil || o.m == nil || o.m.link != l || o.m.failed {
		return
	}
	m := o.m
	asked, ok := m.pending[a.id]
	if !ok {
		return
	}
	typ := m.kinds[a.id]
	delete(m.pending, a.id)
	if until := asked.Add(Grant); until.After(l.granted) {
		l.granted = until
	}
	if a.err() != nil {
		m.failed, m.on = typ != typeDrop, nil
		return
	}
	switch typ {
	case typeOpen, typeResume:
		if typ == typeOpen {
			m.gen, a.seq = a.generation, m.start-1
		}
		if a.seq < m.durable || m.gen == 0 {
			m.failed = true
			return
		}
		m.on = l
		m.took(a.seq)
		for i := range m.left {
			m.left[i].since = l.from.Now()
			o.send(l, typeAppend, m.left[i].last, m.left[i].frame)
		}
	case typeAppend:
		m.took(a.seq)
	}
	o.finish()
}

func (m *simMirror) took(seq uint64) {
	for len(m.left) > 0 && m.left[0].last <= seq {
		m.left = m.left[1:]
	}
	m.durable = max(m.durable, seq)
}

// step does one thing.
func (s *sim) step() {
	n := s.nodes[s.r.IntN(3)]
	s.now += time.Duration(s.r.IntN(40)) * time.Millisecond
	switch k := s.r.IntN(1000); {
	case k < 5: // the time passes
		s.now += time.Duration(s.r.IntN(4000)) * time.Millisecond
	case k < 12:
		if n.srv != nil {
			// The disk of a node that owns the vDisk is not lost: nothing would be left to be right.
			n.crash(s.chance(40) && s.rec.owner != n.name)
		}
	case k < 17:
		if n.awake() {
			n.sleep = s.now + time.Duration(s.r.IntN(8000))*time.Millisecond
		}
	case k < 25:
		s.away = !s.away && s.chance(40)
	case k < 40:
		if s.chance(40) {
			s.disturb()
		} else if len(s.links) > 0 {
			s.links[s.r.IntN(len(s.links))].broken = true
		}
	case k < 120:
		if n.srv == nil {
			n.boot()
		} else if n.awake() {
			n.open()
		}
	case k < 200:
		s.registry()
	case k < 300:
		if n.awake() && n.own != nil && !n.own.fenced {
			n.own.write(nil, nil)
		}
	case k < 380:
		if n.awake() && n.own != nil && !n.own.fenced {
			n.own.read()
		}
	case k < 600:
		if n.awake() && n.own != nil {
			n.own.tick()
		}
	case k < 630:
		s.remove()
	case k < 660:
		s.ask(s.clients[s.r.IntN(simBlocks)])
	case k < 690:
		for _, n := range s.nodes {
			if n.awake() {
				n.forward()
			}
		}
	case k < 760:
		s.channel()
	default:
		s.links = slices.DeleteFunc(s.links, func(l *simLink) bool { return l.broken })
		if len(s.links) == 0 {
			return
		}
		l := s.links[s.r.IntN(len(s.links))]
		if k%2 == 0 {
			s.request(l)
		} else {
			s.answer(l)
		}
	}
}

// fill has the pool make all its chunks, so that it makes none in the background later: one
// seed is one schedule.
func (n *simNode) fill() {
	// The last one is for who has none, and is made only when no other one is free.
	whole := func() bool {
		u := n.pool.Usage()
		return u.Free+u.Held >= simChunks-1 && int64(u.Free+u.Held) == u.Bytes/testChunk
	}
	if whole() {
		return
	}
	l := journal.NewLog(journal.LogOptions{Pool: n.pool, VDisk: [16]byte{1}, Epoch: 1, Cluster: testCluster, NextSeq: 1}, nil)
	for l.AwaitChunk() == nil {
	}
	l.Seal()
	l.Release(1)
	l.Close()
	for limit := time.Now().Add(patience); !whole(); runtime.Gosched() {
		if time.Now().After(limit) {
			n.s.t.Fatalf("the pool has %+v", n.pool.Usage())
		}
	}
	if err := n.pool.Erase([16]byte{1}); err != nil { // else a restart keeps them for it
		n.s.t.Fatal(err)
	}
}

func (s *sim) run() {
	for range simSteps {
		if s.step(); s.fail != "" {
			break
		}
	}
	for _, n := range s.nodes {
		n.pool.Close()
	}
	if s.fail == "" {
		if err := s.history.Check(simSearch); err != nil {
			s.fail = err.Error()
		}
	}
}

// TestSimulation: schedules of the real thing break nothing; of each broken variant some do.
// A schedule is run again with -sim.seed=SEED -sim.count=1.
func TestSimulation(t *testing.T) {
	var mu sync.Mutex
	var sum simCounts
	var failed atomic.Bool
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // little stays, much is made: half of the time
	workers := runtime.GOMAXPROCS(0)
	t.Run("schedules", func(t *testing.T) {
		for w := range workers {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				for i := w; i < *simCount && !failed.Load(); i += workers {
					s := newSim(t, *simSeed+uint64(i), simWhole)
					if s.run(); s.fail != "" {
						failed.Store(true)
						t.Fatalf("seed %d: %s", *simSeed+uint64(i), s.fail)
					}
					mu.Lock()
					sum.add(s.simCounts)
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d schedules: %d writes answered, %d commands forwarded, %d reads, %d takeovers, %d times a copy became good, %d owners fenced", *simCount, sum.acks, sum.forwards, sum.reads, sum.takeovers, sum.goods, sum.fences)
	if *simCount >= 100 && (sum.takeovers == 0 || sum.goods == 0 || sum.acks == 0 || sum.forwards == 0) || *simCount >= 1000 && sum.fences == 0 {
		t.Error("the schedules look at too little")
	}
}

// TestSimulationReplays: a seed makes one schedule.
func TestSimulationReplays(t *testing.T) {
	for seed := range uint64(30) {
		var first string
		for range 2 {
			s := newSim(t, seed+1000, simWhole)
			s.run()
			last := fmt.Sprintf("%v %+v %v %d %d %d", s.now, s.rec, s.must, s.acks, s.reads, s.takeovers)
			if first == "" {
				first = last
			} else if first != last {
				t.Fatalf("seed %d:\n%s\nand then\n%s", seed+1000, first, last)
			}
		}
	}
}

// simMost bounds the schedules in which a broken variant has to be seen.
const simMost = 4000

// TestSimulationCatches: the checks see what is wrong with each broken variant.
func TestSimulationCatches(t *testing.T) {
	for _, v := range []string{simNoEpochs, simReuse, simTail, simForged, simNoChange, simNoGrant, simSolo, simDelete, simNames, simStale, simResend} {
		t.Run(v, func(t *testing.T) {
			// Two take the most of chance.
			first := max(1, map[string]uint64{simReuse: 5850, simDelete: 3320}[v])
			simCatch(t, first, v, false)
		})
	}
}

// TestSimulationHistory: what clients heard is enough to see what is wrong.
func TestSimulationHistory(t *testing.T) {
	for _, v := range []string{simTail, simNoGrant, simSolo, simResend} {
		t.Run(v, func(t *testing.T) { simCatch(t, 1, v, true) })
	}
}

func simCatch(t *testing.T, first uint64, variant string, blind bool) {
	t.Helper()
	for i := range uint64(simMost) {
		s := newSim(t, first+i, variant)
		s.blind = blind
		if s.run(); s.fail != "" {
			t.Logf("schedule %d, seed %d: %s", i+1, first+i, s.fail)
			return
		}
	}
	t.Errorf("%d schedules, and nothing was seen", simMost)
}
