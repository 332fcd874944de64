// Package maintenance keeps an Alba as its presets want it, without being asked:
// it looks at devices, makes lost fragments anew, deletes garbage, verifies,
// spreads data over new devices, and counts what the data would survive. Any
// number of agents may run; each change is conditional, so that two which do
// the same waste work and harm nothing.
//
// # Rounds
//
//	probe       every device: does it read and write, is it the one it was?
//	reconcile   a device that came back: are all fragments there that it should have?
//	work        objects that were stored incomplete or found damaged
//	survey      every manifest: safety, fragments on devices that are leaving or
//	            dead, better policies
//	garbage     fragments that manifests no longer name
//	collect     fragments that none ever named: interrupted uploads
//	removals    namespaces that were deleted
//	sweep       leftovers of such namespaces on devices that were away
//	verify      every stored byte against its checksum
//	rebalance   from full devices to empty ones
//
// Work and survey repair some objects side by side (crew.go). Rebalancing comes after repair, and
// ends where another survey is asked for, such as when a device was given up meanwhile.
//
// Not a round, but asked for: RecoverNamespace rebuilds the records of a namespace
// from the devices when its NSM host lost them (recover.go says what comes back).
//
// # Invariants
//
//	T1  A fragment is deleted only when a manifest dropped it (garbage), or when it
//	    was written in an epoch that is closed on its host and no manifest names
//	    it (collect), or when the manager removed its namespace. Whatever cannot
//	    be looked up is left alone.
//	T2  A device leaves only after a survey that began after the hosts stopped new
//	    fragments on it, looked at every manifest, and met none that names it.
//	T3  A device that was silent for longer than the auto-repair time is rebuilt
//	    elsewhere; when it returns it is compared with the manifests before it
//	    counts again.
//	T4  A device that runs anew, or whose count of transactions fell, is compared
//	    with the manifests. While it is known to be an older copy its fragments
//	    do not count for safety.
//	T5  A namespace whose records are lost has objects, only nobody knows which:
//	    until it is recovered nothing of it is deleted, no device leaves, and no
//	    purge is called safe.
package maintenance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Defaults.
const (
	// DefaultProbe is the time between two looks at a device.
	DefaultProbe = 10 * time.Second
	// DefaultAutoRepair is the silence after which a device is given up, the
	// original's 900 s: a reboot is shorter.
	DefaultAutoRepair = 900 * time.Second
	// DefaultGrace is how long an upload may take: epochs are closed no sooner.
	DefaultGrace = 15 * time.Minute
	// DefaultSurvey is the time between two surveys when nothing changed.
	DefaultSurvey = 10 * time.Minute
	// surveyAgain is that time while something waits for repair, so that what is told of
	// safety is not older.
	surveyAgain = time.Minute
	// DefaultVerify is the time in which every stored byte is verified.
	DefaultVerify = 30 * 24 * time.Hour
	// DefaultRate bounds what repair, verification and rebalancing each move, in
	// bytes a second.
	DefaultRate = 256 << 20
	// restShare is how many times its own length a round rests at least, workShare one that did
	// what was found: what is overwritten and deleted, damaged, or back is not to wait ten times
	// as long as what came before it took.
	restShare = 10
	workShare = 1
	// DefaultWork is how soon work and garbage are seen.
	DefaultWork = 5 * time.Second
)

// Event is something an administrator should know.
type Event struct {
	Code    string // what kind of event it is: "osd.failed"
	OSD     uint32 // 0: not about a device
	Level   slog.Level
	Message string
}

// Options configure an Agent.
type Options struct {
	Client *client.Client
	Clock  clock.Clock
	Log    *slog.Logger
	// Event is told what happens; may be nil.
	Event func(Event)

	Probe      time.Duration // DefaultProbe if 0
	AutoRepair time.Duration // DefaultAutoRepair if 0; negative: never
	Grace      time.Duration // DefaultGrace if 0
	Survey     time.Duration // DefaultSurvey if 0
	Verify     time.Duration // DefaultVerify if 0; negative: never
	Work       time.Duration // DefaultWork if 0
	Rate       int64         // bytes a second, DefaultRate if 0
	Timeout    time.Duration // of one call of a device, client.DefaultTimeout if 0
	// Leads tells whether this agent does the rounds now; nil: always. What is asked for, as
	// a verification, it does anyway.
	Leads func() bool
	// NodeName is what people call a node; nil: as the records do.
	NodeName func(id string) string
	// NoDeletes stops garbage, collect, removals and sweep: after a restore of
	// the metadata, until it was compared with the devices.
	NoDeletes bool
}

// Agent does maintenance between Start and Stop; its rounds can also be run
// one by one.
type Agent struct {
	o   Options
	c   *client.Client
	m   *manager.Manager
	log *slog.Logger

	mu     sync.Mutex
	safety Safety
	jobs   map[string]*Job
	epochs map[uint64]openEpoch
	lost   map[string]bool // objects whose loss was told
	left   map[workKey]leftWork
	wake   chan struct{} // survey soon

	verifying, recovering bool
	ctx                   context.Context // of the rounds
	cancel                context.CancelFunc
	wg                    sync.WaitGroup
}

// New returns an agent.
func New(o Options) *Agent {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Probe, DefaultProbe)
	def(&o.AutoRepair, DefaultAutoRepair)
	def(&o.Grace, DefaultGrace)
	def(&o.Survey, DefaultSurvey)
	def(&o.Verify, DefaultVerify)
	def(&o.Work, DefaultWork)
	def(&o.Timeout, client.DefaultTimeout)
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	if o.Leads == nil {
		o.Leads = func() bool { return true }
	}
	if o.NodeName == nil {
		o.NodeName = func(id string) string { return id }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{o: o, c: o.Client, m: o.Client.Manager(), log: o.Log, jobs: map[string]*Job{}, epochs: map[uint64]openEpoch{}, lost: map[string]bool{}, left: map[workKey]leftWork{}, wake: make(chan struct{}, 1)}
}

// Start begins the rounds.
func (a *Agent) Start() {
	a.soon() // what is there is not known yet
	// A probe may find a device back before the client does, and a survey between the two
	// moves nothing to it.
	a.c.OnWorks(a.soon)
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(context.Background())
	a.ctx = ctx
	// Alone and without a rest: that a device failed is seen in time whatever else goes on,
	// and what a probe takes is waiting for devices that do not answer.
	a.every(ctx, "probe", always(a.o.Probe), 0, nil, looks(func(ctx context.Context) error {
		return errors.Join(a.Probe(ctx), a.m.Follow(ctx))
	}))
	a.every(ctx, "reconcile", always(a.o.Probe), restShare, nil, a.reconcile)
	a.every(ctx, "work", always(a.o.Work), restShare, nil, a.work)
	a.every(ctx, "survey", a.untilSurvey, restShare, a.wake, looks(a.surveyAndRebalance))
	if !a.o.NoDeletes {
		// Not behind work, which may take hours: what is overwritten would fill the devices.
		a.every(ctx, "garbage", always(a.o.Work), restShare, nil, func(ctx context.Context) (bool, error) {
			did, err := a.garbage(ctx)
			return did, errors.Join(err, a.Removals(ctx))
		})
		a.every(ctx, "collect", always(a.o.Grace), restShare, nil, looks(func(ctx context.Context) error {
			return errors.Join(a.Collect(ctx), a.Sweep(ctx))
		}))
	}
	if a.o.Verify > 0 {
		a.every(ctx, "verify", always(a.o.Verify), restShare, nil, looks(a.Verify))
	}
}

// surveyAndRebalance repairs first: there is no rebalancing while a survey finds something that
// it can repair and does not come to an end with it, nor once another survey is asked for, as
// when a device was given up: to rebalance may take hours.
func (a *Agent) surveyAndRebalance(ctx context.Context) error {
	moved, err := a.survey(ctx)
	if s := a.Safety(); err == nil && moved > 0 && s.Repair+s.Worse > 0 {
		return nil
	}
	return errors.Join(err, a.rebalanceWhile(ctx, func() bool { return len(a.wake) == 0 }))
}

// Stop ends the rounds and waits for them.
func (a *Agent) Stop() {
	a.cancel()
	a.wg.Wait()
}

// looks is a round that counts as one that did nothing.
func looks(fn func(context.Context) error) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) { return false, fn(ctx) }
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// untilSurvey is when the next survey comes by itself.
func (a *Agent) untilSurvey() time.Duration {
	if s := a.Safety(); s.Repair > 0 || s.Worse > 0 {
		return min(a.o.Survey, surveyAgain)
	}
	return a.o.Survey
}

// every runs fn at intervals, and when wake says so. A round that takes long comes less
// often: it rests for so many times its own length at least, or workShare times if it did
// something.
func (a *Agent) every(ctx context.Context, what string, interval func() time.Duration, rest time.Duration, wake <-chan struct{}, fn func(context.Context) (did bool, err error)) {
	a.wg.Go(func() {
		timer := a.o.Clock.NewTimer(interval())
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C():
			case <-wake:
			}
			if !a.o.Leads() {
				timer.Reset(interval())
				continue
			}
			begin := a.o.Clock.Now()
			did, err := fn(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Warn("maintenance round failed, it is done again", "round", what, "error", err)
			}
			share := rest
			if did {
				share = min(rest, workShare)
			}
			timer.Reset(max(interval(), share*a.o.Clock.Now().Sub(begin)))
		}
	})
}

// soon makes the next survey come now, and what could not be repaired be tried again.
func (a *Agent) soon() {
	a.mu.Lock()
	clear(a.left)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) event(code string, osd uint32, level slog.Level, message string) {
	a.log.Log(context.Background(), level, message, "device", osd)
	if a.o.Event != nil {
		a.o.Event(Event{Code: code, OSD: osd, Level: level, Message: message})
	}
}

// call bounds one call of a device.
func (a *Agent) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return client.WithTimeout(ctx, a.o.Clock, a.o.Timeout)
}

// pace waits so that what began at start and moved n bytes keeps the rate.
func (a *Agent) pace(ctx context.Context, start time.Time, n int64) error {
	ahead := time.Duration(float64(n)/float64(a.o.Rate)*float64(time.Second)) - a.o.Clock.Now().Sub(start)
	if ahead <= 0 {
		return ctx.Err()
	}
	timer := a.o.Clock.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Look makes the next survey come now: something was changed that it acts on.
func (a *Agent) Look() { a.soon() }

// ErrRunning: such a job runs already.
var ErrRunning = errors.New("alba: the job runs already")

// VerifySoon begins to verify a device, or all with 0, behind the caller's back.
// ErrRunning.
func (a *Agent) VerifySoon(number uint32) error {
	return a.behind("verification", &a.verifying, func(ctx context.Context) error {
		if number == 0 {
			return a.Verify(ctx)
		}
		return a.VerifyOSD(ctx, number)
	})
}

// RecoverSoon begins to recover a namespace, or with an empty name all whose records
// are lost, behind the caller's back. ErrRunning.
func (a *Agent) RecoverSoon(name string, o RecoverOptions) error {
	return a.behind("recovery", &a.recovering, func(ctx context.Context) error {
		var err error
		if name == "" {
			_, err = a.RecoverAll(ctx, o)
		} else {
			_, err = a.RecoverNamespace(ctx, name, o)
		}
		if err != nil && ctx.Err() == nil {
			a.event("store.error", 0, slog.LevelError, err.Error())
		}
		return err
	})
}

// behind runs fn in the background, one of its kind at a time.
func (a *Agent) behind(what string, running *bool, fn func(ctx context.Context) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *running {
		return ErrRunning
	}
	*running = true
	a.wg.Go(func() {
		if err := fn(a.ctx); err != nil && a.ctx.Err() == nil {
			a.log.Warn(what+" failed", "error", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		*running = false
	})
	return nil
}
