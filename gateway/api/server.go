package api

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/net/netutil"

	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/layout"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/alert"
	"github.com/openvstorage/ovgate/gateway/observe/audit"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/observe/series"
	"github.com/openvstorage/ovgate/gateway/oidc"
	"github.com/openvstorage/ovgate/gateway/precheck"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/gateway/vsphere"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Bounds of a request and of the server (H3).
const (
	maxBody       = 1 << 20 // the largest input, an ACL of 256 names, is below 64 KiB
	maxHeader     = 32 << 10
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	// writeTimeout is above what control takes for one request at most; event
	// streams set a deadline per write instead.
	writeTimeout = 3 * time.Minute
	idleTimeout  = 2 * time.Minute
	// maxConns bounds connections: browsers hold up to six each.
	maxConns = 1024
)

// Options are what a Server shows and acts on.
type Options struct {
	Model      *model.Store
	Auth       *auth.Service
	Control    *control.Controller
	VSphere    *vsphere.Manager
	Alba       *alba.Service
	Sealer     *control.Sealer
	Hub        *observe.Hub
	Sampler    *observe.Sampler
	History    *series.Store                                             // nil: none is kept
	OIDC       *oidc.Service                                             // nil: made of the others
	Machine    func() Machine                                            // of this node, without node, version, health and moment; nil: nothing is told
	Precheck   func(context.Context) []precheck.Check                    // of this node and of what it reaches; nil: nothing is looked at
	Disks      func(context.Context) (layout.Node, []layout.Disk, error) // of this node; nil: none are told
	Claim      func(dirs []string) (task string, err error)              // begins to make devices of directories; nil: as Disks
	Load       func() (cpu, memory float64)                              // percent of the machine's since the look before; nil: unknown
	Audit      *audit.Log                                                // nil: nothing is recorded
	Events     *event.Log                                                // nil: no history of events is kept
	Tasks      *task.Book                                                // what this node works on, with that of Control; nil: a book of its own
	Alerts     *alert.Service                                            // nil: nothing is told
	Metrics    http.Handler                                              // Prometheus; nil: none
	OpenMetric bool                                                      // /metrics without credentials
	Health     func() observe.Health                                     // nil: always well
	// Trends returns how places fill, the soonest full first; nil: nothing is known.
	Trends func() []observe.Trend
	// Requests returns what was counted of the store of a vPool, by id; nil: nothing is.
	Requests func(vpool string) []remote.KindStats
	UI       fs.FS // index.html and assets/; nil: none
	// Living returns the ids of the nodes that have their lease; nil: this one.
	Living    func(context.Context) (map[string]bool, error)
	Cluster   Cluster // nil: the node is in none
	Peers     Peers   // nil: requests are not passed on to other nodes
	NodeID    string  // UUID of this node
	NodeName  string
	Version   Version
	Started   time.Time
	Secure    bool        // served with TLS: cookies are marked Secure
	Clock     clock.Clock // nil: the machine's
	Log       *slog.Logger
	Config    []byte        // the node's configuration as YAML, without secrets, for support bundles
	Logged    func() []byte // the end of the node's log, for the same; nil: none
	SetupDone func()        // after the first user was made; may be nil
	// Backup returns a backup of the metadata, and its size in bytes; nil: there is none.
	Backup func(context.Context) (io.ReadCloser, int64, error)
}

// Server is the HTTP interface.
type Server struct {
	opt     Options
	log     *slog.Logger
	clock   clock.Clock
	echo    *echo.Echo
	http    *http.Server
	origin  *http.CrossOriginProtection
	idem    idempotency
	refused refusedBucket
	// bundling is held while a support bundle is made.
	bundling sync.Mutex
	// backingUp is held while a backup of the metadata is made.
	backingUp sync.Mutex
	unheard   unheard
	board     jobBoard
	told      eventBoard
	homes     homes
	joins     chan struct{} // has an element for each join that runs
	closing   chan struct{}
	close     sync.Once
}

// New returns a Server; Serve runs it on a listener.
func New(opt Options) (*Server, error) {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Tasks == nil {
		opt.Tasks = task.New(opt.Clock)
	}
	if opt.Requests == nil {
		opt.Requests = func(string) []remote.KindStats { return nil }
	}
	if opt.Living == nil {
		opt.Living = func(context.Context) (map[string]bool, error) { return map[string]bool{opt.NodeID: true}, nil }
	}
	if opt.Cluster == nil {
		opt.Cluster = alone{}
	}
	if opt.Logged == nil {
		opt.Logged = func() []byte { return nil }
	}
	if opt.Machine == nil {
		opt.Machine = func() Machine { return Machine{Listeners: []Listener{}, Places: []MachinePlace{}} }
	}
	if opt.Precheck == nil {
		opt.Precheck = func(context.Context) []precheck.Check { return nil }
	}
	if opt.Disks == nil {
		opt.Disks = func(context.Context) (layout.Node, []layout.Disk, error) { return layout.Node{}, nil, nil }
	}
	if opt.Trends == nil {
		opt.Trends = func() []observe.Trend { return nil }
	}
	if opt.Health == nil {
		opt.Health = func() observe.Health { return observe.Health{} }
	}
	if opt.OIDC == nil {
		opt.OIDC = oidc.New(oidc.Options{Model: opt.Model, Auth: opt.Auth, Sealer: opt.Sealer, Clock: opt.Clock, Log: opt.Log})
	}
	s := &Server{opt: opt, log: opt.Log, clock: opt.Clock, origin: http.NewCrossOriginProtection(), joins: make(chan struct{}, joinsMost), closing: make(chan struct{})}
	s.idem.init(s)
	s.echo = echo.New()
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.Binder = binder{}
	s.echo.HTTPErrorHandler = s.handleError
	s.echo.Pre(s.envelope)
	if err := s.routes(); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler: s.echo, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (s *Server) routes() error {
	mw := make(map[string][]echo.MiddlewareFunc, len(rules))
	for op := range rules {
		mw[op] = []echo.MiddlewareFunc{s.noteRequest(op), s.guard(op), s.noteChange(op), s.passOn(op)}
		if creates[op] {
			mw[op] = append(mw[op], s.idem.middleware(op))
		}
	}
	RegisterHandlersWithOptions(s.echo, NewStrictHandler(s, nil), RegisterHandlersOptions{BaseURL: BasePath, OperationMiddlewares: mw})
	s.echo.GET(BasePath+"/openapi.yaml", s.getSpec, s.guard("GetSpec"))
	s.echo.GET(BasePath+"/openapi.json", s.getSpecJSON, s.guard("GetSpecJSON"))
	for path, op := range map[string]string{"/oauth2/token": "IssueOAuthToken", "/oauth2/revoke": "RevokeOAuthToken"} {
		s.echo.POST(BasePath+path, s.oauth(op), s.noteRequest(op), s.guard(op), s.noteChange(op))
	}
	s.echo.GET(BasePath+"/events", s.streamEvents, s.guard("StreamEvents"))
	s.echo.GET(BasePath+"/events/export", s.exportEvents, s.noteRequest("ExportEvents"), s.guard("ExportEvents"), s.passOn("ExportEvents"))
	s.echo.GET(BasePath+"/support-bundle", s.getSupportBundle, s.noteRequest("GetSupportBundle"), s.guard("GetSupportBundle"), s.noteChange("GetSupportBundle"))
	s.echo.GET(BasePath+"/metadata/backup", s.backUpMetadata, s.noteRequest("BackUpMetadata"), s.guard("BackUpMetadata"), s.noteChange("BackUpMetadata"))
	s.echo.GET("/healthz", s.healthz)
	if s.opt.Metrics != nil {
		h := echo.WrapHandler(s.opt.Metrics)
		if s.opt.OpenMetric {
			s.echo.GET("/metrics", h)
		} else {
			s.echo.GET("/metrics", h, s.guardBy("GetStatus", rule{role: auth.RoleRead})) // of everything
		}
	}
	s.routePlugin()
	return s.routeUI()
}

// Handler returns the handler, for tests.
func (s *Server) Handler() http.Handler { return s.echo }

// Serve answers on l until Shutdown, with TLS unless config is nil.
func (s *Server) Serve(l net.Listener, config *tls.Config) error {
	l = netutil.LimitListener(l, maxConns)
	if config != nil {
		// Outermost: net/http speaks HTTP/2 on a *tls.Conn only.
		l = tls.NewListener(l, config)
	}
	return s.http.Serve(l)
}

// Shutdown ends event streams, lets running requests finish, and stops. When
// ctx ends first, connections are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close.Do(func() { close(s.closing) })
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// csp lets the UI load its own files and nothing else (reference/ui.md 2.3).
const csp = "default-src 'self'; img-src 'self' data:; style-src 'self'; font-src 'self'; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

const requestIDHeader = "X-Request-Id"

func requestID(c echo.Context) string { return c.Response().Header().Get(requestIDHeader) }

// envelope gives every request its id, bounds and security headers, and turns a
// panic into an answer.
func (s *Server) envelope(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		var id [8]byte
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		h := c.Response().Header()
		h.Set(requestIDHeader, hex.EncodeToString(id[:]))
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if s.opt.Secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r := c.Request()
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		r.Body = http.MaxBytesReader(c.Response(), r.Body, maxBody)
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				s.log.Error("panic in a request", "requestId", requestID(c), "panic", v, "stack", string(debug.Stack()))
				err = refuse(http.StatusInternalServerError, "internal", "", "look up the request id in the node's log", "this is a defect")
			}
		}()
		return next(c)
	}
}
