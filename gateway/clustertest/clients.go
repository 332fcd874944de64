package clustertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/lineartest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const (
	// BlockBytes is what a client reads or writes at a time.
	BlockBytes = 4096
	// answerWait is how long a client waits for an answer, before it drops its session and
	// looks where the vDisk is served.
	answerWait = 3 * time.Second
	// clientPause is between the operations of a client: histories of many operations take
	// long to check, and what happens to the nodes takes seconds.
	clientPause = 2 * time.Millisecond
	// dialPause is between attempts to log in.
	dialPause = 20 * time.Millisecond
	// searchMost bounds the check of a history, which takes milliseconds.
	searchMost = time.Minute
)

// Clients read and write the same few blocks of a vDisk, each over a session of its own. An
// operation without an answer may have been carried out, or may be at any later time; its client
// goes on with another one, wherever the vDisk is served by then.
type Clients struct {
	// Dial logs in where the vDisk is served now; an error is tried again.
	Dial func(ctx context.Context) (*initiator.Session, error)
	// Count is how many clients there are, Blocks how many blocks they share, of BlockBytes.
	Count, Blocks int
	// First is the first block: nobody has written what follows.
	First uint64
	Seed  uint64

	history lineartest.History
	value   atomic.Uint64 // of the newest write
	writes  atomic.Int64  // answered
	reads   atomic.Int64
	lost    atomic.Int64 // without an answer
	end     context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	err     error // the first torn block
}

// Start has the clients work until Stop.
func (c *Clients) Start(ctx context.Context) {
	ctx, c.end = context.WithCancel(ctx)
	for i := range c.Count {
		r := rand.New(rand.NewPCG(c.Seed, uint64(i)))
		c.wg.Go(func() { c.run(ctx, r) })
	}
}

// Answered is how many reads and writes were answered.
func (c *Clients) Answered() int64 { return c.writes.Load() + c.reads.Load() }

// Stop ends the clients, reads every block once more, and checks what all of them heard.
func (c *Clients) Stop(ctx context.Context) error {
	c.end()
	c.wg.Wait()
	s, err := c.Dial(ctx)
	if err != nil {
		return fmt.Errorf("after all: %w", err)
	}
	defer s.Close()
	for b := range c.Blocks {
		if err := c.read(ctx, s, uint64(b)); err != nil {
			return fmt.Errorf("after all, block %d: %w", b, err)
		}
	}
	c.mu.Lock()
	err = c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.history.Check(searchMost)
}

// String tells what was done.
func (c *Clients) String() string {
	return fmt.Sprintf("%d writes and %d reads answered, %d operations without an answer", c.writes.Load(), c.reads.Load(), c.lost.Load())
}

func (c *Clients) run(ctx context.Context, r *rand.Rand) {
	var s *initiator.Session
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		if s == nil {
			var err error
			if s, err = c.Dial(ctx); err != nil {
				s = nil
				pause.Reset(dialPause)
				continue
			}
		}
		do := c.read
		if r.IntN(2) == 0 {
			do = c.write
		}
		// It does not end with ctx: the end of the test is no reason to have no answer.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWait)
		err := do(one, s, uint64(r.IntN(c.Blocks)))
		cancel()
		if err != nil {
			c.lost.Add(1)
			s.Close()
			s = nil
		}
		pause.Reset(clientPause)
	}
}

// lba is where a block is, in units of initiator.BlockSize.
func (c *Clients) lba(b uint64) uint64 { return (c.First + b) * (BlockBytes / initiator.BlockSize) }

func content(v uint64) []byte {
	p := make([]byte, BlockBytes)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], v)
	}
	return p
}

func (c *Clients) write(ctx context.Context, s *initiator.Session, b uint64) error {
	v := c.value.Add(1)
	o := c.history.Write(b, v)
	if err := s.WriteAt(ctx, 0, content(v), c.lba(b)); err != nil {
		return err
	}
	o.Done()
	c.writes.Add(1)
	return nil
}

func (c *Clients) read(ctx context.Context, s *initiator.Session, b uint64) error {
	p := make([]byte, BlockBytes)
	o := c.history.Read(b)
	if err := s.ReadAt(ctx, 0, p, c.lba(b)); err != nil {
		return err
	}
	v := binary.LittleEndian.Uint64(p)
	if !bytes.Equal(p, content(v)) {
		c.mu.Lock()
		if c.err == nil {
			c.err = fmt.Errorf("block %d is torn: %x", b, p[:64])
		}
		c.mu.Unlock()
	}
	o.Saw(v)
	c.reads.Add(1)
	return nil
}

// Probe is a read and a write that are sent over a session and not waited for.
type Probe struct{ done chan struct{} }

// Probe sends a write and reads of every block over a session, whoever serves it: what is
// answered has to fit what all other clients hear.
func (c *Clients) Probe(s *initiator.Session) (*Probe, error) {
	p := &Probe{done: make(chan struct{})}
	var left atomic.Int64
	left.Store(int64(2 * c.Blocks))
	end := func() {
		if left.Add(-1) == 0 {
			close(p.done)
		}
	}
	for b := range uint64(c.Blocks) {
		v := c.value.Add(1)
		w, r := c.history.Write(b, v), c.history.Read(b)
		in := make([]byte, BlockBytes)
		cmds := []*initiator.Command{
			{CDB: initiator.ReadCDB(c.lba(b), BlockBytes/initiator.BlockSize), In: in, Done: func(cmd *initiator.Command) {
				if cmd.Err == nil {
					r.Saw(binary.LittleEndian.Uint64(in))
					c.reads.Add(1)
				}
				end()
			}},
			{CDB: initiator.WriteCDB(c.lba(b), BlockBytes/initiator.BlockSize, false), Out: content(v), Done: func(cmd *initiator.Command) {
				if cmd.Err == nil {
					w.Done()
					c.writes.Add(1)
				}
				end()
			}},
		}
		for _, cmd := range cmds {
			if err := s.Submit(cmd); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// Done is closed when everything was answered, or its session ended.
func (p *Probe) Done() <-chan struct{} { return p.done }
