package observe

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// ringSize is how many events a client that was away can catch up with.
	ringSize = 1024
	// clientBuffer is how many messages may wait for a client before it is
	// dropped: a minute of a busy node.
	clientBuffer = 64
	// MaxClients bounds event streams: browsers share one between tabs.
	MaxClients = 512
	// perObject is the least time between two events of one object (V3).
	perObject = time.Second
	// maxPending bounds objects with an event waiting; one more resets clients.
	maxPending = 20_000
)

// Event is one server-sent event.
type Event struct {
	ID    uint64
	Topic string // metrics, vdisk, vpool, target, session, health, cloud, node
	Wire  []byte // as it goes to the client
	// Scopes are what a caller has to have rights on to be told, all of them; none: everything.
	Scopes []string
}

// Message is what a client receives: one or more events at once.
type Message []Event

// Client is a subscriber of a Hub.
type Client struct {
	C      <-chan Message // closed when the client was dropped or the hub closed
	c      chan Message
	topics map[string]bool // nil: all
}

// Hub passes events to clients. Safe for concurrent use.
type Hub struct {
	clock clock.Clock

	mu      sync.Mutex
	id      uint64
	floor   uint64  // every repeatable event after this id is in ring
	ring    []Event // oldest first
	clients map[*Client]struct{}
	kick    chan struct{}
	pending map[string]change    // object -> newest event that waits
	sent    map[string]time.Time // object -> last event, within perObject
	closed  bool
}

type change struct {
	topic string
	data  func() News
}

// News is an event about to be sent: its name, its object, and its scopes.
type News struct {
	Name   string
	Object any
	Scopes []string
}

// NewHub returns a hub without clients. Somebody must call Flush.
func NewHub(clk clock.Clock) *Hub {
	if clk == nil {
		clk = clock.Real{}
	}
	// Events of a former run are unknown: ids start where no former id was, so
	// that a client's Last-Event-ID of then is answered with a reset.
	start := uint64(clk.Now().UnixMicro())
	return &Hub{
		clock: clk, clients: map[*Client]struct{}{}, id: start, floor: start, kick: make(chan struct{}, 1),
		pending: map[string]change{}, sent: map[string]time.Time{},
	}
}

// Changed announces a change of an object; the next Flush sends it, or a later
// one when the object had an event within the last second. data makes the
// event when it is sent. It returns at once.
func (h *Hub) Changed(topic, object string, data func() News) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if len(h.pending) >= maxPending {
		clear(h.pending)
		h.resetLocked()
	}
	h.pending[topic+"/"+object] = change{topic, data}
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Kicked receives when there is something to flush.
func (h *Hub) Kicked() <-chan struct{} { return h.kick }

// send builds an event outside the lock, because data may look at the model.
func (h *Hub) send(c change) {
	news := c.data()
	b, err := json.Marshal(news.Object)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.eventLocked(c.topic, news.Name, b)
	e.Scopes = news.Scopes
	if len(h.ring) == ringSize {
		h.floor = h.ring[0].ID
		copy(h.ring, h.ring[1:])
		h.ring = h.ring[:ringSize-1]
	}
	h.ring = append(h.ring, e)
	h.deliverLocked(Message{e})
}

func (h *Hub) eventLocked(topic, name string, data []byte) Event {
	h.id++
	return Event{ID: h.id, Topic: topic, Wire: fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", h.id, name, data)}
}

// Metrics sends metrics at once; they are not repeated to clients that were away.
func (h *Hub) Metrics(all []News) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) == 0 {
		return
	}
	m := make(Message, 0, len(all))
	for _, news := range all {
		if b, err := json.Marshal(news.Object); err == nil {
			e := h.eventLocked("metrics", "metrics", b)
			e.Scopes = news.Scopes
			m = append(m, e)
		}
	}
	h.deliverLocked(m)
}

// Flush sends what is due (V3). It must be called after a kick and once a second.
func (h *Hub) Flush() {
	h.mu.Lock()
	now := h.clock.Now()
	for key, at := range h.sent {
		if now.Sub(at) >= perObject {
			delete(h.sent, key)
		}
	}
	var due []change
	for key, c := range h.pending {
		if _, lately := h.sent[key]; lately {
			continue
		}
		due = append(due, c)
		delete(h.pending, key)
		h.sent[key] = now
	}
	h.mu.Unlock()
	for _, c := range due {
		h.send(c)
	}
}

func (h *Hub) deliverLocked(m Message) {
	for c := range h.clients {
		part := m
		if c.topics != nil {
			part = nil
			for _, e := range m {
				if c.topics[e.Topic] || e.Topic == "" {
					part = append(part, e)
				}
			}
		}
		if len(part) == 0 {
			continue
		}
		select {
		case c.c <- part:
		default:
			h.dropLocked(c) // V2: it reconnects and catches up from the ring
		}
	}
}

func (h *Hub) dropLocked(c *Client) {
	if _, ok := h.clients[c]; ok {
		delete(h.clients, c)
		close(c.c)
	}
}

// resetLocked tells every client to read everything again.
func (h *Hub) resetLocked() {
	h.ring = h.ring[:0]
	e := h.eventLocked("", "reset", []byte("{}"))
	h.floor = e.ID
	h.deliverLocked(Message{e})
}

// Subscribe adds a client. last is the newest event it has seen, 0 for none:
// what it missed is in its channel first, or a reset when that is not known any
// more. false: there are too many clients, or the hub is closed.
func (h *Hub) Subscribe(topics map[string]bool, last uint64) (*Client, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.clients) >= MaxClients {
		return nil, false
	}
	c := &Client{c: make(chan Message, clientBuffer), topics: topics}
	c.C = c.c
	if missed := h.missedLocked(last, topics); len(missed) > 0 {
		c.c <- missed
	}
	h.clients[c] = struct{}{}
	return c, true
}

// missedLocked returns the events after last. Ids between those in the ring
// belonged to metrics, which are not repeated.
func (h *Hub) missedLocked(last uint64, topics map[string]bool) Message {
	if last == 0 || last == h.id {
		return nil
	}
	if last > h.id || last < h.floor {
		e := h.eventLocked("", "reset", []byte("{}"))
		return Message{e}
	}
	var m Message
	for _, e := range h.ring {
		if e.ID > last && (topics == nil || topics[e.Topic]) {
			m = append(m, e)
		}
	}
	return m
}

// Unsubscribe removes a client; a dropped one too.
func (h *Hub) Unsubscribe(c *Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(c)
}

// Clients returns the number of subscribers.
func (h *Hub) Clients() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients)
}

// Close drops every client; events are discarded from now on.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.clients {
		h.dropLocked(c)
	}
}
