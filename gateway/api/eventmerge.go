package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// The histories of all nodes are one: each node that is asked for a page asks the others for theirs,
// with the filter, and takes the newest of all of them. One page of each node is in memory at a time.
// A node that asks gets the history of the one it asks.

const (
	// eventsAsked bounds the events of one answer of a node, so that it is below maxAnswer: each
	// has ten texts of a kilobyte at most.
	eventsAsked = 500
	// maxPlaces bounds the nodes that a cursor tells of, so that it fits into a request; others are
	// asked for what is before the last event of the page.
	maxPlaces = 400
	// eventsKept of each node are remembered for when it does not answer.
	eventsKept = 100
	// followEvery is how often other nodes are asked for new events while a stream wants them,
	// followIdle otherwise.
	followEvery = 2 * time.Second
	followIdle  = 15 * time.Second
)

// places say how far a list is in the history of each node: a cursor, or a position.
//
//	TIME~ID.SEQ~ID.SEQ    TIME: nanoseconds since 1970, or nothing
type places struct {
	// at is the time of the last event of a page, zero if there is none; of a position, when it was
	// taken.
	at   time.Time
	seqs map[string]uint64 // by id of the node
}

func (p places) String() string {
	ids := slices.Sorted(maps.Keys(p.seqs))
	var b strings.Builder
	if !p.at.IsZero() {
		b.WriteString(strconv.FormatInt(p.at.UnixNano(), 10))
	}
	if len(ids) == 0 {
		b.WriteByte('~')
	}
	for _, id := range ids[:min(len(ids), maxPlaces)] {
		fmt.Fprintf(&b, "~%s.%d", id, p.seqs[id])
	}
	return b.String()
}

var errPlaces = errors.New("malformed position")

func parsePlaces(text string) (places, error) {
	p := places{seqs: map[string]uint64{}}
	at, list, ok := strings.Cut(text, "~")
	if !ok {
		return p, errPlaces
	}
	if at != "" {
		n, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return p, errPlaces
		}
		p.at = time.Unix(0, n).UTC()
	}
	if list == "" {
		return p, nil
	}
	for part := range strings.SplitSeq(list, "~") {
		id, number, _ := strings.Cut(part, ".")
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil || id == "" || len(p.seqs) == maxPlaces {
			return p, errPlaces
		}
		p.seqs[id] = seq
	}
	return p, nil
}

// eventSource is the history of a node as a merge reads it.
type eventSource struct {
	id, name string
	buf      []Event // the newest first; they are taken from its front
	// before bounds what is read next by its number; 0: nothing does. Of a source that has ended
	// it is 1: nothing is older.
	before uint64
	// until bounds it by time, where before does not; zero: nothing does.
	until  time.Time
	after  uint64
	since  time.Time
	ended  bool   // there is nothing beyond buf
	newest uint64 // number of its newest event; 0: not known
	away   bool   // it does not answer: buf has what is known
}

// eventMerge reads the histories of nodes as one.
type eventMerge struct {
	s       *Server
	q       event.Query
	wait    time.Duration // for each answer of a node
	who     auth.Principal
	cursor  places
	after   places
	began   time.Time
	last    time.Time // of the last event that was taken
	sources []*eventSource
	silent  []SilentNode
}

func (s *Server) newMerge(q event.Query, wait time.Duration) *eventMerge {
	return &eventMerge{s: s, q: q, wait: wait, began: s.clock.Now(), silent: []SilentNode{}}
}

// begin reads a page of each node: all, or this one alone.
func (m *eventMerge) begin(ctx context.Context, all bool) error {
	m.who = callerOf(ctx).Principal
	m.sources = []*eventSource{{id: m.s.opt.NodeID, name: m.s.opt.NodeName}}
	if all && callerOf(ctx).node == "" {
		for _, n := range m.s.opt.Model.Nodes() {
			if n.ID != m.s.opt.NodeID {
				m.sources = append(m.sources, &eventSource{id: n.ID, name: n.Name})
			}
		}
	}
	m.last = m.cursor.at
	errs := make([]error, len(m.sources))
	var wg sync.WaitGroup
	for i, src := range m.sources {
		m.place(src)
		if src.ended {
			continue
		}
		wg.Go(func() { errs[i] = m.read(ctx, src) })
	}
	wg.Wait()
	if err := errs[0]; err != nil && len(m.sources) == 1 {
		return err
	}
	for i, src := range m.sources {
		if errs[i] != nil {
			at := m.recall(src)
			m.silent = append(m.silent, SilentNode{Node: src.name, ObservedAt: when(at), Error: clip(errs[i].Error())})
		}
	}
	slices.SortFunc(m.silent, func(a, b SilentNode) int { return strings.Compare(a.Node, b.Node) })
	return ctx.Err()
}

// place says from where on a source is read.
func (m *eventMerge) place(src *eventSource) {
	src.until, src.since = m.q.Until, m.q.Since
	if seq, ok := m.cursor.seqs[src.id]; ok {
		src.before, src.ended = seq, seq == 1
	} else if at := m.cursor.at; !at.IsZero() && (src.until.IsZero() || at.Before(src.until)) {
		src.until = at.Add(1) // it was silent, or joined since: none of its events was listed
	}
	if m.after.seqs == nil {
		return
	}
	seq, ok := m.after.seqs[src.id]
	if src.after = seq; !ok && m.after.at.After(src.since) {
		src.since = m.after.at
	}
}

// query is what a source is asked for next.
func (m *eventMerge) query(src *eventSource) event.Query {
	q := m.q
	q.Limit, q.Before, q.After, q.Since, q.Until = min(q.Limit, eventsAsked), src.before, src.after, src.since, src.until
	return q
}

// read fills the buffer of a source.
func (m *eventMerge) read(ctx context.Context, src *eventSource) error {
	q := m.query(src)
	if src.id != m.s.opt.NodeID {
		return m.readPeer(ctx, src, q)
	}
	if m.s.opt.Events == nil {
		src.ended = true
		return nil
	}
	p, err := m.s.opt.Events.List(ctx, q)
	if err != nil {
		return err
	}
	for _, e := range p.Events {
		src.buf = append(src.buf, eventOf(e, src.name))
	}
	src.next(p.Next, p.Newest)
	return nil
}

// next notes where a source goes on after its buffer; 0: nowhere.
func (src *eventSource) next(before, newest uint64) {
	src.before, src.ended = before, before == 0
	if newest != 0 {
		src.newest = newest
	}
}

func (m *eventMerge) readPeer(ctx context.Context, src *eventSource, q event.Query) error {
	l, err := m.s.askEvents(ctx, src.id, src.name, q, m.who, m.wait)
	if err != nil {
		return err
	}
	src.buf = l.items
	src.next(l.next, l.newest)
	return nil
}

// eventAnswer is what a node answers of its own history.
type eventAnswer struct {
	items        []Event
	next, newest uint64 // as event.Page has them
}

// askEvents asks a node for a page of its history.
func (s *Server) askEvents(ctx context.Context, id, name string, q event.Query, who auth.Principal, wait time.Duration) (eventAnswer, error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	if len(q.Severities) > 0 {
		v.Set("severity", string(q.Severities[0])) // the least
	}
	set("code", strings.Join(q.Codes, ","))
	set("object", q.Object)
	set("q", q.Text)
	for key, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(key, t.UTC().Format(time.RFC3339Nano))
		}
	}
	at := func(seq uint64) string { return places{seqs: map[string]uint64{id: seq}}.String() }
	if q.After != 0 {
		v.Set("after", at(q.After))
	}
	if q.Before != 0 {
		v.Set("cursor", at(q.Before))
	}
	var l EventList
	if err := s.readPeer(ctx, id, "/events/history?"+v.Encode(), who, wait, &l); err != nil {
		return eventAnswer{}, err
	}
	if len(l.Items) > q.Limit {
		return eventAnswer{}, fmt.Errorf("it answers with %d events, %d were asked for", len(l.Items), q.Limit)
	}
	out := eventAnswer{items: l.Items}
	for i := range out.items {
		out.items[i].Node = name
	}
	for text, to := range map[*string]*uint64{l.Next: &out.next, l.Position: &out.newest} {
		if text == nil {
			continue
		}
		p, err := parsePlaces(*text)
		if err != nil {
			return eventAnswer{}, errors.New("its answer is not understood: it may be of another version")
		}
		*to = p.seqs[id]
	}
	return out, nil
}

// take returns the newest event of all sources; false: there is none, or it is not known which
// is, because a source has to be read first, which is returned.
func (m *eventMerge) take() (e Event, empty *eventSource, ok bool) {
	var from *eventSource
	for _, src := range m.sources {
		switch {
		case len(src.buf) == 0 && !src.ended:
			return e, src, false
		case len(src.buf) > 0 && (from == nil || src.buf[0].Time.After(from.buf[0].Time)):
			from = src
		}
	}
	if from == nil {
		return e, nil, false
	}
	e, from.buf = from.buf[0], from.buf[1:]
	m.last = e.Time
	return e, nil, true
}

// page takes up to n events, until a source has to be read again.
func (m *eventMerge) page(n int) []Event {
	out := []Event{}
	for len(out) < n {
		e, _, ok := m.take()
		if !ok {
			break
		}
		out = append(out, e)
	}
	return out
}

// write writes up to exportMost events, and reads sources as they are used up.
func (m *eventMerge) write(ctx context.Context, to *json.Encoder) error {
	to.SetEscapeHTML(false)
	for left := exportMost; left > 0; {
		e, empty, ok := m.take()
		switch {
		case empty != nil:
			if err := m.read(ctx, empty); err != nil {
				return fmt.Errorf("node %s: %w", empty.name, err)
			}
			continue
		case !ok:
			return nil
		}
		if err := to.Encode(e); err != nil {
			return err
		}
		left--
	}
	return nil
}

// next is the cursor of the page after what was taken; nil: nothing follows.
func (m *eventMerge) next() *string {
	p := places{at: m.last, seqs: map[string]uint64{}}
	more := false
	for _, src := range m.sources {
		switch {
		case len(src.buf) > 0:
			p.seqs[src.id], more = uint64(src.buf[0].Seq)+1, true
		case src.away:
			if src.before != 0 {
				p.seqs[src.id] = src.before
			}
		case src.ended:
			p.seqs[src.id] = 1
		default:
			p.seqs[src.id], more = src.before, true
		}
	}
	if !more {
		return nil
	}
	return new(p.String())
}

// position is how far the histories were when the merge began.
func (m *eventMerge) position() string {
	p := places{at: m.began, seqs: map[string]uint64{}}
	for _, src := range m.sources {
		if seq, ok := m.after.seqs[src.id]; ok {
			p.seqs[src.id] = seq
		}
		if src.newest != 0 {
			p.seqs[src.id] = src.newest
		}
	}
	return p.String()
}

// eventBoard has what other nodes told of their events.
type eventBoard struct {
	mu    sync.Mutex
	nodes map[string]toldEvents // by id
}

// toldEvents are the newest events of a node.
type toldEvents struct {
	at     time.Time // when it told them
	newest uint64
	kept   []Event // the newest first, without gaps; never changed
}

// recall fills a source that does not answer with what is known, and tells until when it is.
func (m *eventMerge) recall(src *eventSource) time.Time {
	src.buf, src.ended, src.away = nil, true, true
	m.s.told.mu.Lock()
	t := m.s.told.nodes[src.id]
	m.s.told.mu.Unlock()
	q := m.query(src)
	for _, e := range t.kept {
		if (q.Before == 0 || uint64(e.Seq) < q.Before) && uint64(e.Seq) > q.After && q.Matches(event.Event{Severity: event.Severity(e.Severity), Code: event.Code(e.Code), Object: e.Object, Text: e.Text, Time: e.Time}) {
			src.buf = append(src.buf, e)
		}
	}
	src.newest = max(t.newest, src.after)
	if len(src.buf) > 0 {
		src.before = uint64(src.buf[len(src.buf)-1].Seq)
	}
	return t.at
}

// FollowEvents asks the other nodes for their new events, for the event streams and for when one
// does not answer, until ctx ends.
func (s *Server) FollowEvents(ctx context.Context) {
	if s.opt.Peers == nil {
		return
	}
	t := s.clock.NewTimer(0)
	defer t.Stop()
	began, last := s.clock.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C():
		}
		if now := s.clock.Now(); s.opt.Hub.Clients() > 0 || now.Sub(last).Abs() >= followIdle {
			last = now
			s.eachPeer(func(n model.Node) { s.followNode(ctx, n, began) })
		}
		t.Reset(followEvery)
	}
}

// followNode asks a node for what is new, at first since the following began.
func (s *Server) followNode(ctx context.Context, n model.Node, began time.Time) {
	s.told.mu.Lock()
	was, known := s.told.nodes[n.ID]
	s.told.mu.Unlock()
	at := s.clock.Now().UTC()
	q := event.Query{Limit: eventsKept, After: was.newest}
	l, err := s.askEvents(ctx, n.ID, n.Name, q, auth.Principal{Name: "events of all nodes", Rights: auth.Rights{Role: auth.RoleRead}}, askWait)
	if err != nil {
		return // lists tell it
	}
	now := toldEvents{at: at, newest: l.newest, kept: was.kept}
	if len(l.items) > 0 {
		now.kept = l.items
		if l.next == 0 { // nothing is between them
			now.kept = slices.Concat(l.items, was.kept)
		}
		now.kept = slices.Clone(now.kept[:min(len(now.kept), eventsKept)])
	}
	if l.newest < was.newest { // its history is another one
		now.kept = l.items
	}
	s.told.mu.Lock()
	if s.told.nodes == nil || len(s.told.nodes) > model.MaxPage { // of nodes that left
		s.told.nodes = map[string]toldEvents{}
	}
	s.told.nodes[n.ID] = now
	s.told.mu.Unlock()
	for _, e := range slices.Backward(l.items) {
		if !known && !e.Time.After(began) {
			continue // it is no news
		}
		s.opt.Hub.Changed("event", cmp.Or(e.Node, n.ID)+" "+strconv.FormatInt(e.Seq, 10), func() observe.News { return observe.News{Name: "event", Object: e} })
	}
}
