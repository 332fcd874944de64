package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// historyKept is how far back a watch may begin; what is older takes space.
	historyKept = 10 * time.Minute
	// quotaBytes bounds a member's database. Beyond it the cluster takes no writes, so that
	// the disk is not filled: far above what records of vDisks need, and what etcd is
	// tested with at most.
	quotaBytes = 8 << 30
	// startPatience bounds how long the other members may take.
	startPatience = 5 * time.Minute
	// faultWait is how long a member that failed gets to end.
	faultWait = 5 * time.Second
)

// ServerOptions describe a member.
type ServerOptions struct {
	// Name is the member's among Members.
	Name string
	// Dir holds its data, best on a disk of its own: each commit waits for a sync.
	Dir string
	// Members are the URLs where each member speaks to the others.
	Members map[string]string
	// Client is the URL where it serves Stores.
	Client string
	// Token names the cluster: members with another one are refused.
	Token string
	// Join says that the cluster runs and has this member added already; else it begins
	// with all Members. A member that has data goes on where it was, and needs itself alone
	// among Members.
	Join bool
	// Alone makes the member, from what it has, a cluster of its own: for one whose others
	// do not come back. If they did, there would be two clusters.
	Alone bool
	// Certificate, Key and CA are PEM files for both URLs, which must be https:// then. A
	// certificate signed by CA is asked of everybody. Without them both are loopback's.
	Certificate, Key, CA string
	Log                  *slog.Logger
	// Quota bounds the member's database in bytes; 0: 8 GiB.
	Quota int64
}

// Server is a member of an etcd cluster in this process.
type Server struct {
	e     *embed.Etcd
	fault *fault
	ended chan struct{} // closed when it ended, or failed
}

// fault takes the place of the ends of the process that etcd asks for, where its disk fails or
// its data make no sense: who else is in this process goes on, with the other members.
type fault struct {
	once sync.Once
	what string        // before failed is closed
	dead chan struct{} // closed once the member failed
}

// OnWrite implements zapcore.CheckWriteHook: it ends the goroutine that asked.
func (f *fault) OnWrite(e *zapcore.CheckedEntry, _ []zapcore.Field) {
	f.once.Do(func() {
		f.what = e.Message
		close(f.dead)
	})
	runtime.Goexit()
}

// guard answers for a member that stops by itself, as one does that the others removed: etcd closes its database under
// the requests that it serves, and one of them would end the process.
type guard struct {
	stopping atomic.Pointer[<-chan struct{}] // nil: it starts
}

func (g *guard) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer g.over(&err)
	return handle(ctx, req)
}

func (g *guard) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer g.over(&err)
	return handle(srv, stream)
}

// over takes the panic of a request, if the member stops.
func (g *guard) over(err *error) {
	why := recover()
	if why == nil {
		return
	}
	if stopping := g.stopping.Load(); stopping != nil {
		select {
		case <-*stopping:
			*err = status.Error(codes.Unavailable, "the member stops")
			return
		default:
		}
	}
	panic(why)
}

// ErrRemoved: a member stopped by itself, as it does when the others removed it. List, at these,
// tells whether they did.
var ErrRemoved = errors.New("it stopped by itself: the other members may have removed it")

// Has tells whether a directory holds the data of a member: its log, which is there as a whole or
// not at all. What a member that was cut off in its first moments leaves beside it holds nothing.
func Has(dir string) bool {
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	return err == nil && len(logs) > 0
}

// Serve starts a member. It returns once the member takes part in a quorum, or with ctx.
func Serve(ctx context.Context, o ServerOptions) (*Server, error) {
	f := &fault{dead: make(chan struct{})}
	c, err := o.config(f)
	if err != nil {
		return nil, fmt.Errorf("etcd member %q: %w", o.Name, err)
	}
	var g guard
	// Without the first one a member with TLS closes its database under what it is asked at its end.
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.WaitForHandlers(true), grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream)}
	e, err := f.start(c)
	if err != nil {
		return nil, fmt.Errorf("etcd member %q in %s: %w", o.Name, o.Dir, err)
	}
	stopping := e.Server.StoppingNotify()
	g.stopping.Store(&stopping)
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	select {
	case <-e.Server.ReadyNotify():
		s := &Server{e, f, make(chan struct{})}
		go func() {
			defer close(s.ended)
			select {
			case <-e.Server.StopNotify():
			case <-f.dead:
			}
		}()
		return s, nil
	case <-f.dead:
		err = errors.New(f.what)
	case err = <-e.Err():
		select {
		case <-e.Server.StoppingNotify():
			err = fmt.Errorf("%w (%v)", ErrRemoved, err)
		default:
		}
	case <-e.Server.StopNotify():
		err = ErrRemoved
	case <-timer.C:
		err = fmt.Errorf("no quorum of its members (%s) within %v", strings.Join(slices.Sorted(maps.Keys(o.Members)), ", "), startPatience)
	case <-ctx.Done():
		err = ctx.Err()
	}
	(&Server{e: e, fault: f}).Close() // which one that failed does not come to the end of
	return nil, fmt.Errorf("etcd member %q in %s: %w", o.Name, o.Dir, err)
}

// start starts the member in a goroutine of its own, which a fault may end.
func (f *fault) start(c *embed.Config) (e *embed.Etcd, err error) {
	err = errors.New("it did not start")
	done := make(chan struct{})
	go func() {
		defer close(done)
		e, err = embed.StartEtcd(c)
	}()
	<-done
	select {
	case <-f.dead:
		if e == nil {
			err = errors.New(f.what)
		}
	default:
	}
	return e, err
}

func (o ServerOptions) config(f *fault) (*embed.Config, error) {
	if _, ok := o.Members[o.Name]; !ok {
		return nil, fmt.Errorf("it is not one of the members %q", slices.Sorted(maps.Keys(o.Members)))
	}
	peer, err := url.Parse(o.Members[o.Name])
	if err != nil {
		return nil, err
	}
	client, err := url.Parse(o.Client)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialClusterToken = o.Name, o.Dir, o.Token
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	var members []string
	for _, name := range slices.Sorted(maps.Keys(o.Members)) {
		members = append(members, name+"="+o.Members[name])
	}
	c.InitialCluster = strings.Join(members, ",")
	c.ClusterState = embed.ClusterStateFlagNew
	if o.Join {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	if secure := peer.Scheme == "https" && client.Scheme == "https"; secure != (o.Certificate != "") {
		return nil, fmt.Errorf("%s and %s: both need https, and https a certificate", peer, client)
	}
	if o.Certificate == "" && !(loopback(peer) && loopback(client)) {
		return nil, fmt.Errorf("%s and %s: without TLS only on a loopback address: anybody who reaches them could read and change everything", peer, client)
	}
	if o.Certificate != "" {
		// A host may reach another one from an address that its certificate does not have.
		info := transport.TLSInfo{CertFile: o.Certificate, KeyFile: o.Key, TrustedCAFile: o.CA, ClientCertAuth: true, SkipClientSANVerify: true}
		c.PeerTLSInfo, c.ClientTLSInfo = info, info
		c.TlsMinVersion = "TLS1.3"
	}
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, historyKept.String()
	c.QuotaBackendBytes = cmp.Or(o.Quota, quotaBytes)
	c.ForceNewCluster = o.Alone
	c.PreVote = true // a member that was cut off does not unseat the leader
	c.EnablePprof = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(logCore{o.Log}, zap.WithPanicHook(f), zap.WithFatalHook(f)))
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	return c, nil
}

func loopback(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}

// Leads tells whether the member is the cluster's leader.
func (s *Server) Leads() bool { return s.e.Server.Leader() == s.e.Server.MemberID() }

// Err delivers the error that ended the member.
func (s *Server) Err() <-chan error { return s.e.Err() }

// Ended is closed when the member ended or failed, by itself too. Close it then as well.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Fault is why the member failed; empty: it did not.
func (s *Server) Fault() string {
	select {
	case <-s.fault.dead:
		return s.fault.what
	default:
		return ""
	}
}

// Close ends the member. Another one becomes the leader first, if this one was. One that failed
// may not come to its end: it is left, and its directory stays taken until the process ends.
func (s *Server) Close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.e.Close()
	}()
	select {
	case <-done:
		return
	case <-s.fault.dead:
	}
	timer := time.NewTimer(faultWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
