package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// vdiskPrefix begins the keys of the set vdisk.
	vdiskPrefix = "vd-"
	// manyDisks is how many vDisks are written side by side.
	manyDisks = 100
	// cachedSize is the vDisk that is read from the cache; cacheBytes holds it.
	cachedSize = 128 << 20
	cacheBytes = 512 << 20
	// orderedSize is what is written and read in order.
	orderedSize = 1 << 30
	// writeCPU is the CPU time that a durable 4 KiB write at depth 32 may take.
	writeCPU = 12 * time.Microsecond
	mib      = 1 << 20
)

// vdiskComparisons are the rows of the set vdisk.
func (r *results) vdiskComparisons() []comparison {
	k := func(s string) string { return vdiskPrefix + s }
	sameDisk := 0.0
	if r.amp > 0 {
		sameDisk = round(80/r.amp) / 100
	}
	return []comparison{
		{"vdisk durable 4k random write QD32", k("write-qd32"), k("raw-append-dsync-qd1"), 5.5, ""},
		{"vdisk durable 4k random write QD128", k("write-qd128"), k("raw-append-dsync-qd1"), 11, ""},
		{"vdisk durable 4k random write QD128, beside the raw disk's not synced", k("write-qd128"), k("raw-write-qd128"), 0, ""},
		{"vdisk durable 4k random write QD32 per CPU time, client included", k("write-qd32") + perCPU, k("write-12us"), 1, "writes per CPU second"},
		{"vdisk cached 4k random read QD32, raw disk", k("cached-read-qd32"), k("raw-read-qd32"), 0.7, ""},
		{"vdisk sequential 1 MiB write QD4, backend in memory, raw disk", k("ordered-write-memory"), k("raw-ordered-write"), 0.8, "MiB/s"},
		{"vdisk sequential 1 MiB write QD4, backend on the same disk, raw disk", k("ordered-write-disk"), k("raw-ordered-write"), sameDisk, "MiB/s"},
		{"vdisk sequential 1 MiB write QD4, backend in memory, raw disk, each write durable there too", k("ordered-write-memory"), k("raw-ordered-write-dsync"), 0.8, "MiB/s"},
		{"vdisk sequential 1 MiB write QD4, backend on the same disk, raw disk, each write durable there too", k("ordered-write-disk"), k("raw-ordered-write-dsync"), sameDisk, "MiB/s"},
		{"vdisk sequential 1 MiB read QD4, not cached, raw disk", k("ordered-read"), k("raw-ordered-read"), 0.8, "MiB/s"},
		{"100 vdisks durable 4k random write QD1 each, one at QD100", k("many-write-qd1"), k("write-qd100"), 0.8, ""},
	}
}

// bench is an engine with a vPool on the disk to measure and one in memory.
type vdiskBench struct {
	kv           kv.Store
	host         *volume.Host
	disk, memory *volume.Pool
	closers      []func() error

	main   disk // on the disk
	cached disk // read once
	many   manyVolumes
	order  *ordered // on the disk, and in memory
	inMem  *ordered
}

// vol is a vDisk as a load sees it.
type vol struct{ *volume.Volume }

// WriteAt implements disk.
func (v vol) WriteAt(p []byte, off int64) (int, error) {
	return len(p), v.Volume.WriteAt(context.Background(), p, off)
}

// ReadAt implements disk.
func (v vol) ReadAt(p []byte, off int64) (int, error) {
	return len(p), v.Volume.ReadAt(context.Background(), p, off)
}

// manyVolumes gives each command in flight a vDisk of its own: as many are in flight
// as there are vDisks.
type manyVolumes struct {
	vols []vol
	free chan int
}

// WriteAt implements disk.
func (m manyVolumes) WriteAt(p []byte, off int64) (int, error) {
	i := <-m.free
	defer func() { m.free <- i }()
	return m.vols[i].WriteAt(p, off)
}

// ReadAt implements disk.
func (m manyVolumes) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// ordered is a vDisk that is made anew before each step that writes it in order, so
// that what a former step left does not fill the backend.
type ordered struct {
	pool *volume.Pool
	size int64 // of each vDisk, in bytes
	id   volume.ID
	now  atomic.Pointer[volume.Volume]
	// bytes of guests, and bytes that the engine wrote for them
	guest, written uint64
}

// WriteAt implements disk.
func (o *ordered) WriteAt(p []byte, off int64) (int, error) { return vol{o.now.Load()}.WriteAt(p, off) }

// ReadAt implements disk.
func (o *ordered) ReadAt(p []byte, off int64) (int, error) { return vol{o.now.Load()}.ReadAt(p, off) }

// fresh replaces the vDisk by an empty one.
func (o *ordered) fresh(ctx context.Context) error {
	if v := o.now.Load(); v != nil {
		s := v.Stats()
		o.guest += s.WriteBytes
		o.written += s.JournalAppendBytes + s.SCOBytes
		if err := errors.Join(v.Close(ctx), o.pool.Delete(ctx, o.id), o.pool.Purge(ctx)); err != nil {
			return err
		}
	}
	v, id, err := newVolume(ctx, o.pool, o.size)
	if err == nil {
		o.id = id
		o.now.Store(v)
	}
	return err
}

func newVolume(ctx context.Context, p *volume.Pool, size int64) (*volume.Volume, volume.ID, error) {
	id, err := volume.NewID(nil)
	if err != nil {
		return nil, id, err
	}
	if err := p.Create(ctx, volume.Spec{ID: id, Name: "bench-" + id.String(), Size: size}); err != nil {
		return nil, id, err
	}
	v, err := p.Open(ctx, id)
	return v, id, err
}

func openVDiskBench(ctx context.Context, dir string) (b *vdiskBench, err error) {
	b = &vdiskBench{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(context.Background()))
		}
	}()
	state, err := blockfs.OS(filepath.Join(dir, "state"))
	if err != nil {
		return b, err
	}
	if b.kv, err = kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{}); err != nil {
		return b, err
	}
	b.closers = append(b.closers, b.kv.Close)
	if b.host, err = volume.NewHost(ctx, volume.HostOptions{FS: state, Registry: volume.KVRegistry{Store: b.kv}, Node: "bench",
		JournalBytes: 8 << 30, CacheBytes: cacheBytes}); err != nil {
		return b, err
	}
	objects, err := blockfs.OS(filepath.Join(dir, "objects"))
	if err != nil {
		return b, err
	}
	s, err := local.Open(objects, local.Options{})
	if err != nil {
		return b, err
	}
	if b.disk, err = b.pool(ctx, "disk", s); err != nil {
		return b, err
	}
	if b.memory, err = b.pool(ctx, "memory", newMemoryStore()); err != nil {
		return b, err
	}
	return b, b.volumes(ctx)
}

func (b *vdiskBench) pool(ctx context.Context, name string, s backend.Store) (*volume.Pool, error) {
	b.closers = append(b.closers, s.Close)
	return b.host.AttachPool(ctx, volume.PoolConfig{ClusterID: "bench", ID: name, Name: name, Store: s,
		Settings: volume.Settings{JournalQuota: quota}})
}

// volumes makes the vDisks, and fills those that are read.
func (b *vdiskBench) volumes(ctx context.Context) error {
	v, _, err := newVolume(ctx, b.disk, engineSize)
	if err != nil {
		return err
	}
	b.main = vol{v}
	if v, _, err = newVolume(ctx, b.disk, cachedSize); err != nil {
		return err
	}
	b.cached = vol{v}
	if err := errors.Join(fill(b.cached, cachedSize), v.Commit(ctx)); err != nil {
		return err
	}
	b.many.free = make(chan int, manyDisks)
	for i := range manyDisks {
		if v, _, err = newVolume(ctx, b.disk, engineSize/manyDisks>>20<<20); err != nil {
			return err
		}
		b.many.vols = append(b.many.vols, vol{v})
		b.many.free <- i
	}
	b.order, b.inMem = &ordered{pool: b.disk, size: orderedSize}, &ordered{pool: b.memory, size: orderedSize}
	return errors.Join(b.order.fresh(ctx), b.inMem.fresh(ctx))
}

func (b *vdiskBench) close(ctx context.Context) error {
	var errs []error
	if b.host != nil {
		errs = append(errs, b.host.Close(ctx))
	}
	slices.Reverse(b.closers)
	for _, c := range b.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// commit puts what steps wrote on the backend, so that its upload is not in the next one.
func (b *vdiskBench) commit(ctx context.Context) error {
	vols := append([]vol{b.main.(vol), {b.order.now.Load()}, {b.inMem.now.Load()}}, b.many.vols...)
	errs := make([]error, len(vols))
	var wg sync.WaitGroup
	for i, v := range vols {
		wg.Go(func() { errs[i] = v.Commit(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// warm reads all of the cached vDisk, twice: the second reads of a group load it.
func (b *vdiskBench) warm(ctx context.Context) error {
	if err := b.commit(ctx); err != nil {
		return err
	}
	buf := make([]byte, mib)
	for i := int64(0); i < 2*cachedSize; i += mib {
		if _, err := b.cached.ReadAt(buf, i%cachedSize); err != nil {
			return err
		}
	}
	return nil
}

// fresh replaces a vDisk in order by an empty one, once nothing else is under way.
func (b *vdiskBench) fresh(o *ordered) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := b.commit(ctx); err != nil {
			return err
		}
		return o.fresh(ctx)
	}
}

// unread makes a vDisk in order whose data are on the backend and nowhere else.
func (b *vdiskBench) unread(ctx context.Context) error {
	if err := b.fresh(b.order)(ctx); err != nil {
		return err
	}
	if err := fill(b.order, orderedSize); err != nil {
		return err
	}
	return b.order.now.Load().Commit(ctx)
}

// prewrite has the journals' chunks made that the many vDisks use together, as the raw file was
// written before, too: four for each.
func (b *vdiskBench) prewrite(ctx context.Context) error {
	w := work{name: "vdisks prewrite", write: true, depth: manyDisks, block: 256 << 10, minBytes: manyDisks * 60 << 20}
	if _, _, err := w.run(b.many, engineSize/manyDisks>>20<<20, 5, 1); err != nil {
		return err
	}
	return b.commit(ctx)
}

// measureVDisk runs the set vdisk.
func measureVDisk(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
	fmt.Println("bench: preparing the raw disk and the vDisks")
	d, err := openRaw(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	b, err := openVDiskBench(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(context.Background())) }()
	for range o.rounds {
		r.add(vdiskPrefix+"write-12us", float64(time.Second/writeCPU))
	}
	if err := b.prewrite(ctx); err != nil {
		return err
	}
	if err := rounds(ctx, o, b.steps(d), r); err != nil {
		return err
	}
	if err := b.order.fresh(ctx); err != nil {
		return err
	}
	r.amp = float64(b.order.written) / float64(b.order.guest)
	r.vdisk = fmt.Sprintf("%s; %s", cachesDropped(), r.noise)
	r.configs = append(r.configs,
		[2]string{vdiskPrefix + "raw", "raw file, preallocated and pre-written, O_DIRECT; appends O_DSYNC too"},
		[2]string{vdiskPrefix + "write-12us", "12 us of CPU time for each write"},
		[2]string{vdiskPrefix + "ordered", fmt.Sprintf("engine in process, 1 GiB vDisk, made anew for each step that writes, journal quota %d MiB, %.2f bytes written per byte of the guest", quota>>20, r.amp)},
		[2]string{vdiskPrefix + "many", fmt.Sprintf("engine in process, %d vDisks of one vPool, one write in flight each, journal quota %d MiB each, chunks of the journals made before", manyDisks, quota>>20)},
		[2]string{vdiskPrefix + "cached", fmt.Sprintf("engine in process, %d MiB vDisk in a read cache of %d MiB, checksums verified on each read", cachedSize>>20, cacheBytes>>20)},
		[2]string{vdiskPrefix + "write", fmt.Sprintf("engine in process, %d GiB vDisk, journal quota %d MiB, local-directory backend on the same disk", int64(engineSize)>>30, quota>>20)})
	return nil
}

// steps of the set.
func (b *vdiskBench) steps(d *raw) []step {
	k := func(s string) string { return vdiskPrefix + s }
	durable := onDisk(k("write-qd32"), work{name: "vdisk write", write: true, depth: 32, minBytes: 4 * quota}, b.main, engineSize, b.commit)
	durable.pid = os.Getpid()
	inOrder := work{name: "in order", depth: 4, block: mib, inOrder: true}
	orderedWrite := inOrder
	orderedWrite.write = true
	return []step{
		onDisk(k("raw-append-dsync-qd1"), work{name: "raw append", write: true, depth: 1}, appender{d}, appendSize, b.commit),
		onDisk(k("raw-write-qd128"), work{name: "raw write", write: true, depth: 128}, d.random, rawSize, b.commit),
		onDisk(k("raw-read-qd32"), work{name: "raw read", depth: 32}, d.random, rawSize, b.commit),
		onDisk(k("raw-ordered-write"), orderedWrite, d.random, rawSize, b.commit),
		onDisk(k("raw-ordered-write-dsync"), orderedWrite, d.sync, appendSize, b.commit),
		onDisk(k("raw-ordered-read"), inOrder, d.random, rawSize, b.commit),
		durable,
		onDisk(k("write-qd100"), work{name: "vdisk write", write: true, depth: manyDisks, minBytes: 4 * quota}, b.main, engineSize, b.commit),
		onDisk(k("write-qd128"), work{name: "vdisk write", write: true, depth: 128, minBytes: 4 * quota}, b.main, engineSize, b.commit),
		onDisk(k("many-write-qd1"), work{name: "vdisks write", write: true, depth: manyDisks, minBytes: 4 * quota}, b.many, engineSize/manyDisks>>20<<20, b.commit),
		onDisk(k("cached-read-qd32"), work{name: "cached read", depth: 32}, b.cached, cachedSize, b.warm),
		onDisk(k("ordered-write-disk"), orderedWrite, b.order, orderedSize, b.fresh(b.order)),
		onDisk(k("ordered-write-memory"), orderedWrite, b.inMem, orderedSize, b.fresh(b.inMem)),
		onDisk(k("ordered-read"), inOrder, b.order, orderedSize, b.unread),
	}
}
