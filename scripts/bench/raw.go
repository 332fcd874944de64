package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	// rawSize is the file of random raw I/O; larger than a disk's own cache.
	rawSize = 1 << 30
	// appendSize is the file of synchronous appends, written round and round.
	appendSize = 256 << 20
)

// raw is the disk below everything: preallocated, pre-written files opened
// O_DIRECT, so that a write changes no metadata and no page cache helps.
type raw struct {
	random *os.File
	sync   *os.File // O_DSYNC too
	at     int64    // where the next append goes
}

func openRaw(dir string) (*raw, error) {
	random, err := prewritten(filepath.Join(dir, "raw.random"), rawSize, 0)
	if err != nil {
		return nil, err
	}
	sync, err := prewritten(filepath.Join(dir, "raw.append"), appendSize, syscall.O_DSYNC)
	if err != nil {
		return nil, errors.Join(err, random.Close())
	}
	return &raw{random: random, sync: sync}, nil
}

// prewritten makes a file of noise and opens it for direct I/O.
func prewritten(path string, size int64, flags int) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fill(f, size), f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	f, err = os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: the bench needs a file system that takes O_DIRECT; choose one with -dir", err)
	}
	return f, nil
}

func (r *raw) close() error { return errors.Join(r.random.Close(), r.sync.Close()) }

// appender is the raw disk as R measures it: each write durable, in order.
type appender struct{ r *raw }

// WriteAt appends; the offset of the load is not used. Only for depth 1.
func (a appender) WriteAt(p []byte, _ int64) (int, error) {
	n, err := a.r.sync.WriteAt(p, a.r.at)
	a.r.at = (a.r.at + int64(len(p))) % appendSize
	return n, err
}

func (a appender) ReadAt(p []byte, off int64) (int, error) { return a.r.sync.ReadAt(p, off) }

// alignedNoise returns n random bytes that direct I/O takes.
func alignedNoise(n int, rng *rand.Rand) []byte {
	b := blockfs.AlignedBuffer(n)
	i := 0
	for ; i+8 <= n; i += 8 { // byte by byte it takes a step's time from the sides
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	for ; i < n; i++ {
		b[i] = byte(rng.Uint32())
	}
	return b
}
