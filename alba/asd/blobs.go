package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"sync"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	// containerBytes is the size of a container file: some values of the largest
	// size fit, a terabyte needs 4096 open files, and giving one back to the
	// file system is worth while.
	containerBytes = 256 << 20
	containerPages = containerBytes / pageSize
	// growBytes is the step in which a container grows. A write beyond the end
	// of a file holds up the others of that file.
	growBytes = 16 << 20
	// containersMax bounds container numbers: 256 TiB.
	containersMax = 1 << 20
	// firstContainer stays when it is empty.
	firstContainer = 1
)

// containerDigits is the length of a container's name.
const containerDigits = 8

func containerPath(file uint32) string { return fmt.Sprintf("%s/%0*d", blobDir, containerDigits, file) }

// parseContainer is the inverse of containerPath's last part.
func parseContainer(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil || len(name) != containerDigits || n < firstContainer || n > containersMax {
		return 0, false
	}
	return uint32(n), true
}

// blobs are the container files and their free space.
type blobs struct {
	fs blockfs.FS

	mu    sync.Mutex
	files map[uint32]*container
	order ranking
	used  int64 // bytes of extents handed out
	high  int64 // bytes below the high marks: what the file system has given
	// inline is what Applies under way will add to the index, in bytes.
	inline int64
}

// container is one file. The fields besides f are guarded by blobs.mu.
type container struct {
	f    blockfs.File
	free freeRuns
	high uint32 // no page from here on was ever written
	size int64  // of the file, as far as it was grown
}

// openBlobs opens the container files; the extents in use are claimed next.
func openBlobs(fsys blockfs.FS) (_ *blobs, err error) {
	b := &blobs{fs: fsys, files: map[uint32]*container{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	infos, err := fsys.List(blobDir)
	if err != nil {
		return nil, err
	}
	for _, e := range infos {
		file, ok := parseContainer(e.Name)
		if !ok || e.Dir {
			return nil, fmt.Errorf("%s/%s is no container of an ASD: move it elsewhere", blobDir, e.Name)
		}
		f, err := fsys.Open(containerPath(file), containerFlags)
		if err != nil {
			return nil, err
		}
		b.files[file] = &container{f: f, free: allFree(), size: e.Size}
	}
	return b, nil
}

const containerFlags = blockfs.Write | blockfs.Direct | blockfs.DSync

// claim marks an extent as in use, while the device is opened.
func (b *blobs) claim(e extent) error {
	c := b.files[e.file]
	if c == nil {
		return fmt.Errorf("%s is missing: restore it, or replace the device", containerPath(e.file))
	}
	if !c.free.claim(e.page, e.pages) {
		return fmt.Errorf("%w: %v overlaps another", errEntry, e)
	}
	b.used += e.bytes()
	return nil
}

// settle gives back what no extent needs, once all are claimed: empty containers
// and the ends of others. None of that must be durable; the next settle finds it
// again.
func (b *blobs) settle() error {
	for file, c := range b.files {
		tail := c.free.tail()
		if tail == 0 && file != firstContainer {
			if err := b.remove(file, c); err != nil {
				return err
			}
			continue
		}
		if end := int64(tail) * pageSize; c.size > end {
			if err := c.f.Truncate(end); err != nil {
				return err
			}
			c.size = end
		}
		c.high = tail
		b.high += int64(tail) * pageSize
		b.order.move(file, 0, c.free.max)
	}
	return nil
}

// remove deletes an empty container.
func (b *blobs) remove(file uint32, c *container) error {
	delete(b.files, file)
	return errors.Join(c.f.Close(), b.fs.Remove(containerPath(file)))
}

// take hands out an extent; mu is held. After an error nothing is taken.
func (b *blobs) take(pages uint32) (extent, error) {
	file, ok := b.order.fit(pages)
	if !ok {
		var err error
		if file, err = b.create(); err != nil {
			return extent{}, err
		}
	}
	c := b.files[file]
	was := c.free.max
	e := extent{file: file, page: c.free.take(pages), pages: pages}
	b.order.move(file, was, c.free.max)
	b.used += e.bytes()
	if end := e.page + pages; end > c.high {
		b.high += int64(end-c.high) * pageSize
		c.high = end
	}
	if err := c.grow(e.offset() + e.bytes()); err != nil {
		return extent{}, errors.Join(err, b.give(e))
	}
	return e, nil
}

// grow makes the file reach to end at least, in steps. The new part is a hole. It
// need not be durable: a durable write beyond the end sets the size itself.
func (c *container) grow(end int64) error {
	if end <= c.size {
		return nil
	}
	size := min(containerBytes, (end+growBytes-1)/growBytes*growBytes)
	if err := c.f.Truncate(size); err != nil {
		return err
	}
	c.size = size
	return nil
}

// create makes a container with the lowest free number, durably: an index entry
// may name it next.
func (b *blobs) create() (uint32, error) {
	file := uint32(firstContainer)
	for b.files[file] != nil {
		file++
	}
	if file > containersMax {
		return 0, fmt.Errorf("there are %d containers: %w", containersMax, errNoSpace)
	}
	// One that could not be removed holds nothing.
	if err := b.fs.Remove(containerPath(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	f, err := b.fs.Open(containerPath(file), containerFlags|blockfs.Create|blockfs.Excl)
	if err != nil {
		return 0, err
	}
	if err := b.fs.SyncDir(blobDir); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	b.files[file] = &container{f: f, free: allFree()}
	b.order.move(file, 0, containerPages)
	return file, nil
}

// give takes an extent back; mu is held.
func (b *blobs) give(e extent) error {
	c := b.files[e.file]
	was := c.free.max
	c.free.give(e.page, e.pages)
	b.used -= e.bytes()
	if c.free.free < containerPages || e.file == firstContainer {
		b.order.move(e.file, was, c.free.max)
		return nil
	}
	b.order.move(e.file, was, 0)
	b.high -= int64(c.high) * pageSize
	return b.remove(e.file, c)
}

// release takes extents back.
func (b *blobs) release(extents []extent) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, e := range extents {
		errs = append(errs, b.give(e))
	}
	return errors.Join(errs...)
}

// file returns the open container of an extent that is in use, which keeps it
// open.
func (b *blobs) file(e extent) (blockfs.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.files[e.file]
	if c == nil {
		return nil, fmt.Errorf("%s is missing", containerPath(e.file))
	}
	return c.f, nil
}

// usage returns the bytes of extents, and of holes between them that the file
// system has given already.
func (b *blobs) usage() (used, holes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.high - b.used
}

// close closes the files.
func (b *blobs) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, file := range slices.Sorted(func(yield func(uint32) bool) {
		for file := range b.files {
			if !yield(file) {
				return
			}
		}
	}) {
		errs = append(errs, b.files[file].f.Close())
	}
	clear(b.files)
	return errors.Join(errs...)
}
