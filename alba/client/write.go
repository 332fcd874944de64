package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

// uploadTries bounds how often an object is uploaded from the beginning: with
// other devices, or in another epoch.
const uploadTries = 5

// Change is one step of a sequence: Data is put under Name, or Name is deleted.
type Change struct {
	Name     string
	Data     []byte
	IfAbsent bool
	Delete   bool
}

// Put stores an object, replacing what is there. See C1.
func (c *Client) Put(ctx context.Context, namespace, name string, data []byte) error {
	return c.Apply(ctx, namespace, nil, []Change{{Name: name, Data: data}})
}

// PutIfAbsent stores an object where there is none; nsm.ErrExists.
func (c *Client) PutIfAbsent(ctx context.Context, namespace, name string, data []byte) error {
	return c.Apply(ctx, namespace, nil, []Change{{Name: name, Data: data, IfAbsent: true}})
}

// Delete removes an object; one that is absent is no error.
func (c *Client) Delete(ctx context.Context, namespace, name string) error {
	return c.Apply(ctx, namespace, nil, []Change{{Name: name, Delete: true}})
}

// Apply runs a sequence: what is put is uploaded first, then all changes happen in
// one transaction, if all asserts hold, or none. Up to nsm.MaxChanges.
func (c *Client) Apply(ctx context.Context, namespace string, asserts []nsm.Assert, changes []Change) error {
	sp, err := c.space(ctx, namespace)
	if err != nil {
		return err
	}
	for _, ch := range changes {
		if ch.Name == "" || len(ch.Name) > layout.MaxName { // before anything is uploaded
			return fmt.Errorf("%w: object name of %d bytes, 1 to %d are allowed", nsm.ErrInvalid, len(ch.Name), layout.MaxName)
		}
		if int64(len(ch.Data)) > layout.MaxObjectBytes {
			return fmt.Errorf("object %s: %w: %d bytes, at most %d", ch.Name, ErrTooLarge, len(ch.Data), layout.MaxObjectBytes)
		}
	}
	for try := 1; ; try++ {
		err = c.applyOnce(ctx, sp, asserts, changes)
		again := errors.Is(err, nsm.ErrEpoch) || errors.Is(err, nsm.ErrDevices)
		if !again || try == uploadTries || ctx.Err() != nil {
			break
		}
		if err := c.devices.refresh(ctx); err != nil {
			return err
		}
	}
	for _, ch := range changes {
		// Whatever the outcome, what is remembered may be old.
		c.manifests.drop(sp.rec.ID, ch.Name)
	}
	return c.gone(ctx, namespace, err)
}

// applyOnce uploads and commits.
func (c *Client) applyOnce(ctx context.Context, sp space, asserts []nsm.Assert, changes []Change) error {
	ns, err := sp.host.Namespace(ctx, sp.rec.ID)
	if err != nil {
		return err
	}
	if ns.State == nsm.Recovering {
		return nsm.ErrRecovering
	}
	if ns.State == nsm.Removing {
		return fmt.Errorf("%w: it is %s", nsm.ErrRemoving, ns.State)
	}
	steps := make([]nsm.Change, len(changes))
	var epoch uint64
	var uploaded []*layout.Manifest
	for i, ch := range changes {
		if ch.Delete {
			steps[i].Delete = ch.Name
			continue
		}
		epoch = ns.EpochMax
		m, err := c.upload(ctx, ns, ch.Name, ch.Data)
		if err != nil {
			c.abandon(sp.rec.ID, uploaded)
			return err
		}
		uploaded = append(uploaded, m)
		steps[i] = nsm.Change{Put: m, IfAbsent: ch.IfAbsent}
	}
	err = sp.host.Apply(ctx, sp.rec.ID, epoch, asserts, steps)
	if err != nil {
		if definite(err) {
			c.abandon(sp.rec.ID, uploaded)
		}
		return err
	}
	for _, ch := range changes {
		if ch.Delete {
			c.stats.Deletes.Add(1)
		} else {
			c.stats.Puts.Add(1)
			c.stats.PutBytes.Add(uint64(len(ch.Data)))
		}
	}
	return nil
}

// definite tells whether an error of nsm.Apply says that nothing was committed (C5).
func definite(err error) bool {
	for _, e := range []error{nsm.ErrNoNamespace, nsm.ErrRemoving, nsm.ErrRecovering, nsm.ErrEpoch, nsm.ErrDevices, nsm.ErrExists, nsm.ErrChanged, nsm.ErrAssert, nsm.ErrInvalid} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// abandon deletes the fragments of uploads that were refused, as far as the
// devices answer; collection does the rest. It goes on in the background.
func (c *Client) abandon(ns uint64, uploads []*layout.Manifest) {
	if len(uploads) == 0 {
		return
	}
	c.background(func(ctx context.Context) {
		for _, m := range uploads {
			for i, chunk := range m.Fragments {
				for j, f := range chunk {
					dev := c.Device(f.OSD)
					if f.OSD == 0 || dev == nil {
						continue
					}
					p := m.Place(ns, i, j)
					// An error leaves them to collection.
					_ = dev.Apply(ctx, nil, []osd.Update{osd.Delete(p.FragmentKey()), osd.Delete(p.TagKey(f.Epoch))}, osd.Low)
				}
			}
		}
	})
}

// upload stores the fragments of an object and returns its manifest.
func (c *Client) upload(ctx context.Context, ns nsm.Namespace, name string, data []byte) (*layout.Manifest, error) {
	object, err := c.newObject()
	if err != nil {
		return nil, err
	}
	h := layout.Header{Name: name, Object: object, Size: int64(len(data)), Created: c.o.Clock.Now().UnixMilli(), Compression: ns.Preset.Compression.Compression}
	var key *fragment.Key
	if ns.Preset.KeyID != "" {
		if key, err = c.keyByID(ns.Preset.KeyID); err != nil {
			return nil, err
		}
		h.Key = key.ID()
	}
	if len(data) == 0 {
		data = []byte{0} // see layout.Header.Chunks
	}
	without := map[uint32]bool{}
	for looked := false; ; {
		u := &upload{c: c, ns: ns, h: h, key: key}
		m, failed, err := u.run(ctx, data, without)
		if err == nil {
			c.count(ns.Preset, m)
			return m, nil
		}
		// Others may have claimed devices since they were read.
		if errors.Is(err, ErrNoPolicy) && !errors.Is(err, osd.ErrFull) && !looked {
			looked = true
			if c.devices.refresh(ctx) == nil {
				continue
			}
		}
		// Fewer than c: once more, by another policy if need be, without the
		// devices that failed. Each round takes some out, so it ends.
		if len(failed) == 0 || ctx.Err() != nil || definite(err) {
			return nil, fmt.Errorf("namespace %s: object %s: %w", ns.Name, name, err)
		}
		for n := range failed {
			without[n] = true
		}
		if m != nil {
			c.abandon(ns.ID, []*layout.Manifest{m})
		}
		if h.Object, err = c.newObject(); err != nil {
			return nil, err
		}
	}
}

func (c *Client) count(p preset.Preset, m *layout.Manifest) {
	if m.Missing() > 0 {
		c.stats.Incomplete.Add(1)
	}
	if p.Rank(m.Policy) > 0 {
		c.stats.Fallback.Add(1)
	}
}

// upload is one attempt to store an object with one policy.
type upload struct {
	c      *Client
	ns     nsm.Namespace
	h      layout.Header
	key    *fragment.Key
	size   fragment.PieceSize
	places []candidate // of fragment i; shorter than k+m when there is no room
	spares []candidate
}

// run stores all chunks. On an error it returns what was stored all the same, and
// the devices that failed.
func (u *upload) run(ctx context.Context, data []byte, without map[uint32]bool) (*layout.Manifest, map[uint32]bool, error) {
	all := u.c.candidates(u.ns.Preset, without)
	policy, n, err := u.ns.Preset.Choose(perGroup(all))
	if err != nil {
		if full := u.c.full(); full > 0 {
			err = fmt.Errorf("%w; %d devices: %w", err, full, osd.ErrFull)
		}
		return nil, nil, err
	}
	code, err := fragment.NewCode(policy.K, policy.M)
	if err != nil {
		return nil, nil, err
	}
	u.h.Policy = policy
	wanted, err := u.ns.Preset.PieceSize()
	if err != nil {
		return nil, nil, err
	}
	u.h.ChunkBytes = min(policy.K*u.ns.Preset.FragmentBytes, max(len(data), 1))
	u.size = u.h.PieceSize(wanted)
	u.places = place(all, n, policy.X, newTally(), u.c.random)
	u.spares = remove(all, u.places)
	m := &layout.Manifest{Fragments: make([][]layout.Fragment, u.h.Chunks())}
	failed := map[uint32]bool{}
	for i := range m.Fragments {
		m.Fragments[i] = make([]layout.Fragment, policy.N())
	}
	// The checksum goes with each fragment: that of several chunks is needed before
	// the first, that of one comes with its parity.
	if len(m.Fragments) > 1 {
		u.h.CRC = osd.CRC(data)
	}
	for i := range m.Fragments {
		from := i * u.h.ChunkBytes
		chunk := data[from : from+u.h.ChunkLen(i)]
		err := u.chunk(ctx, code, i, chunk, m.Fragments[i], failed)
		m.Header = u.h
		if err != nil {
			return m, failed, err
		}
	}
	return m, failed, nil
}

func remove(all, used []candidate) []candidate {
	var out []candidate
	for _, c := range all {
		found := false
		for _, u := range used {
			found = found || u.number == c.number
		}
		if !found {
			out = append(out, c)
		}
	}
	return out
}

// sent is the outcome of one fragment.
type sent struct {
	index int
	frag  layout.Fragment
	err   error
}

// chunk stores the fragments of one chunk: returns when all are there, or c and the
// slack is over. It waits for what it began, so that the buffers are free.
func (u *upload) chunk(ctx context.Context, code *fragment.Code, number int, chunk []byte, into []layout.Fragment, failed map[uint32]bool) error {
	stripe, err := code.Split(chunk, u.size)
	if err != nil {
		return err
	}
	defer stripe.Release()
	if u.h.Size == int64(len(chunk)) {
		u.h.CRC = stripe.CRC()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := u.c.o.Clock.Now()
	s := &spread{u: u, number: number, failed: failed, spares: u.spares, on: newTally()}
	for _, p := range u.places {
		s.on.add(p, 1)
	}
	results := make(chan sent, len(u.places))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	pack := s.packer(stripe)
	for i, p := range u.places {
		wg.Go(func() { results <- s.send(ctx, i, p, pack) })
	}
	stored := 0
	var slack <-chan time.Time
	var last error
	for range u.places {
		select {
		case r := <-results:
			if r.err != nil {
				last = r.err
				continue
			}
			into[r.index] = r.frag
			if stored++; stored >= u.h.Policy.C && slack == nil {
				timer := u.c.o.Clock.NewTimer(max(minSlack, time.Duration(float64(u.c.o.Clock.Now().Sub(start))*u.c.o.Slack)))
				defer timer.Stop()
				slack = timer.C()
			}
		case <-slack:
			return nil
		}
	}
	if stored < u.h.Policy.C {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%d of %d fragments stored, %d needed: %w", stored, u.h.Policy.N(), u.h.Policy.C, last)
	}
	return nil
}

// packed is a fragment ready to be stored.
type packed struct {
	stored []byte
	index  fragment.Index
	tag    []byte
}

// spread stores the fragments of a chunk, with spare devices for those that fail.
type spread struct {
	u      *upload
	number int

	mu     sync.Mutex
	failed map[uint32]bool
	spares []candidate
	on     tally // fragments that are there or on their way
}

// packer returns a function that packs fragment i; the copies of a code with one
// data fragment are packed once.
func (s *spread) packer(stripe *fragment.Stripe) func(i int) (packed, error) {
	one := func(i int) (packed, error) {
		place := layout.Place{Namespace: s.u.ns.ID, Object: s.u.h.Object, Chunk: uint32(s.number), Index: uint8(i)}
		stored, index, err := stripe.Pack(nil, place.FragmentID(s.u.h.Policy.K), i, s.u.h.Compression, s.u.key)
		if err != nil {
			return packed{}, err
		}
		tag, err := layout.EncodeRecovery(s.u.h, index)
		return packed{stored, index, tag}, err
	}
	if s.u.h.Policy.K > 1 {
		return one
	}
	first := sync.OnceValues(func() (packed, error) { return one(0) })
	return func(int) (packed, error) { return first() }
}

// send stores fragment i on its place, or on a spare when that fails.
func (s *spread) send(ctx context.Context, i int, at candidate, pack func(int) (packed, error)) sent {
	p, err := pack(i)
	if err != nil {
		return sent{index: i, err: err}
	}
	for {
		err := s.u.c.store(ctx, s.u.ns, at.number, s.u.h.Object, s.number, i, 0, s.u.ns.EpochMax, p)
		if err == nil {
			return sent{index: i, frag: layout.Fragment{OSD: at.number, Epoch: s.u.ns.EpochMax, Index: p.index}}
		}
		if ctx.Err() != nil {
			return sent{index: i, err: err}
		}
		var ok bool
		if at, ok = s.spare(at); !ok {
			return sent{index: i, err: err}
		}
	}
}

// spare takes a device for a fragment whose device failed, within x.
func (s *spread) spare(was candidate) (candidate, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed[was.number] = true
	s.on.add(was, -1)
	got := place(s.spares, 1, s.u.h.Policy.X, s.on, s.u.c.random)
	if len(got) == 0 {
		return candidate{}, false
	}
	s.on.add(got[0], 1)
	s.spares = remove(s.spares, got)
	return got[0], true
}

// store writes one fragment with its tag (layout M3).
func (c *Client) store(ctx context.Context, ns nsm.Namespace, number uint32, object layout.Object, chunk, index int, version uint32, epoch uint64, p packed) error {
	dev := c.devices.view.Load().byNumber[number]
	if dev == nil || dev.osd == nil {
		return fmt.Errorf("device %d is not there", number)
	}
	link, err := linkOf(ns).Encode()
	if err != nil {
		return err
	}
	place := layout.Place{Namespace: ns.ID, Object: object, Chunk: uint32(chunk), Index: uint8(index), Version: version}
	asserts := []osd.Assert{{Key: layout.NamespaceKey(ns.ID), Value: link}}
	updates := []osd.Update{
		{Key: place.FragmentKey(), Value: p.stored, CRC: p.index.CRC()},
		osd.Set(place.TagKey(epoch), p.tag),
	}
	use, err := dev.inUse()
	if err != nil {
		return fmt.Errorf("device %d: %w", number, err)
	}
	for try := 0; ; try++ {
		call, cancel := WithTimeout(ctx, c.o.Clock, c.o.Timeout)
		stop := context.AfterFunc(use, cancel)
		err = dev.osd.Apply(call, asserts, updates, osd.High)
		stop()
		cancel()
		if !errors.Is(err, osd.ErrAssert) || try == linkTries {
			break
		}
		if asserts[0].Value, err = c.link(ctx, dev, ns, epoch); err != nil {
			break
		}
	}
	if why := context.Cause(use); err != nil && why != nil { // it failed others, or is suspected
		return fmt.Errorf("device %d: %w", number, why)
	}
	c.blame(ctx, dev, err)
	if err != nil {
		return fmt.Errorf("device %d: %w", number, err)
	}
	return nil
}

// linkTries bounds how often a fragment is stored anew because the namespace's key on
// the device was another: collection raises it once in a grace time.
const linkTries = 3

func linkOf(ns nsm.Namespace) layout.Link {
	return layout.Link{ID: ns.ID, Name: ns.Name, Preset: ns.Preset.Name, EpochMin: ns.EpochMin}
}

// link makes a device know a namespace as its host has it now, and returns the value
// of its key. A namespace that is being removed does not come back, an epoch that is
// closed is not written in (M3).
func (c *Client) link(ctx context.Context, dev *device, ns nsm.Namespace, epoch uint64) ([]byte, error) {
	sp, err := c.space(ctx, ns.Name)
	if err != nil {
		return nil, err
	}
	now, err := sp.host.Namespace(ctx, ns.ID)
	if err != nil {
		return nil, err
	}
	if now.State == nsm.Removing {
		return nil, fmt.Errorf("namespace %s: %w", ns.Name, nsm.ErrRemoving)
	}
	if !now.Valid(epoch) {
		return nil, fmt.Errorf("namespace %s: %w: epoch %d", ns.Name, nsm.ErrEpoch, epoch)
	}
	ctx, cancel := WithTimeout(ctx, c.o.Clock, c.o.Timeout)
	defer cancel()
	return RaiseLink(ctx, dev.osd, linkOf(now), true)
}

// RaiseLink sets a namespace's key on a device, unless it has the value or a later
// epoch already, and returns what is there now. Where there is none it is made only
// with create; nil is returned otherwise. nsm.ErrRemoving: the device is dropping
// the namespace.
func RaiseLink(ctx context.Context, o osd.OSD, want layout.Link, create bool) ([]byte, error) {
	for {
		b, err := raiseLink(ctx, o, want, create)
		// Others raise it at the same time, by one step each: it settles.
		if !errors.Is(err, osd.ErrAssert) || ctx.Err() != nil {
			return b, err
		}
	}
}

func raiseLink(ctx context.Context, o osd.OSD, want layout.Link, create bool) ([]byte, error) {
	key := layout.NamespaceKey(want.ID)
	v, err := o.Get(ctx, [][]byte{key}, osd.MaxAssertBytes, osd.High)
	if errors.Is(err, osd.ErrCorrupt) {
		// Nobody can write by it any more. As if it had never been there, so that the
		// host's word counts.
		v, err = make([]osd.Value, 1), o.Apply(ctx, nil, []osd.Update{osd.Delete(key)}, osd.High)
	}
	if err != nil {
		return nil, err
	}
	was := v[0].Data
	if was == nil && !create {
		return nil, nil
	}
	if was != nil {
		have, err := layout.DecodeLink(was)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w: %w", want.Name, nsm.ErrRemoving, err)
		}
		if have.EpochMin >= want.EpochMin {
			return was, nil
		}
	}
	b, err := want.Encode()
	if err != nil {
		return nil, err
	}
	return b, o.Apply(ctx, []osd.Assert{{Key: key, Value: was}}, []osd.Update{osd.Set(key, b)}, osd.High)
}
