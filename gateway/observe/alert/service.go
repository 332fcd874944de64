package alert

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// lookEvery is how often causes are looked at.
	lookEvery = 10 * time.Second
	// sendMost bounds one delivery.
	sendMost = 45 * time.Second
	// retryFirst and retryMost are the pauses after a failed delivery, doubled each time.
	retryFirst, retryMost = 10 * time.Second, 10 * time.Minute
	// perMessage bounds the alerts of one message; the next one follows with the rest.
	perMessage = 50
	// storeMost bounds a read or write of what was told.
	storeMost = 5 * time.Second
)

// Config is what people set.
type Config struct {
	Rules    []Rule // own rules, then Defaults as they were changed
	Silences []Silence
	Channels []Channel
}

// Options are what a Service works with.
type Options struct {
	Clock  clock.Clock // nil: the machine's
	Log    *slog.Logger
	Causes func(context.Context) []Cause
	Config func() Config
	Leads  func(context.Context) bool // whether this node is the one that tells
	Load   func(context.Context) ([]byte, error)
	Save   func(context.Context, []byte) error
	Send   func(context.Context, Channel, Message) error // nil: Send
	// Sent, when set, is told of each delivery, and of the first one that failed after one
	// that did not. It must not block.
	Sent func(channel, subject string, err error)
}

// Service tells what is wrong. Safe for concurrent use.
type Service struct {
	o Options

	mu     sync.Mutex
	book   *book // nil: this node does not tell
	failed map[string]*failure
	busy   map[string]bool // channels that a delivery goes to
	sends  sync.WaitGroup
}

type failure struct {
	name  string
	since time.Time
	err   error
	times int
	next  time.Time // not before then again
}

// New returns a Service; Run runs it.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Send == nil {
		o.Send = Send
	}
	if o.Sent == nil {
		o.Sent = func(string, string, error) {}
	}
	return &Service{o: o, failed: map[string]*failure{}, busy: map[string]bool{}}
}

// Run looks and tells until ctx ends, and waits for the deliveries that go on.
func (s *Service) Run(ctx context.Context) {
	t := s.o.Clock.NewTimer(0)
	defer t.Stop()
	defer s.sends.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C():
		}
		t.Reset(lookEvery)
		s.look(ctx)
	}
}

// look takes the causes of now, and begins the deliveries that are due.
func (s *Service) look(ctx context.Context) {
	if !s.o.Leads(ctx) {
		s.mu.Lock()
		s.book = nil // another one goes on with what is stored
		clear(s.failed)
		s.mu.Unlock()
		return
	}
	if !s.load(ctx) {
		return
	}
	causes, config := s.o.Causes(ctx), s.o.Config()
	channels := map[string]bool{}
	for _, c := range config.Channels {
		channels[c.ID] = true
	}
	now := s.o.Clock.Now()
	s.mu.Lock()
	changed := s.book.observe(now, causes, config.Rules, channels)
	maps.DeleteFunc(s.failed, func(id string, _ *failure) bool { return !channels[id] })
	s.mu.Unlock()
	if changed {
		s.save(ctx)
	}
	for _, c := range config.Channels {
		s.mu.Lock()
		f := s.failed[c.ID]
		var due []Alert
		if !s.busy[c.ID] && (f == nil || !now.Before(f.next)) {
			due = s.book.due(c.ID, now, config.Rules, config.Silences)
		}
		s.busy[c.ID] = s.busy[c.ID] || len(due) > 0
		s.mu.Unlock()
		if len(due) > 0 {
			s.sends.Go(func() { s.deliver(ctx, c, due[:min(len(due), perMessage)]) })
		}
	}
}

// load reads what was told before this node began to tell.
func (s *Service) load(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, storeMost)
	defer cancel()
	j, err := s.o.Load(ctx)
	if err != nil {
		s.o.Log.Warn("alerts wait: what was told before is not known", "error", err)
		return false
	}
	b, err := parseBook(j)
	if err != nil {
		s.o.Log.Warn("alerts may be told again", "error", err)
	}
	s.book = b
	return true
}

func (s *Service) save(ctx context.Context) {
	s.mu.Lock()
	if s.book == nil {
		s.mu.Unlock()
		return
	}
	j := s.book.marshal()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeMost)
	defer cancel()
	if err := s.o.Save(ctx, []byte(j)); err != nil {
		s.o.Log.Warn("what was told of alerts is not stored: it may be told again", "error", err)
	}
}

// deliver tells a channel.
func (s *Service) deliver(ctx context.Context, c Channel, alerts []Alert) {
	sctx, cancel := context.WithTimeout(ctx, sendMost)
	defer cancel()
	m := messageOf(alerts)
	err := s.o.Send(sctx, c, m)
	now := s.o.Clock.Now()
	s.mu.Lock()
	delete(s.busy, c.ID)
	if err != nil {
		f := s.failed[c.ID]
		if f == nil {
			f = &failure{since: now}
			s.failed[c.ID] = f
			s.o.Log.Warn("alerts are not delivered", "channel", c.Name, "error", err)
			s.o.Sent(c.Name, m.Subject, err)
		}
		f.name, f.err = c.Name, err
		f.next = now.Add(min(retryMost, retryFirst<<min(f.times, 10)))
		f.times++
		s.mu.Unlock()
		return
	}
	if s.failed[c.ID] != nil {
		delete(s.failed, c.ID)
		s.o.Log.Info("alerts are delivered again", "channel", c.Name)
	}
	if s.book != nil {
		s.book.told(c.ID, alerts, now)
	}
	s.mu.Unlock()
	s.o.Sent(c.Name, m.Subject, nil)
	s.save(ctx)
}

// Failure is a channel that does not take what it is told.
type Failure struct {
	Channel string // its name
	Since   time.Time
	Err     error
}

// Failures returns the channels that fail.
func (s *Service) Failures() []Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Failure
	for _, f := range s.failed {
		out = append(out, Failure{f.name, f.since, f.err})
	}
	return out
}

// Alerts returns what is followed, the newest first; on the node that tells.
func (s *Service) Alerts(ctx context.Context) ([]Alert, error) {
	s.mu.Lock()
	if s.book != nil {
		defer s.mu.Unlock()
		return s.book.list(), nil
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeMost)
	defer cancel()
	j, err := s.o.Load(ctx)
	if err != nil {
		return nil, err
	}
	b, err := parseBook(j)
	if err != nil {
		return nil, err
	}
	return b.list(), nil
}

// Test sends a message that is no alert.
func (s *Service) Test(ctx context.Context, c Channel, by string) error {
	ctx, cancel := context.WithTimeout(ctx, sendMost)
	defer cancel()
	return s.o.Send(ctx, c, Message{Subject: "ovgate: test of channel " + c.Name, Text: "A test that " + by + " asked for. Nothing is wrong.", Items: []Item{}})
}
