package vsphere

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// workers bounds jobs at once: they wait for hosts more than they work.
	workers = 16
	// hostsAtOnce bounds hosts that one job waits for at once; see callsAtOnce.
	hostsAtOnce = 256
	// retryMin and retryMax bound the pause before a step is tried again.
	retryMin = time.Second
	retryMax = time.Minute
	// stepTimeout bounds a step: every host of a large cluster, rescanned in turns.
	stepTimeout = 30 * time.Minute
	// requestTimeout bounds what a request waits for a vCenter.
	requestTimeout = 2 * time.Minute
	// reads bounds who looks at a vCenter at once, so that callers who may only look do not
	// make this node sign in without end.
	reads = 2
	// maxCenters and maxDatastores bound records.
	maxCenters    = 64
	maxDatastores = 1024
)

// Options configure a Manager.
type Options struct {
	Model   *model.Store
	Control *control.Controller
	Sealer  *control.Sealer
	Node    string      // id of this node
	Clock   clock.Clock // nil: the machine's
	Log     *slog.Logger
	// Changed is told after a "center" or "datastore" changed, with its id. It must not block.
	Changed func(kind, id string)
	// Cluster is what datastores carry of where they are from, such as "cluster east". nil: nothing.
	Cluster func() string
	// Events is told what happens.
	Events event.Sink
	// Tasks is told what ended; nil: nobody is.
	Tasks *task.Book
}

// Manager works with vCenters. Safe for concurrent use.
type Manager struct {
	opt   Options
	model *model.Store
	ctl   *control.Controller
	log   *slog.Logger
	clock clock.Clock

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}
	reads  chan struct{}

	centerLock chan struct{} // held by who changes a vCenter's record
	targetLock sync.Mutex    // held by who makes a cluster's target or lets hosts in to it
	shares     shares
	notices    notices
	refusals   refusals

	mu      sync.Mutex
	stopped bool
	running map[string]*worker       // by datastore
	calls   map[string]chan struct{} // by vCenter; see callsAtOnce
	watches map[string]*watch        // by vCenter
}

// worker does the job of a datastore.
type worker struct {
	kick   chan struct{} // the job changed
	again  chan struct{} // the record changed: it is looked at before the worker ends
	cancel context.CancelFunc
}

// New returns a Manager; Start makes it work.
func New(opt Options) *Manager {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Changed == nil {
		opt.Changed = func(string, string) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		opt: opt, model: opt.Model, ctl: opt.Control, log: opt.Log, clock: opt.Clock, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, workers), reads: make(chan struct{}, reads), centerLock: make(chan struct{}, 1), running: map[string]*worker{},
		calls: map[string]chan struct{}{}, watches: map[string]*watch{}, shares: shares{running: map[string]*share{}, next: map[string]*share{}}, notices: newNotices(),
	}
}

// Start goes on with the jobs of this node.
func (m *Manager) Start() {
	for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.Node == m.opt.Node && d.Job != nil }) {
		m.work(d.ID)
	}
	m.remark(func(model.Datastore) bool { return true })
}

// Stop ends what is being done; it goes on with the next start.
func (m *Manager) Stop() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
}

// begin bounds a request, which ends when the node stops.
func (m *Manager) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// look waits until one more may look at a vCenter.
func (m *Manager) look(ctx context.Context) (done func(), _ error) {
	select {
	case m.reads <- struct{}{}:
		return func() { <-m.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *Manager) lockCenters(ctx context.Context) error {
	select {
	case m.centerLock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Manager) unlockCenters() { <-m.centerLock }

func centerObject(name string) string    { return "vsphere center " + name }
func datastoreObject(name string) string { return "datastore " + name }
func rdmObject(name string) string       { return "rdm " + name }

// objectOf is what a record is called in errors and events.
func objectOf(d model.Datastore) string {
	if d.RDM != nil {
		return rdmObject(d.Name)
	}
	return datastoreObject(d.Name)
}

// removeHint is the verb that removes what a record is.
func removeHint(d model.Datastore) string {
	if d.RDM != nil {
		return "ovgate vsphere rdm detach " + d.Name
	}
	return "ovgate vsphere datastore remove " + d.Name
}

func invalid(field, object, hint, format string, a ...any) *control.Error {
	return &control.Error{Code: control.CodeInvalid, Field: field, Object: object, Hint: hint, Message: fmt.Sprintf(format, a...)}
}

// clip keeps an unchecked name from filling an error message.
func clip(s string) string {
	const enough = 80
	if len(s) > enough {
		return s[:enough] + "..."
	}
	return s
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkName refuses a bad name of up to most bytes.
func checkName(object, name string, most int) *control.Error {
	if len(name) > most || !namePattern.MatchString(name) {
		return invalid("name", object, fmt.Sprintf("use 1 to %d letters, digits, '.', '_' and '-', beginning with a letter or digit", most), "the name %q is not valid", clip(name))
	}
	return nil
}

// causes say what to do about a refusal of a vCenter or host; first match wins.
var causes = []struct {
	is    error
	code  control.Code
	field string
	hint  string
}{
	{vsphere.ErrCertificate, control.CodeInvalid, "thumbprint", "compare it with what the vCenter's console shows, then: ovgate vsphere center set NAME --thumbprint ..."},
	{vsphere.ErrCredentials, control.CodeInvalid, "secret", "correct user and password: ovgate vsphere center set NAME --user USER --secret-stdin"},
	{vsphere.ErrDenied, control.CodeInvalid, "user", "give the user's role what it lacks, on the root of the vCenter and below"},
	{vsphere.ErrHostAway, control.CodeBackend, "", "bring the host back in its vCenter"},
	{vsphere.ErrUnreachable, control.CodeBackend, "url", "correct the URL, or bring vCenter or network back"},
	{vsphere.ErrExists, control.CodeExists, "name", "choose another name"},
	{vsphere.ErrBusy, control.CodeInUse, "", "wait, or cancel the task in the vCenter; it is looked at again by itself"},
	{vsphere.ErrInUse, control.CodeInUse, "", "end what uses it in the vCenter first"},
	{vsphere.ErrNotFound, control.CodeNotFound, "", "ovgate vsphere host list shows hosts and clusters"},
	{vsphere.ErrRefused, control.CodeBackend, "", "look at the tasks of the host in its vCenter"},
	{model.ErrExists, control.CodeExists, "name", "choose another name"},
	{model.ErrConflict, control.CodeInUse, "", "it changed at the same time; try again"},
	{model.ErrNotFound, control.CodeNotFound, "", ""},
	{context.DeadlineExceeded, control.CodeTimeout, "", "try again; repeating does no harm"},
	{context.Canceled, control.CodeStopping, "", "try again"},
}

// explain gives an error its remedy.
func explain(object string, err error) error {
	var e *control.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	for _, c := range causes {
		if errors.Is(err, c.is) {
			return &control.Error{Code: c.code, Field: c.field, Object: object, Message: err.Error(), Hint: c.hint, Err: err}
		}
	}
	return &control.Error{Code: control.CodeInternal, Object: object, Message: err.Error(), Err: err}
}
