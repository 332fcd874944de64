package osdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/alba/osd"
)

// ErrDown is what every call of a Mem fails with that SetDown took away: the
// device cannot be reached.
var ErrDown = errors.New("osdtest: device is down")

// memCapacity is the capacity of a Mem on which SetCapacity was not called: no
// test reaches it.
const memCapacity = 1 << 40

// Mem is a device in memory with switches that make it misbehave. Safe for
// concurrent use.
type Mem struct {
	id, run string

	mu      sync.RWMutex
	values  map[string]memValue
	used    int64 // bytes of keys and values
	applies uint64
	stats   osd.Stats
	closed  bool

	down, full bool
	capacity   int64
	hook       func(op string, key []byte) error
}

var _ osd.OSD = (*Mem)(nil)

// memValue is a stored value; its slices are never changed.
type memValue struct {
	data   []byte
	crc    uint32
	blocks []uint32 // CRC of each osd.Block bytes
}

// NewMem returns an empty device with an identity.
func NewMem(id string) *Mem {
	return &Mem{id: id, run: newRun(), values: map[string]memValue{}, capacity: memCapacity}
}

func newRun() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// SetDown makes every call fail with ErrDown, or lets them through again.
func (m *Mem) SetDown(down bool) { m.set(func() { m.down = down }) }

// SetFull makes the device refuse sets with ErrFull whatever it holds.
func (m *Mem) SetFull(full bool) { m.set(func() { m.full = full }) }

// SetCapacity sets the bytes of keys and values from which sets are refused.
func (m *Mem) SetCapacity(bytes int64) { m.set(func() { m.capacity = bytes }) }

// SetHook has fn called before each operation, without locks: op is "info",
// "stats", "get", "read", "apply", "list" or "validate", and key the first key or
// the prefix. fn may block; an operation whose ctx ends does not wait for it. An
// error is what the operation returns, without effect. After an Apply has had
// its effect fn is called once more with "applied": an error then is an answer
// that was lost. nil removes the hook.
func (m *Mem) SetHook(fn func(op string, key []byte) error) { m.set(func() { m.hook = fn }) }

func (m *Mem) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// Corrupt flips one bit of the stored value of key at offset, and tells whether
// there was such a byte: what reads that block gets ErrCorrupt from now on.
func (m *Mem) Corrupt(key []byte, offset int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[string(key)]
	if !ok || offset < 0 || offset >= int64(len(v.data)) {
		return false
	}
	v.data = bytes.Clone(v.data)
	v.data[offset] ^= 1
	m.values[string(key)] = v
	return true
}

// Drop removes a key behind the device's back: Applies does not grow. It tells
// whether the key was there.
func (m *Mem) Drop(key []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.values[string(key)]
	m.remove(string(key))
	return ok
}

// Wipe removes everything, the count of Applies included, and keeps the identity:
// a device whose disk was emptied.
func (m *Mem) Wipe() {
	m.set(func() { m.values, m.used, m.applies = map[string]memValue{}, 0, 0 })
}

// Snapshot returns an independent copy of what the device holds, with the same
// identity and count of Applies, and no fault set: an older copy of itself once
// the device goes on.
func (m *Mem) Snapshot() *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := NewMem(m.id)
	s.values, s.used, s.applies, s.capacity = maps.Clone(m.values), m.used, m.applies, m.capacity
	return s
}

// Len returns how many keys there are.
func (m *Mem) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.values)
}

// Keys returns all keys in order.
func (m *Mem) Keys() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.values))
}

// start does what comes before every operation.
func (m *Mem) start(ctx context.Context, op string, key []byte) error {
	if err := ctx.Err(); err != nil {
		return m.wrap(err)
	}
	m.mu.RLock()
	hook, down, closed := m.hook, m.down, m.closed
	m.mu.RUnlock()
	switch {
	case closed:
		return m.wrap(osd.ErrClosed)
	case down:
		return m.wrap(ErrDown)
	case hook == nil:
		return nil
	}
	return m.callHook(ctx, hook, op, key)
}

// callHook waits for the hook or for the end of ctx (D7).
func (m *Mem) callHook(ctx context.Context, hook func(string, []byte) error, op string, key []byte) error {
	done := make(chan error, 1)
	key = bytes.Clone(key)
	go func() { done <- hook(op, key) }()
	select {
	case err := <-done:
		return m.wrap(err)
	case <-ctx.Done():
		return m.wrap(ctx.Err())
	}
}

func (m *Mem) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("osd %s: %w", m.id, err)
}

func first(keys [][]byte) []byte {
	if len(keys) == 0 {
		return nil
	}
	return keys[0]
}

// Info implements osd.OSD.
func (m *Mem) Info(ctx context.Context) (osd.Info, error) {
	if err := m.start(ctx, "info", nil); err != nil {
		return osd.Info{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return osd.Info{
		ID: m.id, Run: m.run, Applies: m.applies,
		Total: m.capacity, Used: m.used, Limit: m.capacity, Free: max(0, m.capacity-m.used),
		Full: m.full || m.used >= m.capacity, Version: "osdtest",
	}, nil
}

// Stats implements osd.OSD.
func (m *Mem) Stats(ctx context.Context) (osd.Stats, error) {
	if err := m.start(ctx, "stats", nil); err != nil {
		return osd.Stats{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stats, nil
}

// Get implements osd.OSD.
func (m *Mem) Get(ctx context.Context, keys [][]byte, limit int, _ osd.Priority) ([]osd.Value, error) {
	if err := m.start(ctx, "get", first(keys)); err != nil {
		return nil, err
	}
	if len(keys) > osd.MaxListKeys {
		return nil, m.wrap(fmt.Errorf("%w: %d keys asked, at most %d", osd.ErrInvalid, len(keys), osd.MaxListKeys))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Reads++
	values, total := make([]osd.Value, len(keys)), 0
	for i, key := range keys {
		if err := osd.ValidKey(key); err != nil {
			return nil, m.wrap(err)
		}
		v, ok := m.values[string(key)]
		if !ok {
			continue
		}
		if total += len(v.data); len(v.data) > limit || total > osd.MaxValueBytes {
			return nil, m.wrap(fmt.Errorf("%w: value of %q has %d bytes, more than the reader takes", osd.ErrInvalid, key, len(v.data)))
		}
		if err := m.verify(key, v, 0, len(v.data)); err != nil {
			return nil, err
		}
		values[i] = osd.Value{Data: append([]byte{}, v.data...), CRC: v.crc}
		m.stats.ReadBytes += uint64(len(v.data))
	}
	return values, nil
}

// verify checks the blocks of a range; the lock is held.
func (m *Mem) verify(key []byte, v memValue, off, n int) error {
	for i := off / osd.Block; i*osd.Block < off+n; i++ {
		if osd.CRC(v.data[i*osd.Block:min(len(v.data), (i+1)*osd.Block)]) != v.blocks[i] {
			m.stats.Corrupt++
			return m.wrap(fmt.Errorf("key %q: %w", key, osd.ErrCorrupt))
		}
	}
	return nil
}

// Read implements osd.OSD.
func (m *Mem) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	if err := m.start(ctx, "read", key); err != nil {
		return err
	}
	if err := osd.ValidKey(key); err != nil {
		return m.wrap(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Reads++
	v, ok := m.values[string(key)]
	switch {
	case !ok:
		return m.wrap(fmt.Errorf("key %q: %w", key, osd.ErrNotExist))
	case off < 0 || off > int64(len(v.data)) || int64(len(p)) > int64(len(v.data))-off:
		return m.wrap(fmt.Errorf("key %q: %w: %d bytes from %d of %d", key, osd.ErrRange, len(p), off, len(v.data)))
	}
	if prio&osd.Unverified == 0 {
		if err := m.verify(key, v, int(off), len(p)); err != nil {
			return err
		}
	}
	m.stats.ReadBytes += uint64(copy(p, v.data[off:]))
	return nil
}

// Apply implements osd.OSD.
func (m *Mem) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, _ osd.Priority) error {
	var key []byte
	if len(updates) > 0 {
		key = updates[0].Key
	} else if len(asserts) > 0 {
		key = asserts[0].Key
	}
	if err := m.start(ctx, "apply", key); err != nil {
		return err
	}
	if err := osd.ValidateApply(asserts, updates); err != nil {
		return m.wrap(err)
	}
	fresh := make(map[string]memValue, len(updates))
	for _, u := range updates {
		if u.Delete {
			continue
		}
		if osd.CRC(u.Value) != u.CRC {
			return m.wrap(fmt.Errorf("key %q: %w", u.Key, osd.ErrChecksum))
		}
		fresh[string(u.Key)] = newValue(u.Value, u.CRC)
	}
	hook, err := m.apply(asserts, updates, fresh)
	if err == nil && hook != nil {
		return m.callHook(ctx, hook, "applied", key)
	}
	return m.wrap(err)
}

func newValue(data []byte, crc uint32) memValue {
	v := memValue{data: append([]byte{}, data...), crc: crc}
	for b := range slices.Chunk(v.data, osd.Block) {
		v.blocks = append(v.blocks, osd.CRC(b))
	}
	return v
}

// apply makes one transaction, and returns the hook to call after it.
func (m *Mem) apply(asserts []osd.Assert, updates []osd.Update, fresh map[string]memValue) (func(string, []byte) error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range asserts {
		v, ok := m.values[string(a.Key)]
		if ok != (a.Value != nil) || !bytes.Equal(v.data, a.Value) {
			m.stats.Refused++
			return nil, &osd.AssertError{Key: bytes.Clone(a.Key)}
		}
	}
	grows := int64(0)
	for key, v := range fresh {
		grows += int64(len(key) + len(v.data))
	}
	if len(fresh) > 0 && (m.full || m.used+grows > m.capacity) {
		m.stats.Refused++
		return nil, osd.ErrFull
	}
	for _, u := range updates {
		m.remove(string(u.Key))
		if v, ok := fresh[string(u.Key)]; ok {
			m.values[string(u.Key)] = v
			m.used += int64(len(u.Key) + len(v.data))
			m.stats.WriteBytes += uint64(len(v.data))
		}
	}
	m.stats.Applies++
	if len(updates) > 0 {
		m.applies++
	}
	return m.hook, nil
}

// remove takes a key away; the lock is held.
func (m *Mem) remove(key string) {
	if v, ok := m.values[key]; ok {
		m.used -= int64(len(key) + len(v.data))
		delete(m.values, key)
	}
}

// page returns the keys of a listing; the lock is held.
func (m *Mem) page(prefix, after []byte, limit int) []string {
	if limit <= 0 || limit > osd.MaxListKeys {
		limit = osd.MaxListKeys
	}
	var keys []string
	for key := range m.values {
		if strings.HasPrefix(key, string(prefix)) && (after == nil || key > string(after)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))]
}

// List implements osd.OSD.
func (m *Mem) List(ctx context.Context, prefix, after []byte, limit int, _ osd.Priority) ([]osd.Entry, error) {
	if err := m.start(ctx, "list", prefix); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Lists++
	entries := []osd.Entry{}
	for _, key := range m.page(prefix, after, limit) {
		v := m.values[key]
		entries = append(entries, osd.Entry{Key: []byte(key), Size: int64(len(v.data)), CRC: v.crc})
	}
	return entries, nil
}

// Validate implements osd.OSD.
func (m *Mem) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	if err := m.start(ctx, "validate", prefix); err != nil {
		return osd.Validation{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Validates++
	var res osd.Validation
	for _, key := range m.page(prefix, after, limit) {
		if res.Keys > 0 && res.Bytes >= budget {
			break
		}
		v := m.values[key]
		res.Keys++
		res.Bytes += int64(len(v.data))
		res.Next = []byte(key)
		if m.verify(res.Next, v, 0, len(v.data)) != nil {
			res.Bad = append(res.Bad, []byte(key))
		}
	}
	if len(m.page(prefix, res.Next, 1)) == 0 || res.Keys == 0 {
		res.Next = nil
	}
	return res, nil
}

// Close implements osd.OSD.
func (m *Mem) Close() error {
	m.set(func() { m.closed = true })
	return nil
}
