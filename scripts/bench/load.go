package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// blockSize is what a row moves per operation unless it says otherwise, in bytes.
const blockSize = 4096

// disk is one side of a comparison. Calls are concurrent.
type disk interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
}

// work is one measured step.
type work struct {
	name     string
	write    bool
	depth    int   // commands in flight
	minBytes int64 // goes on beyond the step's time until this much moved
	block    int   // bytes of a command; 0: blockSize
	inOrder  bool  // one block after the other, round and round; else random
	// content makes something else of the noise that is written, once.
	content func(p []byte, rng *rand.Rand)
}

func (w work) bytes() int { return cmp.Or(w.block, blockSize) }

// maxStretch bounds a step that has to reach minBytes, as a multiple of the
// step's time, so that a slow side cannot stretch the bench without end.
const maxStretch = 6

// run does operations within size bytes of d and returns the rate
// in operations per second, and their number.
func (w work) run(d disk, size int64, seconds float64, seed uint64) (float64, int64, error) {
	step := time.Duration(seconds * float64(time.Second))
	var ops, next atomic.Int64
	var stop atomic.Bool
	errs := make([]error, w.depth)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range w.depth {
		wg.Go(func() {
			errs[i] = w.worker(d, size, rand.New(rand.NewPCG(seed, uint64(i))), &stop, &ops, &next)
			if errs[i] != nil {
				stop.Store(true)
			}
		})
	}
	for !stop.Load() {
		time.Sleep(step / 50) // the bench's own clock, not a wait for anything
		elapsed := time.Since(start)
		if elapsed >= step && ops.Load()*int64(w.bytes()) >= w.minBytes || elapsed >= maxStretch*step {
			break
		}
	}
	n := ops.Load()
	rate := float64(n) / time.Since(start).Seconds()
	stop.Store(true)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", w.name, err)
	}
	return rate, n, nil
}

// worker keeps one command in flight. What it writes differs block by block, so
// that nothing can be left out or stored once.
func (w work) worker(d disk, size int64, rng *rand.Rand, stop *atomic.Bool, ops, next *atomic.Int64) error {
	n := int64(w.bytes())
	buf := alignedNoise(int(n), rng)
	if w.content != nil {
		w.content(buf, rng)
	}
	for !stop.Load() {
		off := rng.Int64N(size/n) * n
		if w.inOrder {
			off = (next.Add(1) - 1) % (size / n) * n
		}
		var err error
		if w.write {
			for b := 0; b < len(buf); b += blockSize {
				binary.LittleEndian.PutUint64(buf[b:], rng.Uint64())
			}
			_, err = d.WriteAt(buf, off)
		} else {
			_, err = d.ReadAt(buf, off)
		}
		if err != nil {
			return err
		}
		ops.Add(1)
	}
	return nil
}

// fill writes all of a disk once, in order.
func fill(d disk, size int64) error {
	const piece, depth = 256 << 10, 8
	var next atomic.Int64
	errs := make([]error, depth)
	var wg sync.WaitGroup
	for i := range depth {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			buf := alignedNoise(piece, rng)
			for {
				off := next.Add(piece) - piece
				if off >= size {
					return
				}
				for b := 0; b < piece; b += blockSize {
					binary.LittleEndian.PutUint64(buf[b:], rng.Uint64())
				}
				if _, err := d.WriteAt(buf[:min(piece, size-off)], off); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
