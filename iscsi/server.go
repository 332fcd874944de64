package iscsi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Limits bound what peers may make the server hold. Zero fields take the
// defaults of DefaultLimits.
type Limits struct {
	Connections  int           // open TCP connections, logged in or not
	PreLogin     int           // of those, connections that have not finished login; a new one takes the place of one that is late
	Sessions     int           // logged-in normal sessions, at most 65534
	Discovery    int           // discovery sessions
	QueueDepth   int           // commands in flight per session (CmdSN window)
	SessionBytes int64         // data buffers held by one session; beyond it TASK SET FULL
	ServerBytes  int64         // and by all of them; what others hold leaves each a part
	LoginTime    time.Duration // from accept to full feature phase
	PingIdle     time.Duration // silence after which the target sends a NOP-In ping
	PingTime     time.Duration // time to answer a ping before the session is dropped; one that has a write's data
	// to send, or answers to read, and does not get on with it is dropped after PingIdle + PingTime
}

// DefaultLimits are the limits used where Config leaves zero.
func DefaultLimits() Limits {
	return Limits{
		Connections:  1024,             // 512 hosts with two paths
		PreLogin:     128,              // a rack that boots at once; 128 x 24 KiB of text at most
		Sessions:     1000,             // below Connections, so that discovery still gets in
		Discovery:    64,               // hosts of a cluster that rescan at once; with Sessions below Connections
		QueueDepth:   128,              // what hypervisors use per device
		SessionBytes: 64 << 20,         // 128 commands of 512 KiB
		ServerBytes:  512 << 20,        // eight sessions at their limit, and 1000 with some commands
		LoginTime:    15 * time.Second, // open-iscsi gives up after 15 s
		PingIdle:     15 * time.Second, // half of a hypervisor's path time-out
		PingTime:     10 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	set(&l.Connections, d.Connections)
	set(&l.PreLogin, d.PreLogin)
	set(&l.Sessions, d.Sessions)
	set(&l.Discovery, d.Discovery)
	set(&l.QueueDepth, d.QueueDepth)
	set(&l.SessionBytes, d.SessionBytes)
	set(&l.ServerBytes, d.ServerBytes)
	set(&l.LoginTime, d.LoginTime)
	set(&l.PingIdle, d.PingIdle)
	set(&l.PingTime, d.PingTime)
	l.Sessions = min(l.Sessions, maxTSIH-1) // one handle is that of all discovery sessions
	l.QueueDepth = min(l.QueueDepth, maxQueueDepth)
	return l
}

func set[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

const (
	// maxTSIH is the largest target session identifying handle; 0 means "new".
	maxTSIH = 0xffff
	// maxQueueDepth keeps a session's bookkeeping and its window well inside the
	// serial-number space.
	maxQueueDepth = 4096
)

// Config is what a Server needs. The zero value is usable.
type Config struct {
	Log    *slog.Logger // nil: discard
	Clock  clock.Clock  // nil: the machine's clock
	Rand   io.Reader    // CHAP challenges; nil: crypto/rand
	Limits Limits
	// DiscoveryAuth, when set, is demanded of discovery sessions.
	DiscoveryAuth *Auth
	// DiscoveryCHAP says what discovery sessions prove without DiscoveryAuth.
	DiscoveryCHAP DiscoveryCHAP
	// Forward takes commands of units with a RemoteDisk to the nodes that serve them;
	// nil: they are answered BUSY.
	Forward Forwarder
	// Refused, when set, is told of each login that is refused. It must not block.
	Refused func(Refusal)
}

// DiscoveryCHAP says whether initiators prove in a discovery session what a group demands of
// them that admits them to a target.
type DiscoveryCHAP int

const (
	// DiscoveryOpen: they need not; who insists on CHAP is refused.
	DiscoveryOpen DiscoveryCHAP = iota
	// DiscoveryOptional: who insists on CHAP does it, the others need not.
	DiscoveryOptional
	// DiscoveryRequired: all have to; who is in no group with CHAP is told nothing.
	DiscoveryRequired
)

// Refusal is a login that was refused.
type Refusal struct {
	Target    string // that was asked for; of the initiator's choice, as its name
	Initiator string
	Remote    string // its address
	Reason    error
}

// Errors of the Server's methods; match with errors.Is.
var (
	ErrNoTarget     = errors.New("iscsi: no such target")
	ErrTargetExists = errors.New("iscsi: target exists")
	ErrTargetBusy   = errors.New("iscsi: target has sessions")
	ErrNoSession    = errors.New("iscsi: no such session")
	ErrNoLUN        = errors.New("iscsi: no such LUN")
	ErrServerClosed = errors.New("iscsi: server is shut down")
)

// TargetBusyError is returned by RemoveTarget; it matches ErrTargetBusy.
type TargetBusyError struct {
	Target   string
	Sessions []SessionInfo
}

// Error names the target and the initiators that use it.
func (e *TargetBusyError) Error() string {
	s := fmt.Sprintf("iscsi: target %s has %d session(s):", e.Target, len(e.Sessions))
	for _, i := range e.Sessions {
		s += fmt.Sprintf(" %s from %s (session %s)", i.Initiator, i.Remote, i.ID)
	}
	return s + "; log them out first, or remove by force"
}

// Is matches ErrTargetBusy.
func (e *TargetBusyError) Is(err error) bool { return err == ErrTargetBusy }

// Server is an iSCSI target node set: any number of listeners and targets.
// Its methods are safe for concurrent use.
type Server struct {
	log      *slog.Logger
	clk      clock.Clock
	rnd      io.Reader
	lim      Limits
	disc     *Auth
	discCHAP DiscoveryCHAP
	svc      *scsiService
	forward  Forwarder
	refused  func(Refusal)
	commands *commandTable
	bufs     bufferPool
	budget   budget
	tasks    sync.Pool
	reps     sync.Pool
	batches  sync.Pool
	readBufs sync.Pool
	stats    counters
	copies   atomic.Int32 // EXTENDED COPY commands under way
	refusals logLimit     // log lines about refused logins and connections
	comings  logLimit     // and about sessions that open and close
	pacer    *pacer
	epoch    atomic.Uint32 // seconds since the start, by the watchdog
	tick     chan struct{} // closed to end the watchdog and the pacer
	ticked   sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	targets   map[string]*target
	conns     map[*conn]struct{}
	prelogin  int                 // of them, those that have not finished login
	sessions  map[uint16]*session // by TSIH
	discovery int                 // discovery sessions
	served    int                 // sessions of other nodes, which are in conns
	byID      map[string]*session
	lost      map[lostKey]LostSession
	nextTSIH  uint16
	nextID    uint64
	watching  bool
	wg        sync.WaitGroup // connections
}

// NewServer returns a server without targets or listeners.
func NewServer(cfg Config) *Server {
	s := &Server{
		log: cfg.Log, clk: cfg.Clock, rnd: cfg.Rand, lim: cfg.Limits.withDefaults(),
		disc:      cfg.DiscoveryAuth,
		discCHAP:  cfg.DiscoveryCHAP,
		forward:   cfg.Forward,
		refused:   cfg.Refused,
		svc:       newSCSIService(),
		commands:  newCommandTable(),
		pacer:     newPacer(),
		tick:      make(chan struct{}),
		listeners: map[net.Listener]struct{}{},
		targets:   map[string]*target{},
		conns:     map[*conn]struct{}{},
		sessions:  map[uint16]*session{},
		byID:      map[string]*session{},
		lost:      map[lostKey]LostSession{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clk == nil {
		s.clk = clock.Real{}
	}
	if s.rnd == nil {
		s.rnd = rand.Reader
	}
	s.refusals.perHost, s.refusals.all = hostLines, refusalLines
	s.comings.all = sessionLines
	s.epoch.Store(1)
	s.bufs.init()
	s.budget.init(s.lim)
	s.tasks.New = func() any { return newTask() }
	s.reps.New = func() any { return new(reply) }
	s.batches.New = func() any { return newBatch() }
	s.readBufs.New = func() any { return new([readBuffer]byte) }
	return s
}

// Serve accepts initiators on l until l fails or the server shuts down, and
// closes l. It returns ErrServerClosed after Shutdown. Several listeners may be
// served at once.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	if !s.watching {
		s.watching = true
		s.ticked.Add(2)
		go s.watch()
		go s.pace()
	}
	s.mu.Unlock()
	err := s.accept(l)
	_ = l.Close()
	s.mu.Lock()
	delete(s.listeners, l)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrServerClosed
	}
	return fmt.Errorf("iscsi: listener %s: %w", l.Addr(), err)
}

// acceptRetry is the pause after an accept error that passes (out of file
// descriptors); long enough not to spin, short enough not to be noticed.
const acceptRetry = 100 * time.Millisecond

func (s *Server) accept(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isTemporary(err) {
				t := s.clk.NewTimer(acceptRetry)
				select {
				case <-t.C():
					continue
				case <-s.tick:
					t.Stop()
				}
			}
			return err
		}
		s.start(nc)
	}
}

// start runs a connection, or closes it when a limit is reached.
func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	late := s.makeRoom(c.since)
	prelogin := s.prelogin
	if open := len(s.conns) - s.served; s.closed || open >= s.lim.Connections || prelogin >= s.lim.PreLogin {
		s.mu.Unlock()
		s.stats.refused.Add(1)
		_ = nc.Close()
		s.logRefusal(slog.LevelWarn, c.remote, "connection refused: too many, or shutting down", "connections", open, "preLogin", prelogin)
		return
	}
	s.conns[c] = struct{}{}
	s.prelogin++
	s.wg.Add(1)
	s.mu.Unlock()
	if late != nil {
		late.dead("")
	}
	s.stats.accepted.Add(1)
	go func() {
		defer s.wg.Done()
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		if !c.loggedIn.Load() && !c.displaced {
			s.prelogin--
		}
		s.mu.Unlock()
	}()
}

// loginGrace is how long a login may take when others want its place: many times
// what it takes over a slow line. Whoever occupies all places with connections that
// say nothing delays others by this, not by LoginTime.
const loginGrace = 2 * time.Second

// makeRoom takes a place from the connection that has been in login for the longest,
// if there is none left and that is longer than loginGrace; the caller drops it. A
// login that waits for the session which it replaces keeps its place. mu is held.
func (s *Server) makeRoom(now time.Time) *conn {
	if s.closed || s.prelogin < s.lim.PreLogin || len(s.conns)-s.served >= s.lim.Connections {
		return nil
	}
	var late *conn
	for c := range s.conns {
		if !c.loggedIn.Load() && !c.displaced && !c.replacing.Load() && now.Sub(c.since) > loginGrace &&
			(late == nil || c.since.Before(late.since)) {
			late = c
		}
	}
	if late != nil {
		late.displaced = true
		s.prelogin--
	}
	return late
}

// AddTarget publishes a target. It fails with ErrTargetExists, or says which
// field of the spec is wrong.
func (s *Server) AddTarget(spec TargetSpec) error {
	if err := spec.validate(); err != nil {
		return err
	}
	spec.Name = NormalizeName(spec.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrServerClosed
	}
	if _, ok := s.targets[spec.Name]; ok {
		return fmt.Errorf("%w: %s; update it, or remove it first", ErrTargetExists, spec.Name)
	}
	t, err := newTarget(s, spec)
	if err != nil {
		return err
	}
	s.targets[spec.Name] = t
	return nil
}

// UpdateTarget replaces a target's spec while it is in use. Sessions stay, except
// those whose initiator is no longer admitted, those that have moved to a group
// which demands credentials other than what they proved, and those whose portal is
// gone or in another port group; new credentials of the group that a session is in
// apply from the next login. Where logins are sent elsewhere, initiators are asked to log
// out, and connections end with nothing in flight. A LUN whose number, disk
// and identity did not change keeps its state. Where what a session sees has
// changed, REPORTED LUNS DATA HAS CHANGED is raised on that nexus. A removed LUN's
// commands in flight still finish.
func (s *Server) UpdateTarget(spec TargetSpec) error {
	if err := spec.validate(); err != nil {
		return err
	}
	spec.Name = NormalizeName(spec.Name)
	s.mu.Lock()
	t := s.targets[spec.Name]
	if t == nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNoTarget, spec.Name)
	}
	was, owners, luns := t.portGroups(), t.owners(), *t.luns.Load()
	if err := t.update(spec); err != nil {
		s.mu.Unlock()
		return err
	}
	if !slices.Equal(was, t.portGroups()) {
		s.accessChanged(t)
	}
	var drop []func()
	for ss := range t.sessions {
		if why, wait := ss.misplaced(); why != "" {
			drop = append(drop, func() {
				ss.logged("session dropped", "reason", why)
				ss.conn.expel(wait)
			})
			continue
		}
		ss.setView(t.admit(ss.initiator))
		if ss.redirected() {
			drop = append(drop, func() {
				ss.logged("session asked to log in again", "reason", "logins are sent elsewhere")
				ss.conn.drain()
			})
		}
	}
	s.ownersChanged(t, owners, luns)
	s.mu.Unlock()
	for _, f := range drop {
		f()
	}
	return nil
}

// RemoveTarget withdraws a target. With sessions on it, it fails with a
// *TargetBusyError unless force is set; then they are dropped. When it returns
// nil, no command of the target is in flight and none will be submitted.
func (s *Server) RemoveTarget(iqn string, force bool) error {
	iqn = NormalizeName(iqn)
	s.mu.Lock()
	t := s.targets[iqn]
	if t == nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	users := slices.Collect(maps.Keys(t.sessions))
	if len(users) > 0 && !force {
		s.mu.Unlock()
		e := &TargetBusyError{Target: iqn}
		for _, ss := range users {
			e.Sessions = append(e.Sessions, ss.info())
		}
		sortSessions(e.Sessions)
		return e
	}
	delete(s.targets, iqn)
	s.svc.removeTarget(t.scsi)
	s.mu.Unlock()
	t.liftRates()
	for _, ss := range users {
		ss.conn.expel(waitIfGone)
	}
	for _, ss := range users {
		<-ss.gone
	}
	t.endCopies()
	return nil
}

// CapacityChanged tells initiators that the Disk behind a LUN has grown.
func (s *Server) CapacityChanged(iqn string, lun uint16) error {
	return s.raise(iqn, lun, uaCapacityChanged)
}

// ModeChanged tells initiators that the Disk's WriteCache or ReadOnly changed.
func (s *Server) ModeChanged(iqn string, lun uint16) error {
	return s.raise(iqn, lun, uaModeChanged)
}

func (s *Server) raise(iqn string, lun uint16, ua sense) error {
	iqn = NormalizeName(iqn)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[iqn]
	if t == nil {
		return fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	l := t.lun(lun)
	if l == nil {
		return fmt.Errorf("%w: target %s LUN %d", ErrNoLUN, iqn, lun)
	}
	for ss := range t.sessions {
		ss.attention(l, ua)
	}
	return nil
}

// Targets lists the targets by name.
func (s *Server) Targets() []TargetInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := map[*Group]int{}
	for _, ss := range s.sessions {
		in[ss.view.Load().group]++
	}
	out := make([]TargetInfo, 0, len(s.targets))
	for _, t := range s.targets {
		i := t.info()
		i.Sessions = len(t.sessions)
		for k := range i.Groups {
			i.Groups[k].Sessions = in[&t.spec.Load().Groups[k]]
		}
		out = append(out, i)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Sessions lists the logged-in normal sessions, oldest first.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	list := make([]*session, 0, len(s.sessions))
	for _, ss := range s.sessions {
		list = append(list, ss)
	}
	s.mu.Unlock()
	out := make([]SessionInfo, 0, len(list))
	for _, ss := range list {
		out = append(out, ss.info())
	}
	sortSessions(out)
	return out
}

// Session describes one session in full, with what it did on each logical unit.
func (s *Server) Session(id string) (SessionInfo, error) {
	ss := s.sessionByID(id)
	if ss == nil {
		return SessionInfo{}, fmt.Errorf("%w: %s", ErrNoSession, id)
	}
	i := ss.info()
	ss.nexusMu.Lock()
	for _, n := range ss.nexuses {
		i.LUNs = append(i.LUNs, n.stats())
	}
	ss.nexusMu.Unlock()
	sort.Slice(i.LUNs, func(a, b int) bool { return i.LUNs[a].Number < i.LUNs[b].Number })
	return i, nil
}

func (s *Server) sessionByID(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

func sortSessions(v []SessionInfo) {
	sort.Slice(v, func(i, j int) bool {
		if !v[i].Since.Equal(v[j].Since) {
			return v[i].Since.Before(v[j].Since)
		}
		return v[i].ID < v[j].ID
	})
}

// DropSession tells a session's initiator that its connection will be dropped,
// and closes it; the initiator usually returns.
func (s *Server) DropSession(id string) error {
	ss := s.sessionByID(id)
	if ss == nil {
		return fmt.Errorf("%w: %s", ErrNoSession, id)
	}
	ss.conn.expel(waitToReturn)
	return nil
}

// Shutdown stops accepting, asks initiators to log out, answers new commands
// BUSY, lets running ones finish and their replies leave, then closes every
// connection. When ctx ends first it closes them at once and returns ctx's
// error; a command still inside a Disk then completes unanswered.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	for _, t := range s.targets {
		t.liftRates()
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("iscsi: shutdown: %w", ctx.Err())
		for _, c := range conns {
			c.close()
		}
	}
	if first {
		close(s.tick)
	}
	s.ticked.Wait()
	return err
}

// counters are the server's totals.
type counters struct {
	accepted, refused, logins, loginFailures, commands, readBytes, writeBytes,
	rejects, digestErrors, dropped, taskMgmt, gotgtFaults atomic.Uint64
}

// Stats are totals since NewServer, and what is open now.
type Stats struct {
	Connections, Sessions                    int
	Accepted, Refused, Logins, LoginFailures uint64
	Commands, BytesRead, BytesWritten        uint64
	Rejects, DigestErrors                    uint64
	TaskManagement                           uint64 // functions taken up
	DeadPeers                                uint64 // dropped for not answering or not finishing login
	SCSIServiceFaults                        uint64 // panics and wrong answers of the SCSI service that were caught
}

// Stats returns the totals.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	nc, ns := len(s.conns)-s.served, len(s.sessions)
	s.mu.Unlock()
	c := &s.stats
	return Stats{
		Connections: nc, Sessions: ns,
		Accepted: c.accepted.Load(), Refused: c.refused.Load(),
		Logins: c.logins.Load(), LoginFailures: c.loginFailures.Load(),
		Commands: c.commands.Load(), BytesRead: c.readBytes.Load(), BytesWritten: c.writeBytes.Load(),
		TaskManagement: c.taskMgmt.Load(), Rejects: c.rejects.Load(), DigestErrors: c.digestErrors.Load(),
		DeadPeers: c.dropped.Load(), SCSIServiceFaults: c.gotgtFaults.Load() + s.svc.faults.Load(),
	}
}
