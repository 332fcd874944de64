package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/internal/clock"
)

// A vCenter hears in its events what its administrator has to know of the datastores: causes
// of health of a datastore, its vDisk and its vPool, when they begin and when they are over; a
// snapshot that was not made; another node that serves the vDisk. The node that serves the
// vDisk tells it.
//
//	causes ─► standing at two looks ─┐
//	records ─────────────────────────┴► queue of the vCenter ─► PostEvent
const (
	// noticesMost bounds the events of a vCenter in noticeSpan. More wait.
	noticesMost = 20
	noticeSpan  = 10 * time.Minute
	// noticeAgain is how long after a cause was told it is not told again.
	noticeAgain = 10 * time.Minute
	// noticeQueue bounds events that wait, noticeOld how long: the oldest are dropped.
	noticeQueue = 64
	noticeOld   = time.Hour
	// noticeLooks is at how many looks in turn a cause is there, or not, before that is told.
	noticeLooks = 2
	// noticeTexts bounds causes that are followed.
	noticeTexts = 4096
)

// notices is what is told to vCenters. Its lock is taken before Manager.mu.
type notices struct {
	mu       sync.Mutex
	standing map[causeKey]*standing
	at       map[string]string // node that serves, by vDisk of a datastore
	queues   map[string]*noticeBox
}

type causeKey struct{ datastore, code, object string }

// standing is a cause that is there, or was.
type standing struct {
	seen, missed int  // looks in turn
	told         bool // that it is there
	at           time.Time
	text         string
	bad          bool // else it is a warning
}

// noticeBox is what one vCenter is to hear.
type noticeBox struct {
	waiting []notice
	dropped int
	sent    []time.Time // in the newest noticeSpan
	busy    bool        // a goroutine sends
	denied  bool        // told in the log
}

type notice struct {
	datastore string // id
	at        time.Time
	text      string
	health    bool // the health of the datastore is another one by it
}

func newNotices() notices {
	return notices{standing: map[causeKey]*standing{}, at: map[string]string{}, queues: map[string]*noticeBox{}}
}

// hears tells whether a vCenter is told events.
func (m *Manager) hears(center string) bool {
	c, ok := m.model.FindCenter(center)
	return ok && !c.Spec.NoEvents && c.Kind != vsphere.KindESXi
}

// Causes takes a look at the causes of this node's health, and tells vCenters what is new of
// their datastores. It is called every few seconds, by one goroutine.
func (m *Manager) Causes(causes []observe.Cause) {
	now, seen := m.clock.Now(), map[causeKey]observe.Cause{}
	about := map[string][]observe.Cause{}
	for _, c := range causes {
		about[c.Object] = append(about[c.Object], c)
	}
	mine := map[string]model.Datastore{}
	for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.RDM == nil && m.server(d) == m.opt.Node }) {
		if !m.hears(d.Center) {
			continue
		}
		mine[d.ID] = d
		for _, object := range m.objects(d) {
			for _, c := range about[object] {
				if len(seen) < noticeTexts {
					seen[causeKey{d.ID, c.Code, object}] = c
				}
			}
		}
	}
	m.notices.mu.Lock()
	defer m.notices.mu.Unlock()
	for k, c := range seen {
		s := m.notices.standing[k]
		if s == nil {
			s = &standing{}
			m.notices.standing[k] = s
		}
		s.missed, s.text, s.bad = 0, causeText(c), c.State == observe.Bad
		if s.seen++; s.seen >= noticeLooks && !s.told && (s.at.IsZero() || now.Sub(s.at) >= noticeAgain) {
			s.told, s.at = true, now
			m.queue(mine[k.datastore], now, s.text, true)
		}
	}
	for k, s := range m.notices.standing {
		d, is := mine[k.datastore]
		if _, here := seen[k]; here {
			continue
		}
		s.seen = 0
		s.missed++
		if s.told && is && s.missed >= noticeLooks {
			s.told = false
			m.queue(d, now, "over: "+s.text, true)
		}
		if !is || !s.told && now.Sub(s.at) >= noticeAgain {
			delete(m.notices.standing, k)
		}
	}
}

// objects are what causes of health name that are about a datastore.
func (m *Manager) objects(d model.Datastore) []string {
	out := []string{datastoreObject(d.Name)}
	if v, ok := m.model.VDisk(d.VDisk); ok {
		out = append(out, "vdisk "+v.Name)
	}
	if p, ok := m.model.VPool(d.VPool); ok {
		out = append(out, "vpool "+p.Name)
	}
	return out
}

func causeText(c observe.Cause) string {
	text := string(c.State) + ": " + c.Text
	if c.Hint != "" {
		text += "; " + c.Hint
	}
	return text
}

// moved tells that this node serves the vDisk of a datastore that another one served.
func (m *Manager) moved(v model.VDisk) {
	for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.RDM == nil && d.VDisk == v.ID }) {
		m.notices.mu.Lock()
		was := m.notices.at[v.ID]
		if m.notices.at[v.ID] = v.Node; was != "" && was != v.Node && v.Node == m.opt.Node && m.hears(d.Center) {
			m.queue(d, m.clock.Now(), fmt.Sprintf("node %s serves it now, and node %s did before", m.nodeName(v.Node), m.nodeName(was)), false)
		}
		m.notices.mu.Unlock()
	}
}

// notify tells the vCenter of a datastore something that happened.
func (m *Manager) notify(d model.Datastore, text string) {
	if d.RDM != nil || !m.hears(d.Center) {
		return
	}
	m.notices.mu.Lock()
	defer m.notices.mu.Unlock()
	m.queue(d, m.clock.Now(), text, false)
}

// queue has the vCenter of a datastore told; health: the alarm of the datastore follows. The lock
// of notices is held.
func (m *Manager) queue(d model.Datastore, at time.Time, text string, health bool) {
	box := m.notices.queues[d.Center]
	if box == nil {
		box = &noticeBox{}
		m.notices.queues[d.Center] = box
	}
	if len(box.waiting) >= noticeQueue {
		box.waiting, box.dropped = box.waiting[1:], box.dropped+1
	}
	box.waiting = append(box.waiting, notice{d.ID, at, fmt.Sprintf("ovgate, datastore %s: %s", d.Name, strings.Join(strings.Fields(text), " ")), health})
	if box.busy {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return
	}
	box.busy = true
	m.wg.Add(1)
	go m.tellCenter(d.Center, box)
}

// tellCenter tells a vCenter until nothing waits.
func (m *Manager) tellCenter(center string, box *noticeBox) {
	defer m.wg.Done()
	for pause := retryMin; ; {
		some, wait := m.takeNotices(box)
		if len(some) == 0 && wait == 0 {
			return
		}
		if len(some) > 0 {
			left, err := m.post(center, some)
			if !m.keepNotices(center, box, left, len(some)-len(left), err) {
				pause = retryMin
				continue
			}
			wait, pause = pause, min(2*pause, retryMax)
		}
		if clock.Sleep(m.ctx, m.clock, wait) != nil {
			return
		}
	}
}

// takeNotices returns what may be told now; or, when something waits, how long that has to.
// With neither nobody sends any more.
func (m *Manager) takeNotices(box *noticeBox) (some []notice, wait time.Duration) {
	m.notices.mu.Lock()
	defer m.notices.mu.Unlock()
	now := m.clock.Now()
	for len(box.waiting) > 0 && now.Sub(box.waiting[0].at) > noticeOld {
		box.waiting, box.dropped = box.waiting[1:], box.dropped+1
	}
	for len(box.sent) > 0 && now.Sub(box.sent[0]) >= noticeSpan {
		box.sent = box.sent[1:]
	}
	free := noticesMost - len(box.sent)
	switch {
	case len(box.waiting) == 0:
		box.busy = false
		return nil, 0
	case free == 0:
		return nil, noticeSpan - now.Sub(box.sent[0])
	}
	n := min(free, len(box.waiting))
	some, box.waiting = append([]notice(nil), box.waiting[:n]...), box.waiting[n:]
	if box.dropped > 0 {
		some[0].text += fmt.Sprintf(" (%d earlier events are not told)", box.dropped)
		box.dropped = 0
	}
	return some, 0
}

// keepNotices keeps what is left to be told, and says whether it did. What the vCenter refuses
// is not told again.
func (m *Manager) keepNotices(center string, box *noticeBox, left []notice, sent int, err error) (again bool) {
	m.notices.mu.Lock()
	defer m.notices.mu.Unlock()
	for range sent {
		box.sent = append(box.sent, m.clock.Now())
	}
	if err == nil {
		box.denied = false
		return false
	}
	if again = errors.Is(err, vsphere.ErrUnreachable) || errors.Is(err, vsphere.ErrCredentials) || errors.Is(err, vsphere.ErrCertificate); again {
		box.waiting = append(append([]notice(nil), left...), box.waiting...)
		if n := len(box.waiting) - noticeQueue; n > 0 {
			box.waiting, box.dropped = box.waiting[n:], box.dropped+n
		}
	} else {
		box.dropped += len(left)
	}
	if !box.denied {
		box.denied = true
		m.log.Warn("events are not told to a vCenter", "center", m.centerName(center), "err", err)
	}
	return again
}

func (m *Manager) centerName(id string) string {
	if c, ok := m.model.FindCenter(id); ok {
		return c.Name
	}
	return id
}

// post tells a vCenter, and returns what it was not told.
func (m *Manager) post(center string, all []notice) ([]notice, error) {
	ctx, cancel := context.WithTimeout(m.ctx, requestTimeout)
	defer cancel()
	c, ok := m.model.FindCenter(center)
	if !ok || !m.hears(center) {
		return nil, nil // it was switched off, or is forgotten
	}
	v, err := m.connect(ctx, c)
	if err != nil {
		return all, err
	}
	defer v.Close()
	found := map[string]*vsphere.Datastore{}
	for i, n := range all {
		if _, looked := found[n.datastore]; !looked {
			if found[n.datastore], err = m.atCenter(ctx, v, n.datastore); err != nil {
				return all[i:], err
			}
		}
		d := found[n.datastore]
		told := vsphere.Notice{Datastore: d, At: n.at, Text: n.text}
		if err := v.Post(ctx, told); err != nil {
			return all[i:], err
		}
		if n.health && d != nil {
			if err := v.PostHealth(ctx, d, m.healthOf(n.datastore), told); err != nil {
				return all[i:], err
			}
		}
	}
	return nil, nil
}

// healthOf is the worst of what a vCenter was told of a datastore and is not over.
func (m *Manager) healthOf(datastore string) vsphere.Health {
	m.notices.mu.Lock()
	defer m.notices.mu.Unlock()
	health := vsphere.HealthOK
	for k, s := range m.notices.standing {
		switch {
		case k.datastore != datastore || !s.told:
		case s.bad:
			return vsphere.HealthCritical
		default:
			health = vsphere.HealthDegraded
		}
	}
	return health
}

// atCenter is what a vCenter has of a datastore; nil: nothing.
func (m *Manager) atCenter(ctx context.Context, v *vsphere.Center, id string) (*vsphere.Datastore, error) {
	d, ok := m.model.FindDatastore(id)
	if !ok || d.VDisk == "" {
		return nil, nil
	}
	naa, err := control.NAA(d.VDisk)
	if err != nil {
		return nil, err
	}
	found, err := v.FindDatastore(ctx, naa)
	if errors.Is(err, vsphere.ErrNotFound) {
		return nil, nil
	}
	return found, err
}
