package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/qcow2"
)

// Images are read and written here and not on the node: it gets and gives ranges of a
// disk, so a hostile image reaches nothing but this process, and holes never travel.

const (
	// rangeBytes is how much one request carries: the API's bound.
	rangeBytes = 1 << 20
	// transfersAtOnce bounds the requests in flight, and with rangeBytes the memory.
	transfersAtOnce = 8
	// blockBytes is the unit in which zeros are left out.
	blockBytes = 4 << 10
)

// Image formats.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
)

var zeroBlock [qcow2.ClusterSize]byte

// isZero reports whether p, of one cluster of qcow2 at most, is zeros.
func isZero(p []byte) bool { return bytes.Equal(p, zeroBlock[:len(p)]) }

func (a *app) vdiskImport() *cobra.Command {
	var vpool, format string
	var cluster, size sizeFlag
	var labels map[string]string
	cmd := a.vdiskVerb("import FILE NAME", "Create a vDisk with the content of a raw or qcow2 image", names("FILE", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			img, err := openImage(args[0], format)
			if err != nil {
				return err
			}
			defer img.close()
			in := client.VDiskInput{Name: args[1], VPool: vpool, ClusterSize: cluster.ptr()}
			if in.Size, err = importSize(args[0], img.size, size.ptr()); err != nil {
				return err
			}
			if len(labels) > 0 {
				in.Labels = new(client.Labels(labels))
			}
			v, err := a.importFrom(ctx, api, content{args[0], img.size, img.each}, in)
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Create a vDisk with the content of an image, on this machine, that is raw or qcow2. Holes and zeros are not sent and\n" +
		"take no space. The vDisk is there, and can be used, once all of it is durable; when the import fails there is none.\n" +
		"A qcow2 image has to be whole and plain: one with a backing file, external data, encryption or internal snapshots is\n" +
		"refused, and so is one that is damaged."
	cmd.Example = "  ovgate vdisk import debian.qcow2 vm1 --vpool fast --size 20GiB"
	f := cmd.Flags()
	f.StringVar(&vpool, "vpool", defaultVPool, "name or id of the vPool")
	f.StringVar(&format, "format", "", "raw or qcow2 (default what the file begins like)")
	f.Var(&size, "size", "size, at least the image's (default that, rounded up to whole clusters of 64KiB)")
	f.Var(&cluster, "cluster-size", "unit of mapping: 4, 8, 16, 32 or 64KiB (default the vPool's)")
	f.StringToStringVar(&labels, "label", nil, "label NAME=VALUE; may be repeated")
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

// importSize is the size of the vDisk for an image.
func importSize(file string, image int64, asked *int64) (int64, error) {
	if asked == nil {
		const whole = 64 << 10 // a multiple of every cluster size
		return (image + whole - 1) / whole * whole, nil
	}
	if *asked < image {
		return 0, usagef("--size %s: %s has a disk of %d bytes, and a smaller vDisk would not hold it", formatSize(*asked), file, image)
	}
	return *asked, nil
}

// image is a file to be imported.
type image struct {
	f    *os.File
	size int64 // of the disk, bytes
	disk *qcow2.Reader
}

func (i *image) close() { i.f.Close() }

func openImage(path, format string) (_ *image, err error) {
	if format != "" && format != formatRaw && format != formatQcow2 {
		return nil, usagef("--format %s: write raw or qcow2", format)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	i := &image{f: f, size: info.Size()}
	switch {
	case info.Mode().IsRegular():
	case info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice: // a disk
		if i.size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s is neither a file nor a disk", path)
	}
	if format == formatQcow2 || format == "" && qcow2.IsImage(f) {
		if i.disk, err = qcow2.NewReader(f, i.size); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		i.size = i.disk.Size()
		return i, nil
	}
	if i.size == 0 || i.size > qcow2.MaxSize {
		return nil, fmt.Errorf("%s has %d bytes; a disk has 1 byte to 64 TiB", path, i.size)
	}
	return i, nil
}

// each calls fn for what the image has beside zeros, in order, in pieces of at most
// rangeBytes that are whole blocks; p is fn's for good. It ends with ctx, also while
// there is nothing but zeros.
func (i *image) each(ctx context.Context, fn func(off int64, p []byte) error) error {
	if i.disk != nil {
		return i.disk.Each(func(off int64, p []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return pieces(off, p, fn)
		})
	}
	buf := make([]byte, rangeBytes)
	for off := int64(0); off < i.size; {
		start, end, err := i.data(off)
		if err != nil {
			return err
		}
		for off = start; off < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(end-off, rangeBytes-off%rangeBytes)]
			n, err := i.f.ReadAt(p, off)
			if n < len(p) {
				return fmt.Errorf("%s became shorter while it was read: %w", i.f.Name(), err)
			}
			if err := pieces(off, p, fn); err != nil {
				return err
			}
			off += int64(len(p))
		}
	}
	return nil
}

// data returns the next part of a raw file that is no hole, in whole blocks.
func (i *image) data(off int64) (start, end int64, err error) {
	start, err = unix.Seek(int(i.f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return i.size, i.size, nil // a hole up to the end
	case err != nil:
		return off, i.size, nil // this file tells nothing about holes
	}
	if end, err = unix.Seek(int(i.f.Fd()), start, unix.SEEK_HOLE); err != nil {
		end = i.size
	}
	start = max(off, start/blockBytes*blockBytes)
	return start, min(i.size, (end+blockBytes-1)/blockBytes*blockBytes), nil
}

// pieces calls fn for the runs of blocks of p that are not zeros, as copies that are
// filled up to whole sectors.
func pieces(off int64, p []byte, fn func(int64, []byte) error) error {
	for at := 0; at < len(p); {
		n := 0
		for at+n < len(p) && !isZero(p[at+n:min(len(p), at+n+blockBytes)]) && n < rangeBytes {
			n = min(n+blockBytes, len(p)-at)
		}
		if n == 0 {
			at += blockBytes
			continue
		}
		b := make([]byte, (n+511)/512*512)
		copy(b, p[at:at+n])
		if err := fn(off+int64(at), b); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// content is what a vDisk is made from.
type content struct {
	name string // of where it comes from
	size int64  // bytes
	each func(ctx context.Context, fn func(off int64, p []byte) error) error
}

// importFrom sends the content of a new vDisk. Whatever goes wrong, none stays.
func (a *app) importFrom(ctx context.Context, api *client.Client, from content, in client.VDiskInput) (v client.VDisk, err error) {
	t, err := client.Get[client.Transfer](api.BeginImport(ctx, &client.BeginImportParams{IdempotencyKey: new(rand.Text())}, in))
	if err != nil {
		return v, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.giveUp(ctx, func(ctx context.Context) error { return client.Done(api.AbortImport(ctx, t.ID)) }))
		}
	}()
	stop := a.keep(ctx, func(ctx context.Context) error { return client.Done(api.GetImport(ctx, t.ID)) })
	defer stop()
	g := newSender(ctx)
	p := a.progress("imported")
	err = from.each(g.ctx, func(off int64, b []byte) error {
		p.show(off, from.size)
		return g.run(func(ctx context.Context) error {
			return client.Done(api.WriteImportWithBody(ctx, t.ID, &client.WriteImportParams{Offset: off}, "application/octet-stream", bytes.NewReader(b)))
		})
	})
	p.end()
	if sent := g.wait(); sent != nil { // then that is why the other one ended, if it did
		return v, sent
	}
	if err != nil {
		return v, fmt.Errorf("%s: %w", from.name, err)
	}
	return client.Get[client.VDisk](api.FinishImport(ctx, t.ID))
}

// keepEvery is how often a transfer is kept from ending while nothing is asked for; it
// ends after five minutes.
const keepEvery = time.Minute

// keep asks for a transfer now and then until stop is called: reading what is all
// zeros may take longer than a transfer lives.
func (a *app) keep(ctx context.Context, ask func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	every := keepEvery
	if a.keepEvery > 0 {
		every = a.keepEvery
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		again := time.NewTicker(every)
		defer again.Stop()
		for {
			select {
			case <-again.C:
				_ = ask(ctx) // if it is over, the next range says so
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// giveUp tells the node that a transfer is over, also when ctx is.
func (a *app) giveUp(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := f(ctx); err != nil {
		return fmt.Errorf("the node could not be told that it is over, and ends it by itself after five minutes: %w", err)
	}
	return nil
}

// sender runs requests side by side and ends with the first that fails.
type sender struct {
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

func newSender(ctx context.Context) *sender {
	g := &sender{slots: make(chan struct{}, transfersAtOnce)}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// run starts f when there is room; its error is that the group has ended.
func (g *sender) run(f func(context.Context) error) error {
	select {
	case g.slots <- struct{}{}:
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
	g.wg.Go(func() {
		defer func() { <-g.slots }()
		if err := f(g.ctx); err != nil {
			g.once.Do(func() { g.err = err })
			g.cancel()
		}
	})
	return g.ctx.Err()
}

// wait returns the first error, when all have ended.
func (g *sender) wait() error {
	g.wg.Wait()
	g.cancel()
	return g.err
}

func (a *app) vdiskExport() *cobra.Command {
	var point pointFlags
	var format string
	cmd := a.vdiskVerb("export NAME FILE", "Write the content of a vDisk to a raw or qcow2 image", names("NAME", "FILE"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if format != formatRaw && format != formatQcow2 {
				return usagef("--format %s: write raw or qcow2", format)
			}
			in := client.ExportInput{}
			var err error
			if in.Snapshot, in.PointAt, err = point.parse(); err != nil {
				return err
			}
			out, err := createImage(args[1])
			if err != nil {
				return err
			}
			defer out.discard()
			data, err := a.exportImage(ctx, api, args[0], in, format, out.f)
			if err != nil {
				return err
			}
			if err := out.finish(); err != nil {
				return err
			}
			return printOne(a, exported{args[0], args[1], format, data}, [][]string{{"vdisk", args[0]}, {"file", args[1]}, {"format", format}, {"data", formatSize(data)}})
		})
	cmd.Long = "Write the content of a vDisk as of a snapshot, a moment, or now to an image on this machine. What the vDisk does not\n" +
		"hold is a hole in the file. Until it is complete the file is beside its name, as .FILE.*.part; a file that is there is\n" +
		"not replaced. The vDisk may be used meanwhile, and what is written then is not in the image."
	cmd.Example = "  ovgate vdisk export db1 db1.qcow2 --format qcow2 --snapshot before-upgrade"
	point.add(cmd)
	cmd.Flags().StringVar(&format, "format", formatRaw, "raw or qcow2")
	return cmd
}

// exported is what an export says with -o json.
type exported struct {
	VDisk  string `json:"vdisk"`
	File   string `json:"file"`
	Format string `json:"format"`
	Data   int64  `json:"data"` // bytes that are not holes
}

// newFile is a file that has its name once it is complete.
type newFile struct {
	f    *os.File
	path string
	done bool
}

func createImage(path string) (*newFile, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, usagef("%s is there already; name another file, or remove it", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return nil, err
	}
	return &newFile{f: f, path: path}, nil
}

// finish makes it durable and gives it its name, unless something else has that.
func (n *newFile) finish() error {
	if err := errors.Join(n.f.Sync(), n.f.Close()); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, n.f.Name(), unix.AT_FDCWD, n.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it
		if err = os.Link(n.f.Name(), n.path); err == nil {
			err = os.Remove(n.f.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("name the image %s: %w", n.path, err)
	}
	n.done = true
	d, err := os.Open(filepath.Dir(n.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discard removes what is not complete.
func (n *newFile) discard() {
	if !n.done {
		n.f.Close()
		os.Remove(n.f.Name())
	}
}

// exportImage writes a point of a vDisk to f and returns the bytes that are no holes.
func (a *app) exportImage(ctx context.Context, api *client.Client, name string, in client.ExportInput, format string, f *os.File) (data int64, err error) {
	t, err := client.Get[client.Transfer](api.BeginExport(ctx, name, &client.BeginExportParams{IdempotencyKey: new(rand.Text())}, in))
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, a.giveUp(ctx, func(ctx context.Context) error { return client.Done(api.EndExport(ctx, t.ID)) }))
	}()
	stop := a.keep(ctx, func(ctx context.Context) error { return client.Done(api.GetExport(ctx, t.ID)) })
	defer stop()
	w, err := newImageWriter(f, format, t.Size)
	if err != nil {
		return 0, err
	}
	p := a.progress("exported")
	defer p.end()
	r := &rangeReader{api: api, id: t.ID, size: t.Size}
	err = r.each(ctx, func(off int64, b []byte) error {
		p.show(off, t.Size)
		return w.write(off, b)
	})
	if err == nil {
		err = w.finish()
	}
	return w.data, err
}

// rangeReader reads an export ahead, in order.
type rangeReader struct {
	api  *client.Client
	id   string
	size int64
}

// fetched is a range that is being read.
type fetched struct {
	off  int64
	data []byte
	err  error
	done chan struct{}
}

// each calls fn for what the export has, in order, in pieces that start at multiples
// of a cluster of qcow2 and have whole ones, but for the end of the disk.
func (r *rangeReader) each(ctx context.Context, fn func(off int64, p []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead := make(chan *fetched, transfersAtOnce)
	last := make(chan error, 1)
	go func() {
		defer close(ahead)
		last <- r.plan(ctx, ahead)
	}()
	for f := range ahead {
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if f.err != nil {
			return f.err
		}
		if err := fn(f.off, f.data); err != nil {
			return err
		}
	}
	return <-last
}

// plan asks where there is data and starts to read it.
func (r *rangeReader) plan(ctx context.Context, ahead chan<- *fetched) error {
	done := int64(0) // up to here is asked for
	for offset := new(int64); offset != nil; {
		l, err := client.Get[client.ExtentList](r.api.GetExtents(ctx, r.id, &client.GetExtentsParams{Offset: *offset}))
		if err != nil {
			return err
		}
		if l.Next != nil && *l.Next <= *offset {
			return fmt.Errorf("the node answered that extents go on at %d after %d", *l.Next, *offset)
		}
		for _, e := range l.Items {
			if e.Offset < *offset || e.Length <= 0 || e.Length > r.size-e.Offset {
				return fmt.Errorf("the node answered an extent of %d bytes at %d", e.Length, e.Offset)
			}
			end := min(r.size, (e.Offset+e.Length+qcow2.ClusterSize-1)/qcow2.ClusterSize*qcow2.ClusterSize)
			for off := max(done, e.Offset/qcow2.ClusterSize*qcow2.ClusterSize); off < end; {
				f := &fetched{off: off, done: make(chan struct{})}
				n := min(end-off, rangeBytes-off%rangeBytes)
				select {
				case ahead <- f:
				case <-ctx.Done():
					return ctx.Err()
				}
				go r.fetch(ctx, f, n)
				off += n
			}
			done = max(done, end)
		}
		offset = l.Next
	}
	return nil
}

// fetch reads one range; it is tried again once, since the whole would be in vain.
func (r *rangeReader) fetch(ctx context.Context, f *fetched, n int64) {
	defer close(f.done)
	for range 2 {
		if f.data, f.err = readRange(r.api.ReadExport(ctx, r.id, &client.ReadExportParams{Offset: f.off, Length: n})); f.err == nil && int64(len(f.data)) != n {
			f.err = fmt.Errorf("the node answered %d bytes at offset %d and was asked for %d", len(f.data), f.off, n)
		}
		if f.err == nil || ctx.Err() != nil {
			return
		}
	}
}

// readRange returns the bytes that a range was answered with.
func readRange(resp *http.Response, err error) ([]byte, error) {
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, client.Done(resp, err)
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, rangeBytes+1))
}

// imageWriter writes pieces of a disk, in order, as an image.
type imageWriter struct {
	f    *os.File
	q    *qcow2.Writer // nil: raw
	data int64         // bytes that are no holes
}

func newImageWriter(f *os.File, format string, size int64) (*imageWriter, error) {
	w := &imageWriter{f: f}
	if format == formatRaw {
		return w, f.Truncate(size)
	}
	var err error
	w.q, err = qcow2.NewWriter(f, size)
	return w, err
}

func (w *imageWriter) write(off int64, p []byte) error {
	unit := qcow2.ClusterSize
	if w.q == nil {
		unit = blockBytes
	}
	for ; len(p) > 0; off, p = off+int64(min(unit, len(p))), p[min(unit, len(p)):] {
		b := p[:min(unit, len(p))]
		if isZero(b) {
			continue
		}
		w.data += int64(len(b))
		var err error
		if w.q != nil {
			err = w.q.WriteCluster(b, off)
		} else {
			_, err = w.f.WriteAt(b, off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *imageWriter) finish() error {
	if w.q == nil {
		return nil
	}
	return w.q.Finish(w.f.Sync)
}
