package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DiskOptions bound what Disk does.
type DiskOptions struct {
	Bytes int64         // of the file; 0: 1 GiB
	Each  time.Duration // of each load; 0: 5 s
}

// Bounds of DiskOptions.
const (
	minDiskBytes = 64 << 20
	maxDiskBytes = 1 << 40
	maxEach      = 10 * time.Minute
	mebi         = 1 << 20
	page         = 4096
	readers      = 32
)

func (o *DiskOptions) check() error {
	if o.Bytes == 0 {
		o.Bytes = 1 << 30
	}
	if o.Bytes < minDiskBytes || o.Bytes > maxDiskBytes {
		return fmt.Errorf("a file of %d bytes: use %d to %d", o.Bytes, int64(minDiskBytes), int64(maxDiskBytes))
	}
	o.Bytes -= o.Bytes % mebi
	return checkEach(&o.Each)
}

func checkEach(each *time.Duration) error {
	if *each == 0 {
		*each = 5 * time.Second
	}
	if *each < 10*time.Millisecond || *each > maxEach {
		return fmt.Errorf("each load for %v: use 10ms to %v", *each, maxEach)
	}
	return nil
}

// Disk measures the disk that a directory is on, past the page cache, with a file that has no
// name there. It refuses one with less than twice the file's bytes free.
func Disk(ctx context.Context, dir string, o DiskOptions) ([]Figure, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < 2*o.Bytes {
		return nil, fmt.Errorf("%s has %d bytes free, and %d are wanted, twice the file's: use a smaller --size", dir, free, 2*o.Bytes)
	}
	name, err := scratch(dir)
	if err != nil {
		return nil, err
	}
	f, err := open(name, 0)
	var durable *os.File
	if err == nil {
		durable, err = open(name, unix.O_DSYNC)
	}
	if err := errors.Join(err, os.Remove(name)); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	defer f.Close()
	defer durable.Close()
	return disk(ctx, f, durable, o)
}

// scratch makes a file, whose name goes once it is open.
func scratch(dir string) (string, error) {
	f, err := os.CreateTemp(dir, ".ovgate-bench-")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func open(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT|flags, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%s: the file system does no direct I/O, and is not for ovgate's disks: %w", name, err)
	}
	return f, err
}

// aligned is memory for direct I/O.
func aligned(n int) ([]byte, func() error, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	return b, func() error { return unix.Munmap(b) }, nil
}

func disk(ctx context.Context, f, durable *os.File, o DiskOptions) (out []Figure, err error) {
	b, free, err := aligned(readers * mebi)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, free()) }()
	if _, err := rand.Read(b); err != nil { // no disk makes it smaller
		return nil, err
	}
	of := func(worker, n int) []byte { return b[worker*mebi:][:n] }

	blocks := int(o.Bytes / mebi)
	for i := range blocks { // all of it is there before anything is measured
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := f.WriteAt(of(0, mebi), int64(i)*mebi); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	add := func(name string, v func(Figure) Verdict, means map[Verdict]string, workers, size int, do func(ctx context.Context, worker, n int) error) error {
		m, err := load(ctx, workers, o.Each, size, do)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, m.say(name, v(m), means))
		return nil
	}
	pages := int(o.Bytes / page)
	err = errors.Join(
		add("durable 4 KiB write, one at a time", func(m Figure) Verdict { return most(m.P99, time.Millisecond, 10*time.Millisecond) },
			map[Verdict]string{Good: "for journals (write_disks) and for the registry", Fair: "journals work here, and each write of a host waits that long", Poor: "not for journals nor the registry: writes of hosts would wait for it"},
			1, page, func(_ context.Context, _, n int) error {
				_, err := durable.WriteAt(of(0, page), int64(n%pages)*page)
				return err
			}),
		add("sequential 1 MiB write", func(m Figure) Verdict { return least(m.Bytes, 200e6, 50e6) },
			map[Verdict]string{Good: "for devices (asds) and for what hosts write", Fair: "what hosts write for long is slowed down to less than that", Poor: "it fills slower than hosts write"},
			4, mebi, func(_ context.Context, w, n int) error {
				_, err := f.WriteAt(of(w, mebi), int64((w+4*n)%blocks)*mebi)
				return err
			}),
		f.Sync(),
		add("random 4 KiB read, 32 at once", func(m Figure) Verdict { return least(m.Rate, 20e3, 2e3) },
			map[Verdict]string{Good: "for the read cache (read_cache) and for devices", Fair: "for devices; a read cache on it gains little", Poor: "a disk that turns, or a slow network disk: not for the read cache"},
			readers, page, func(_ context.Context, w, _ int) error {
				_, err := f.ReadAt(of(w, page), int64(mrand.IntN(pages))*page)
				return err
			}),
		add("sequential 1 MiB read", func(m Figure) Verdict { return least(m.Bytes, 200e6, 80e6) },
			map[Verdict]string{Good: "repairs and backups are quick", Fair: "repairs of a device take hours for each terabyte", Poor: "repairs and backups are slow"},
			4, mebi, func(_ context.Context, w, n int) error {
				_, err := f.ReadAt(of(w, mebi), int64((w+4*n)%blocks)*mebi)
				return err
			}),
	)
	return out, err
}
