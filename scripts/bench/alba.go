package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	mathrand "math/rand/v2"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// albaPrefix begins the keys of the set alba.
	albaPrefix = "alba-"
	// needAlba is the free space that the set asks for: what the sides keep, and what
	// a step writes before it is deleted.
	needAlba = 16 << 30
	// albaASDs is how many devices there are: k+m of the policy.
	albaASDs = 6
	// albaConnections bounds the client's connections to a device: the depth of the
	// deepest step.
	albaConnections = 32
	// largeObject is the object of the PUT and GET rows, in bytes; largeDepth are in
	// flight, and largeKept are read.
	largeObject = 4 << 20
	largeDepth  = 8
	largeKept   = 192
	// smallObject is that of the rows of small objects; smallDepth are in flight.
	smallObject = 4 << 10
	smallDepth  = 32
	// smallGoal is how many a second a node stores at least.
	smallGoal = 1000
	// partialKept is how many objects are read in part.
	partialKept = 64
	// sealTag is what encryption adds to a piece, in bytes.
	sealTag = 16
	// objectSpace is how many objects a namespace of the bench may name.
	objectSpace = 1 << 22
	// hostName is the name of the NSM host.
	hostName = "bench"
)

var albaPolicy = preset.Policy{K: 4, M: 2, C: 5, X: albaASDs}

// albaComparisons are the rows of the set alba whose sides are steps.
func (r *results) albaComparisons() []comparison {
	k := func(s string) string { return albaPrefix + s }
	return []comparison{
		{"alba put 4 MiB objects at 8, durable, raw disk write x 4/6", k("put"), k("raw-write"), 0.4, "MB/s"},
		{"alba get 4 MiB objects at 8, raw disk read", k("get"), k("raw-read"), 0.7, "MB/s"},
		{"alba 4k partial read QD1 at p50, s2 and AES-256, pieces of 4 KiB, raw 4k read of an ASD's file", k("partial-4KiB"), k("raw-4k"), 0.33, "1/s"},
		{"alba 4k partial read QD1 at p50, s2 and AES-256, pieces of 4 KiB, in the clear, raw 4k read of an ASD's file", k("clear-partial-4KiB"), k("raw-4k"), 0.33, "1/s"},
		{"alba 4k partial read QD1 at p50, s2 and AES-256, pieces of 16 KiB, raw 4k read of an ASD's file", k("partial-16KiB"), k("raw-4k"), 0, "1/s"},
		{"alba 4k partial read QD1 at p50, s2 and AES-256, pieces of 64 KiB, raw 4k read of an ASD's file", k("partial-64KiB"), k("raw-4k"), 0, "1/s"},
		{"alba 4k partial read QD1 at p50, s2 and AES-256, pieces of 64 KiB, raw 64k read of an ASD's file", k("partial-64KiB"), k("raw-64k"), 0, "1/s"},
		{"alba put 4 MiB objects at 8, s2 and AES-256, pieces of 4 KiB, of 64 KiB", k("put-4KiB"), k("put-64KiB"), 0, "MB/s"},
		{"alba put 4 MiB objects at 8, s2 and AES-256, pieces of 16 KiB, of 64 KiB", k("put-16KiB"), k("put-64KiB"), 0, "MB/s"},
		{"alba get 4 MiB objects at 8, s2 and AES-256, pieces of 4 KiB, of 64 KiB", k("get-4KiB"), k("get-64KiB"), 0, "MB/s"},
		{"alba get 4 MiB objects at 8, s2 and AES-256, pieces of 16 KiB, of 64 KiB", k("get-16KiB"), k("get-64KiB"), 0, "MB/s"},
		{"alba put 4 KiB objects at 32, durable", k("small"), k("limit"), 1, "objects/s"},
		{"alba put 4 MiB objects at 8, durable, Swift EC 4+2", k("peers-put"), k("swift-put"), 3, "MB/s"},
		{"alba get 4 MiB objects at 8, Swift EC 4+2", k("peers-get"), k("swift-get"), 3, "MB/s"},
		{"alba put 4 MiB objects at 8, durable, MinIO EC:2", k("peers-put"), k(minioTLS + "-put"), 1.3, "MB/s"},
		{"alba get 4 MiB objects at 8, MinIO EC:2", k("peers-get"), k(minioTLS + "-get"), 1.3, "MB/s"},
		{"alba put 4 MiB objects at 8, durable, in the clear, MinIO EC:2 in the clear", k("peers-clear-put"), k(minioClear + "-put"), 1.3, "MB/s"},
		{"alba get 4 MiB objects at 8, in the clear, MinIO EC:2 in the clear", k("peers-clear-get"), k(minioClear + "-get"), 1.3, "MB/s"},
	}
}

// albaRows are those that a Go benchmark measures.
var albaRows = []goRow{
	{name: "alba encode and checksum (4,2), what both alone allow", metric: "encode_MB/s", unit: "MB/s", scale: 1, peer: "limit_MB/s", peerName: "parity and checksums alone", goal: 0.8,
		config: "chunks of 4 MiB out of 640 MiB, one goroutine, 5 interleaved rounds, medians (BenchmarkEncode)"},
}

// asdProcess is an `ovgate asd` of its own.
type asdProcess struct {
	asdnode.Announcement
	dir string
	cmd *child
	key []byte
}

// startASD serves a directory on a free port.
func startASD(ctx context.Context, bin, dir string) (*asdProcess, error) {
	cmd, err := startChild(dir+".log", bin, "asd", "--dir", dir, "--listen", "127.0.0.1:0", "--clear")
	if err != nil {
		return nil, err
	}
	a := &asdProcess{dir: dir, cmd: cmd}
	err = cmd.until(ctx, func(out string) bool {
		var ok bool
		a.Announcement, ok = asdnode.ParseAnnouncement(out)
		return ok
	})
	if err == nil {
		a.key, err = asdnode.ReadKey(a.KeyFile)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ovgate asd: %w", err), cmd.stop())
	}
	return a, nil
}

// dial returns a client of the device, that leaves TLS after its handshake or does not.
func (a *asdProcess) dial(clear bool) (osd.OSD, error) {
	var d net.Dialer
	return remote.New(remote.Options{
		Address: a.Address, ID: a.ID, Key: a.key, Fingerprint: a.Fingerprint, Clear: clear, Dial: d.DialContext,
		Clock: clock.Real{}, Rand: rand.Reader, Connections: albaConnections,
	})
}

// albaBench is an Alba whose devices are processes.
type albaBench struct {
	asds    []*asdProcess
	kv      *kv.Bolt
	host    *nsm.Host
	manager *manager.Manager
	client  *client.Client // with TLS
	clear   *client.Client // without, after its handshake
	key     fragment.Key

	large, kept, small    objects
	largeClear, keptClear objects
	sealed                []sealed
	container             *os.File // of the first device, O_DIRECT
	containerBytes        int64
}

// sealed are objects that are compressed and encrypted in pieces of one size.
type sealed struct {
	size            fragment.PieceSize
	kept, put       objects
	stored, content int64 // bytes of what is kept, without parity
	manifest        int   // bytes of that of an object
}

// pieceSizes are those that are compared.
var pieceSizes = []fragment.PieceSize{fragment.Piece4K, fragment.Piece16K, fragment.Piece64K}

// openAlba starts the devices and claims them.
func openAlba(ctx context.Context, dir string) (b *albaBench, err error) {
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	b = &albaBench{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for i := range albaASDs {
		a, err := startASD(ctx, bin, filepath.Join(dir, fmt.Sprint("asd", i+1)))
		if err != nil {
			return b, err
		}
		b.asds = append(b.asds, a)
	}
	if b.kv, err = kv.OpenBolt(filepath.Join(dir, "alba.db"), kv.BoltOptions{}); err != nil {
		return b, err
	}
	b.host = nsm.New(b.kv)
	b.manager, err = manager.Open(ctx, manager.Options{Store: b.kv, Clock: clock.Real{}, Rand: rand.Reader, Host: func(string) (*nsm.Host, error) { return b.host, nil }})
	if err != nil {
		return b, err
	}
	if err := errors.Join(b.manager.AddHost(ctx, hostName, 0), b.claim(ctx), b.presets(ctx)); err != nil {
		return b, err
	}
	if b.client, err = b.open(ctx, false); err != nil {
		return b, err
	}
	if b.clear, err = b.open(ctx, true); err != nil {
		return b, err
	}
	return b, b.fill(ctx)
}

func (b *albaBench) open(ctx context.Context, clear bool) (*client.Client, error) {
	return client.New(ctx, client.Options{
		Manager: b.manager, Clock: clock.Real{}, Rand: rand.Reader,
		Open: func(o manager.OSD) (osd.OSD, error) { return b.asds[o.Number-1].dial(clear) },
		Key:  func(string) (*fragment.Key, error) { return &b.key, nil },
	})
}

func (b *albaBench) claim(ctx context.Context) error {
	for i, a := range b.asds {
		dev, err := a.dial(false)
		if err != nil {
			return err
		}
		o, err := b.manager.Claim(ctx, dev, manager.OSD{Kind: "asd", Node: "bench", Address: a.Address, Fingerprint: a.Fingerprint})
		if err = errors.Join(err, dev.Close()); err != nil {
			return err
		}
		if o.Number != uint32(i+1) {
			return fmt.Errorf("device %d has number %d", i+1, o.Number)
		}
	}
	return nil
}

// presets makes presets and namespaces.
func (b *albaBench) presets(ctx context.Context) error {
	secret := make([]byte, fragment.KeyBytes)
	var err error
	if _, err = rand.Read(secret); err != nil {
		return err
	}
	if b.key, err = fragment.NewKey(secret); err != nil {
		return err
	}
	plain := preset.Preset{Name: "plain", Policies: []preset.Policy{albaPolicy}, FragmentBytes: largeObject / albaPolicy.K}
	all := []preset.Preset{plain}
	spaces := map[string]string{"large": plain.Name, "kept": plain.Name, "small": plain.Name, "large-clear": plain.Name}
	b.large, b.kept, b.small = objects{b: b, ns: "large"}, objects{b: b, ns: "kept"}, objects{b: b, ns: "small"}
	b.largeClear, b.keptClear = objects{b: b, ns: "large-clear", clearly: true}, objects{b: b, ns: "kept", clearly: true}
	b.sealed = make([]sealed, len(pieceSizes))
	for i, size := range pieceSizes {
		p := plain
		p.Name, p.KeyID, p.Compression.Compression, p.PieceBytes = "sealed-"+size.String(), b.key.ID().String(), fragment.S2, size.Bytes()
		all = append(all, p)
		s := &b.sealed[i]
		s.size, s.kept.b, s.put.b, s.kept.ns, s.put.ns = size, b, b, "kept-"+size.String(), "put-"+size.String()
		spaces[s.kept.ns], spaces[s.put.ns] = p.Name, p.Name
	}
	for _, p := range all {
		if _, err := b.manager.CreatePreset(ctx, p); err != nil {
			return err
		}
	}
	for ns, p := range spaces {
		if _, err := b.manager.CreateNamespace(ctx, ns, p); err != nil {
			return err
		}
	}
	return nil
}

// fill stores what is read, and once as much as a step puts, so that the containers of
// the devices are as large as they will be: a disk in use, not a new one.
func (b *albaBench) fill(ctx context.Context) error {
	for range 2 {
		if _, _, err := (work{name: "alba fill", write: true, depth: largeDepth, block: largeObject, inOrder: true, minBytes: 2 << 30}).run(&b.large, objectSpace*largeObject, 0.2, 1); err != nil {
			return err
		}
		if err := b.large.clear(ctx); err != nil {
			return err
		}
	}
	rng := mathrand.New(mathrand.NewPCG(1, 1))
	buf := alignedNoise(largeObject, rng)
	for i := range max(largeKept, partialKept) {
		halfText(buf, rng)
		if i < largeKept {
			if _, err := b.kept.WriteAt(buf, int64(i)*largeObject); err != nil {
				return err
			}
		}
		for j := range b.sealed {
			if i < partialKept {
				if err := b.sealed[j].keep(ctx, buf, int64(i)*largeObject); err != nil {
					return err
				}
			}
		}
	}
	return b.openContainer()
}

// keep puts an object and counts what it takes.
func (s *sealed) keep(ctx context.Context, p []byte, off int64) error {
	if _, err := s.kept.WriteAt(p, off); err != nil {
		return err
	}
	m, err := s.kept.b.client.Manifest(ctx, s.kept.ns, s.kept.name(off, len(p)))
	if err != nil {
		return err
	}
	if m.PieceSize() != s.size {
		return fmt.Errorf("object %s has pieces of %v, expected %v", m.Name, m.PieceSize(), s.size)
	}
	record, err := m.Encode()
	if err != nil {
		return err
	}
	s.manifest = len(record)
	for _, f := range m.Fragments[0][:m.Policy.K] {
		if f.OSD != 0 {
			s.stored, s.content = s.stored+f.Index.StoredBytes(), s.content+int64(f.Index.PlainBytes())
		}
	}
	return nil
}

// halfText makes half of each 4 KiB compress, so that pieces of any size take about
// half of their bytes.
func halfText(p []byte, rng *mathrand.Rand) {
	for i := 0; i < len(p); i += 4 << 10 {
		word := fmt.Sprintf("%016x", rng.Uint64())
		for j := i; j < i+(2<<10); j += len(word) {
			copy(p[j:], word)
		}
	}
}

// openContainer opens a file that the first device keeps values in.
func (b *albaBench) openContainer() error {
	names, err := filepath.Glob(filepath.Join(b.asds[0].dir, "asd", "blob", "*"))
	if err != nil || len(names) == 0 {
		return errors.Join(err, errors.New("the device has no container"))
	}
	f, err := os.OpenFile(slices.Min(names), os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	b.container = f
	if err == nil {
		b.containerBytes = st.Size() &^ (blockSize - 1)
	}
	return err
}

func (b *albaBench) close() error {
	var errs []error
	if b.container != nil {
		errs = append(errs, b.container.Close())
	}
	for _, c := range []*client.Client{b.client, b.clear} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if b.kv != nil {
		errs = append(errs, b.kv.Close())
	}
	for _, a := range b.asds {
		errs = append(errs, a.cmd.stop())
	}
	return errors.Join(errs...)
}

func (b *albaBench) config(over string, c *client.Client) string {
	s := c.Stats()
	var pieces strings.Builder
	for i := range b.sealed {
		o := &b.sealed[i]
		fmt.Fprintf(&pieces, "; pieces of %v: %.3f bytes stored per byte, manifest of %d bytes", o.size, float64(o.stored)/float64(o.content), o.manifest)
	}
	return fmt.Sprintf("alba: %d ovgate asd processes over TCP %s, directories on one disk that were filled before, policy %v, fragments of 1 MiB, "+
		"manager and NSM on bbolt, synced; the client in the bench, up to %d connections to a device; a put is answered when %d fragments, each with its index entry, and the manifest are durable; "+
		"%d of %d objects lacked a fragment when answered, %d of %d reads asked other fragments too%s",
		albaASDs, over, albaPolicy, albaConnections, albaPolicy.C, s.Incomplete.Load(), s.Puts.Load(), s.Hedged.Load(), s.Gets.Load(), pieces.String())
}

// objects is a namespace as a disk: each block is an object.
type objects struct {
	b  *albaBench
	ns string
	// clearly: without TLS after its handshake.
	clearly bool
	age     atomic.Int64 // part of the names, so that no step overwrites what another one wrote
}

func (o *objects) name(off int64, size int) string {
	return fmt.Sprintf("%d/%08d", o.age.Load(), off/int64(size))
}

func (o *objects) client() *client.Client {
	if o.clearly {
		return o.b.clear
	}
	return o.b.client
}

// WriteAt implements disk: it puts an object.
func (o *objects) WriteAt(p []byte, off int64) (int, error) {
	return len(p), o.client().Put(context.Background(), o.ns, o.name(off, len(p)), p)
}

// ReadAt implements disk: it gets an object.
func (o *objects) ReadAt(p []byte, off int64) (int, error) {
	data, err := o.client().Get(context.Background(), o.ns, o.name(off, len(p)), int64(len(p)))
	if err == nil && len(data) != len(p) {
		err = fmt.Errorf("object of %d bytes, expected %d", len(data), len(p))
	}
	return len(p), err
}

// clear deletes all objects and their fragments, as maintenance does.
func (o *objects) clear(ctx context.Context) error {
	o.age.Add(1)
	for {
		list, err := o.client().List(ctx, o.ns, "", "", nsm.MaxChanges)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return o.b.collect(ctx)
		}
		changes := make([]client.Change, len(list))
		for i, info := range list {
			changes[i] = client.Change{Name: info.Name, Delete: true}
		}
		if err := o.client().Apply(ctx, o.ns, nil, changes); err != nil {
			return err
		}
	}
}

// collect deletes the fragments that no manifest names.
func (b *albaBench) collect(ctx context.Context) error {
	const page = 500 // two updates each, far below osd.MaxApplyOps
	for {
		garbage, err := b.host.ListGarbage(ctx, nil, page)
		if err != nil || len(garbage) == 0 {
			return err
		}
		updates := map[uint32][]osd.Update{}
		for _, g := range garbage {
			for _, d := range g.Places {
				p := d.Place(g.Namespace)
				updates[d.OSD] = append(updates[d.OSD], osd.Delete(p.FragmentKey()), osd.Delete(p.TagKey(d.Epoch)))
			}
		}
		for n, u := range updates {
			for part := range slices.Chunk(u, osd.MaxApplyOps) {
				if err := b.client.Device(n).Apply(ctx, nil, part, osd.High); err != nil {
					return err
				}
			}
		}
		for _, g := range garbage {
			if err := b.host.Collected(ctx, g, nil); err != nil {
				return err
			}
		}
	}
}

// atMedian runs an operation one at a time and returns 1 / its median time.
func atMedian(seconds float64, op func() error) (float64, int64, error) {
	var times []time.Duration
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); time.Now().Before(end); {
		from := time.Now()
		if err := op(); err != nil {
			return 0, 0, err
		}
		times = append(times, time.Since(from))
	}
	slices.Sort(times)
	return 1 / times[len(times)/2].Seconds(), int64(len(times)), nil
}

// partialReads reads 4 KiB of sealed objects, and checks that no more than a piece
// moved for each; what a slow one asked of others may come later.
func (o *sealed) partialReads(ctx context.Context, c *client.Client, seconds float64, seed uint64) (float64, int64, error) {
	rng := mathrand.New(mathrand.NewPCG(seed, 2))
	p := make([]byte, blockSize)
	names := make([]string, partialKept)
	for i := range names {
		names[i] = o.kept.name(int64(i)*largeObject, largeObject)
	}
	s := c.Stats()
	moved, more := s.MovedBytes.Load(), s.Hedged.Load()+s.Degraded.Load()
	rate, ops, err := atMedian(seconds, func() error {
		off := rng.Int64N(partialKept*largeObject/blockSize) * blockSize
		return c.ReadAt(ctx, o.kept.ns, names[off/largeObject], p, off%largeObject)
	})
	moved, more = s.MovedBytes.Load()-moved, s.Hedged.Load()+s.Degraded.Load()-more
	piece := o.size.Bytes() + sealTag
	if most := (uint64(ops) + more*uint64(albaPolicy.N())) * uint64(piece); err == nil && moved > most {
		err = fmt.Errorf("%d reads of %d bytes moved %d, at most %d each should", ops, blockSize, moved, piece)
	}
	return rate, ops, err
}

// rawReads reads n bytes at a time of an ASD's file.
func (b *albaBench) rawReads(n int) func(context.Context, float64, uint64) (float64, int64, error) {
	return func(_ context.Context, seconds float64, seed uint64) (float64, int64, error) {
		rng := mathrand.New(mathrand.NewPCG(seed, 3))
		p := alignedNoise(n, rng)
		return atMedian(seconds, func() error {
			_, err := b.container.ReadAt(p, rng.Int64N((b.containerBytes-int64(n))/blockSize)*blockSize)
			return err
		})
	}
}

// scaled is a step whose rate is in other units.
func (s step) scaled(factor float64) step {
	run := s.run
	s.run = func(ctx context.Context, seconds float64, seed uint64) (float64, int64, error) {
		rate, ops, err := run(ctx, seconds, seed)
		return rate * factor, ops, err
	}
	return s
}

// largeSteps put and get large objects.
func largeSteps(prefix string, put, get *objects) []step {
	const megabytes = float64(largeObject) / 1e6
	none := func(context.Context) error { return nil }
	return []step{
		onDisk(prefix+"put", work{name: "put", write: true, depth: largeDepth, block: largeObject, inOrder: true}, put, objectSpace*largeObject, put.clear).scaled(megabytes),
		onDisk(prefix+"get", work{name: "get", depth: largeDepth, block: largeObject, inOrder: true}, get, largeKept*largeObject, none).scaled(megabytes),
	}
}

// steps are those beside the raw disk, which run before other systems are started.
func (b *albaBench) steps(rawDisk disk) []step {
	const megabytes = float64(largeObject) / 1e6
	const share = 4.0 / 6 // of the bytes on the disk that are the object's
	none := func(context.Context) error { return nil }
	k := func(s string) string { return albaPrefix + s }
	sequential := work{name: "raw in order", depth: largeDepth, block: 1 << 20, inOrder: true}
	writes := sequential
	writes.write = true
	all := append([]step{
		onDisk(k("raw-write"), writes, rawDisk, rawSize, none).scaled(1.048576 * share),
		onDisk(k("raw-read"), sequential, rawDisk, rawSize, none).scaled(1.048576),
	}, largeSteps(albaPrefix, &b.large, &b.kept)...)
	all = append(all,
		step{key: k("raw-4k"), settle: func(context.Context) error { return settleDisk(true) }, run: b.rawReads(blockSize)},
		step{key: k("raw-64k"), settle: func(context.Context) error { return settleDisk(true) }, run: b.rawReads(fragment.PieceBytes)},
		onDisk(k("small"), work{name: "put small", write: true, depth: smallDepth, block: smallObject, inOrder: true}, &b.small, objectSpace*smallObject, b.small.clear))
	for i := range b.sealed {
		s := &b.sealed[i]
		k := func(what string) string { return k(what + "-" + s.size.String()) }
		all = append(all,
			step{key: k("partial"), settle: func(context.Context) error { return settleDisk(true) }, run: func(ctx context.Context, seconds float64, seed uint64) (float64, int64, error) {
				return s.partialReads(ctx, b.client, seconds, seed)
			}},
			step{key: k("clear-partial"), settle: func(context.Context) error { return settleDisk(true) }, run: func(ctx context.Context, seconds float64, seed uint64) (float64, int64, error) {
				return s.partialReads(ctx, b.clear, seconds, seed)
			}},
			onDisk(k("put"), work{name: "put " + s.size.String(), write: true, depth: largeDepth, block: largeObject, inOrder: true, content: halfText}, &s.put, objectSpace*largeObject, s.put.clear).scaled(megabytes),
			onDisk(k("get"), work{name: "get " + s.size.String(), depth: largeDepth, block: largeObject, inOrder: true}, &s.kept, partialKept*largeObject, none).scaled(megabytes))
	}
	return all
}

// albaConfigs describe the sides that are not Alba's own, which comes after them.
func albaConfigs() [][2]string {
	const rawFile = "raw file, preallocated and pre-written, O_DIRECT, 1 MiB in order, 8 in flight, not synced"
	const container = "a container of the first ASD, O_DIRECT, random, one at a time, 1 / median time"
	return [][2]string{
		{albaPrefix + "raw-write", rawFile + "; x 4/6"},
		{albaPrefix + "raw-read", rawFile},
		{albaPrefix + "raw-4k", container},
		{albaPrefix + "raw-64k", container + "; a piece, and the block of an ASD's checksums, is 64 KiB"},
		{albaPrefix + "limit", "the goal of one node"},
	}
}

// measureAlba prepares an Alba and Swift on the disk and runs the rounds.
func measureAlba(ctx context.Context, o options, dir string, r *results) (err error) {
	fmt.Println("bench: encode and checksum")
	if r.alba, err = goBench(ctx, "./alba/fragment", dir, "BenchmarkEncode", "1x"); err != nil {
		return err
	}
	r.alba["limit_MB/s"] = r.alba["encode_MB/s"] / r.alba["of_limit"]
	r.noise = newNoise()
	fmt.Println("bench: preparing the raw disk and an alba of", albaASDs, "processes")
	rawFile, err := prewritten(filepath.Join(dir, "raw.ordered"), rawSize, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rawFile.Close()) }()
	b, err := openAlba(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, a := range b.asds {
		r.noise.pids = append(r.noise.pids, a.cmd.pid())
	}
	if err := rounds(ctx, o, b.steps(rawFile), r); err != nil {
		return err
	}
	// Again, beside the others.
	steps := append(largeSteps(albaPrefix+"peers-", &b.large, &b.kept), largeSteps(albaPrefix+"peers-clear-", &b.largeClear, &b.keptClear)...)
	swift, err := tuneSwift(ctx, o, dir)
	switch {
	case errors.Is(err, errNoSwift):
		fmt.Println("bench: no rows beside Swift:", err)
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, swift.close()) }()
		r.noise.pids = append(r.noise.pids, swift.members...)
		steps = append(steps, swift.steps()...)
		r.configs = append(r.configs, [2]string{albaPrefix + "swift", swift.config})
	}
	for _, key := range []string{minioTLS, minioClear} {
		minio, err := openMinIO(ctx, dir, key)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, minio.peer.Close()) }()
		pids, err := peerPIDs(minio.peer)
		if err != nil {
			return err
		}
		r.noise.pids = append(r.noise.pids, pids...)
		steps = append(steps, minio.steps()...)
		r.configs = append(r.configs, [2]string{albaPrefix + key, minio.config()})
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.add(albaPrefix+"limit", smallGoal)
	r.configs = append(r.configs, albaConfigs()...)
	const clearly = "in the clear after the handshake (asd --clear, alba: {clear: true})"
	for _, key := range []string{"clear-partial", "peers-clear"} {
		r.configs = append(r.configs, [2]string{albaPrefix + key, b.config(clearly, b.clear)})
	}
	r.configs = append(r.configs, [2]string{strings.TrimSuffix(albaPrefix, "-"), b.config("with TLS 1.3", b.client)})
	r.albaDisk = fmt.Sprintf("%s; %s", cachesDropped(), r.noise)
	return nil
}
