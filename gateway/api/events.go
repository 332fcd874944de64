package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/iscsi"
)

const (
	// pingEvery keeps proxies and dead-peer checks content.
	pingEvery = 15 * time.Second
	// eventDeadline bounds one write to a client.
	eventDeadline = 10 * time.Second
	// retryMs is what a browser waits before it connects again.
	retryMs = 1500
	// healthEvery is how often health is looked at, in ticks of a second.
	healthEvery = 5
	// fullEvery is how often vDisks that are idle are looked at, in ticks.
	fullEvery = 30
	// maxMetrics bounds the vDisks whose metrics are sent in one second.
	maxMetrics = 500
)

var topics = map[string]bool{"metrics": true, "vdisk": true, "vpool": true, "target": true, "session": true, "health": true, "cloud": true, "center": true, "datastore": true, "node": true, "event": true}

// streamEvents serves server-sent events.
func (s *Server) streamEvents(c echo.Context) error {
	want, err := readTopics(c.QueryParam("topics"))
	if err != nil {
		return err
	}
	var last uint64
	if h := c.Request().Header.Get("Last-Event-ID"); h != "" {
		// An id that is no number is of another server: everything is new.
		if last, err = strconv.ParseUint(h, 10, 64); err != nil {
			last = 1
		}
	}
	client, ok := s.opt.Hub.Subscribe(want, last)
	if !ok {
		return refuse(http.StatusServiceUnavailable, "stopping", "", "try again later", "there are too many event streams, or the node is stopping")
	}
	defer s.opt.Hub.Unsubscribe(client)
	h := c.Response().Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w := &stream{rc: http.NewResponseController(c.Response()), w: c.Response(), limit: eventDeadline}
	ctx := c.Request().Context()
	w.heard = func(m observe.Message) observe.Message { return s.heardBy(ctx, m) }
	if err := w.start(); err != nil {
		return nil // the client is gone
	}
	s.pump(ctx, w, client)
	return nil
}

// pump writes until the client goes, is too slow, loses its session, or the
// node stops.
func (s *Server) pump(ctx context.Context, w *stream, client *observe.Client) {
	ping := s.clock.NewTimer(pingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		case m, ok := <-client.C:
			if !ok {
				return
			}
			err = w.events(m)
		case <-ping.C():
			ping.Reset(pingEvery)
			if !s.stillKnown(ctx) {
				return
			}
			err = w.write([]byte(": ping\n\n"))
		}
		if err != nil {
			return
		}
	}
}

// stillKnown tells whether the stream's session or token is still valid.
func (s *Server) stillKnown(ctx context.Context) bool {
	_, ok := s.opt.Auth.Now(callerOf(ctx).Principal)
	return ok
}

// heardBy leaves of a message what the stream's caller may read now.
func (s *Server) heardBy(ctx context.Context, m observe.Message) observe.Message {
	who, ok := s.opt.Auth.Now(callerOf(ctx).Principal)
	seen := sightOf(who)
	if ok && seen == nil {
		return m
	}
	var out observe.Message
	for _, e := range m {
		if ok && (e.Topic == "" || seen.all(e.Scopes)) {
			out = append(out, e)
		}
	}
	return out
}

func readTopics(list string) (map[string]bool, error) {
	if list == "" {
		return nil, nil
	}
	want := map[string]bool{}
	for t := range strings.SplitSeq(list, ",") {
		if !topics[t] {
			return nil, refuseField("topics", "use metrics, vdisk, vpool, target, session, health, cloud, center, datastore, node, event", "there is no topic %q", t)
		}
		want[t] = true
	}
	return want, nil
}

// stream writes with a deadline for each write instead of one for all. Between writes there
// is none: HTTP/2 resets a stream when its deadline is over, whether or not something is
// being written.
type stream struct {
	rc    *http.ResponseController
	w     http.ResponseWriter
	limit time.Duration                         // of each write
	heard func(observe.Message) observe.Message // leaves of a message what is written; nil: all
}

func (s *stream) start() error {
	s.w.WriteHeader(http.StatusOK)
	return s.write([]byte("retry: " + strconv.Itoa(retryMs) + "\n\n"))
}

func (s *stream) events(m observe.Message) error {
	if s.heard != nil {
		m = s.heard(m)
	}
	if len(m) == 0 {
		return nil
	}
	var b []byte
	for _, e := range m {
		b = append(b, e.Wire...)
	}
	return s.write(b)
}

func (s *stream) write(b []byte) error {
	// The wall clock is right here: the deadline is the kernel's.
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.limit)); err != nil {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	if err := s.rc.Flush(); err != nil {
		return err
	}
	return s.rc.SetWriteDeadline(time.Time{})
}

// Changed passes a change of a vPool, vDisk, target, cloud, vCenter, datastore or node to the
// event streams; it is what control.Options.Changed is set to. It returns at once.
func (s *Server) Changed(kind, id string) {
	s.opt.Hub.Changed(kind, id, func() observe.News { return s.objectEvent(kind, id) })
}

// objectEvent is the object as it is now, or that it is gone.
func (s *Server) objectEvent(kind, id string) observe.News {
	v, scopes := s.objectNow(kind, id)
	if v == nil {
		return s.homes.left(kind, id)
	}
	s.homes.keep(kind, id, scopes)
	return observe.News{Name: kind, Object: v, Scopes: scopes}
}

// objectNow is an object and its scopes; nil: it is gone.
func (s *Server) objectNow(kind, id string) (any, []string) {
	switch kind {
	case "vpool":
		if v, ok := s.opt.Model.VPool(id); ok && v.State != model.StateDeleting {
			return s.vpoolOf(v, s.sums()[id]), vpoolScopes([]string{id})
		}
	case "vdisk":
		if v, ok := s.opt.Model.VDisk(id); ok && v.State != model.StateTrashed {
			return s.diskViewFor(nil).row(v), s.diskScopes(v)
		}
	case "target":
		if t, err := s.opt.Control.FindTarget(id); err == nil {
			return s.running(t), targetScopes(t)
		}
	case "cloud":
		if r, ok := s.opt.Model.FindCloud(id); ok {
			return cloudOf(r), nil
		}
	case "center":
		if r, ok := s.opt.Model.FindCenter(id); ok {
			return s.centerOf(r), nil
		}
	case "datastore":
		if r, ok := s.opt.Model.FindDatastore(id); ok && r.RDM == nil {
			return s.datastoreOf(r), nil
		}
	case "node":
		if n, ok := s.opt.Model.Node(id); ok {
			return s.nodeEvent(n), nil
		}
	}
	return nil, nil
}

// diskScopes are the vPools that the row of a vDisk tells of.
func (s *Server) diskScopes(v model.VDisk) []string {
	out := []string{auth.VPoolScope(v.VPool)}
	if v.Move != nil {
		out = append(out, auth.VPoolScope(v.Move.To))
	}
	if v.Parent != nil {
		if up, ok := s.opt.Model.VDisk(v.Parent.VDisk); ok && up.VPool != v.VPool {
			out = append(out, auth.VPoolScope(up.VPool))
		}
	}
	return out
}

func (s *Server) sessionEvent(i iscsi.SessionInfo) observe.News {
	var scopes []string
	if t, err := s.opt.Control.FindTarget(i.Target); err == nil {
		scopes = targetScopes(t)
	}
	s.homes.keep("session", i.ID, scopes)
	return observe.News{Name: "session", Object: iscsiSessionOf(i), Scopes: scopes}
}

// homes has the scopes of objects as they were last told, for when they are gone.
type homes struct {
	mu     sync.Mutex
	scopes map[string][]string // by kind and id
}

func (h *homes) keep(kind, id string, scopes []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.scopes == nil {
		h.scopes = map[string][]string{}
	}
	h.scopes[kind+"/"+id] = scopes
}

// left tells that an object is gone, to whom it was told of.
func (h *homes) left(kind, id string) observe.News {
	h.mu.Lock()
	defer h.mu.Unlock()
	scopes := h.scopes[kind+"/"+id]
	delete(h.scopes, kind+"/"+id)
	return observe.News{Name: kind + ".deleted", Object: DeletedEvent{ID: id}, Scopes: scopes}
}

// rememberHomes begins with what there is.
func (s *Server) rememberHomes() {
	for _, v := range s.opt.Model.VDisks(nil) {
		s.homes.keep("vdisk", v.ID, s.diskScopes(v))
	}
	for _, v := range s.opt.Model.VPools() {
		s.homes.keep("vpool", v.ID, vpoolScopes([]string{v.ID}))
	}
	for _, t := range s.opt.Control.Targets() {
		s.homes.keep("target", t.IQN, targetScopes(t))
	}
}

// Feed samples the engine once a second and feeds the event streams, until ctx
// ends.
func (s *Server) Feed(ctx context.Context) {
	s.rememberHomes()
	t := s.clock.NewTimer(0)
	defer t.Stop()
	f := feed{s: s, sessions: map[string]iscsi.SessionInfo{}}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-s.opt.Hub.Kicked():
			s.opt.Hub.Flush()
			n--
			continue
		case <-t.C():
		}
		t.Reset(observe.Step)
		f.sample(n)
		f.session()
		if n%healthEvery == 0 {
			f.health()
		}
		s.opt.Hub.Flush()
	}
}

// feed remembers what was last told, to tell changes only.
type feed struct {
	s        *Server
	states   map[string]diskState
	quiet    map[string]uint64 // vDisks that were idle at the last sample -> requests until then
	busy     []string          // the others
	wakeups  uint64
	sessions map[string]iscsi.SessionInfo
	last     string // health
	wrong    map[wrong]observe.Cause
	vpools   map[string]string // vDisk -> vPool, of those that did something
	history  historyFeed
}

// sample takes the counters of the open vDisks. While no idle one is woken those are left
// alone but at every fullEvery-th tick: a node can have thousands of them.
func (f *feed) sample(tick int) {
	now := f.s.clock.Now()
	wakeups := f.s.opt.Control.Wakeups()
	partial := f.states != nil && tick%fullEvery != 0 && wakeups == f.wakeups
	var running []control.Running
	var idle []string
	if f.wakeups = wakeups; partial {
		running = f.s.opt.Control.SampleOnly(f.busy)
	} else {
		running, idle = f.s.opt.Control.Sample(func(id string, requests uint64) bool {
			n, ok := f.quiet[id]
			return ok && n == requests
		})
		f.forget(running, idle)
	}
	in := make([]observe.Input, 0, len(running))
	for _, r := range running {
		in = append(in, observe.Input{ID: r.ID, VPool: f.vpool(r.ID), Stats: r.Stats})
		was, known := f.states[r.ID]
		if now := (diskState{r.Stats.State, r.Stats.DTL.State, r.Stats.DTL.Peer}); !known || was != now {
			f.states[r.ID] = now
			f.turned(r, was)
			f.s.Changed("vdisk", r.ID)
		}
	}
	active := f.s.opt.Sampler.Observe(now, in, idle, partial)
	did := make(map[string]bool, len(active))
	for _, a := range active {
		did[a.ID] = true
	}
	f.busy = f.busy[:0]
	for _, r := range running {
		if r.Idle && !did[r.ID] { // one that did something has a quiet sample to come
			f.quiet[r.ID] = r.Requests
			continue
		}
		delete(f.quiet, r.ID)
		f.busy = append(f.busy, r.ID)
	}
	events := make([]observe.News, 0, len(active))
	for _, a := range active[:min(len(active), maxMetrics+1)] {
		events = append(events, observe.News{Scopes: f.scopes(a), Object: MetricsEvent{Object: a.ID, Time: a.Time.UTC(), Performance: performanceOf(a.Performance), JournalUsed: a.JournalUsed}})
		if a.ID != observe.Node && !a.VPool {
			f.s.Changed("vdisk", a.ID)
		}
	}
	f.s.opt.Hub.Metrics(events)
	f.history.add(f.s, now, active)
}

// scopes are those of metrics.
func (f *feed) scopes(a observe.Named) []string {
	switch {
	case a.ID == observe.Node:
		return nil
	case a.VPool:
		return []string{auth.VPoolScope(a.ID)}
	}
	return []string{auth.VPoolScope(f.vpool(a.ID))}
}

// vpool returns the vPool of an open vDisk, which stays the same.
func (f *feed) vpool(id string) string {
	if f.vpools == nil {
		f.vpools = map[string]string{}
	}
	in, known := f.vpools[id]
	if !known {
		if v, ok := f.s.opt.Model.VDisk(id); ok {
			in = v.VPool
			f.vpools[id] = in
		}
	}
	return in
}

// forget drops what is known of vDisks that are not open any more.
func (f *feed) forget(running []control.Running, idle []string) {
	if f.states == nil {
		f.states, f.quiet = map[string]diskState{}, map[string]uint64{}
	}
	if len(f.states) <= len(running)+len(idle) {
		known := 0
		for _, r := range running {
			if _, ok := f.states[r.ID]; ok {
				known++
			}
		}
		if known+len(idle) == len(f.states) {
			return // nothing is gone, as nearly always
		}
	}
	open := make(map[string]bool, len(running)+len(idle))
	for _, r := range running {
		open[r.ID] = true
	}
	for _, id := range idle {
		open[id] = true
	}
	for id := range f.states {
		if !open[id] {
			delete(f.states, id)
			delete(f.quiet, id)
			delete(f.vpools, id)
		}
	}
}

func (f *feed) session() {
	now := map[string]iscsi.SessionInfo{}
	for _, i := range f.s.opt.Control.Sessions() {
		now[i.ID] = i
		old, known := f.sessions[i.ID]
		if !known || sessionState(old) != sessionState(i) {
			f.s.opt.Hub.Changed("session", i.ID, func() observe.News { return f.s.sessionEvent(i) })
		}
		if !known {
			f.tellSession(event.SessionOpened, i)
			f.target(i.Target)
		}
	}
	for id, i := range f.sessions {
		if _, still := now[id]; !still {
			f.s.opt.Hub.Changed("session", id, func() observe.News { return f.s.homes.left("session", id) })
			f.tellSession(event.SessionClosed, i)
			f.target(i.Target)
		}
	}
	f.sessions = now
}

// target announces the target, and the vDisks in it, whose number of sessions changed.
func (f *feed) target(iqn string) {
	t, err := f.s.opt.Control.FindTarget(iqn)
	if err != nil {
		return // it is gone
	}
	f.s.Changed("target", t.IQN)
	for _, l := range t.LUNs {
		f.s.Changed("vdisk", l.VDisk.ID)
	}
}

func (f *feed) health() {
	h := f.s.opt.Health()
	f.causes(h)
	key := h.Key()
	if key == f.last {
		return
	}
	f.last = key
	f.s.opt.Hub.Changed("health", "node", func() observe.News { return observe.News{Name: "health", Object: healthOf(h)} })
}
