package control

import (
	"context"
	"sync"
	"time"
)

// Leave tells that Stop follows: nothing new begins, and no vDisk is taken over.
func (c *Controller) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
}

func (c *Controller) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// Stop closes every vDisk (drain, commit, checkpoint) and detaches the vPools.
// The front end must have been shut down. It returns ctx's error when the time
// was not enough; what was acknowledged is in the journal in any case, and left
// there when a backend stores nothing for closePatience.
func (c *Controller) Stop(ctx context.Context) error {
	c.Leave()
	c.cancel()
	c.wg.Wait()
	var wg sync.WaitGroup
	var given sync.Map
	for id, d := range c.diskMap() {
		c.slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-c.slots }()
			if d.lock.acquire(ctx) != nil {
				return
			}
			defer d.lock.release()
			if err := c.closeForStop(ctx, id, d, &given); err != nil {
				c.log.Warn("vDisk not closed orderly; its journal has what was acknowledged", "vdisk", id, "err", err)
			}
		}()
	}
	wg.Wait()
	for id, p := range c.poolMap() {
		if p.lock.acquire(ctx) != nil {
			continue
		}
		if err := c.detach(ctx, p); err != nil {
			c.log.Warn("vPool not detached orderly", "vpool", id, "err", err)
		}
		p.lock.release()
	}
	return ctx.Err()
}

// closePatience is how long the last close of a vDisk waits for a backend that stores nothing: the nodes that have it may
// be stopping, too.
const closePatience = 5 * time.Second

// closeLook is how often that is looked at.
const closeLook = 200 * time.Millisecond

// closeForStop closes a vDisk for the last time; d.lock is held. given has the ids of the vPools whose backends were waited
// for in vain: their other vDisks do not wait again.
func (c *Controller) closeForStop(ctx context.Context, id string, d *vdisk, given *sync.Map) error {
	vol := d.vol
	if vol == nil {
		return nil
	}
	rec, _ := c.model.VDisk(id)
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := c.clock.NewTimer(closeLook)
		defer t.Stop()
		for {
			select {
			case <-closed:
				return
			case <-t.C():
			}
			away := vol.Away()
			if away >= closePatience {
				given.Store(rec.VPool, nil)
			}
			if _, over := given.Load(rec.VPool); over && away > 0 {
				cancel()
				return
			}
			t.Reset(closeLook)
		}
	})
	err := c.closeVolume(ctx, d)
	close(closed)
	wg.Wait()
	cancel()
	return err
}
