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
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
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
	// with all Members.
	Join bool
	// Certificate, Key and CA are PEM files for both URLs, which must be https:// then. A
	// certificate signed by CA is asked of everybody. Without them both are loopback's.
	Certificate, Key, CA string
	Log                  *slog.Logger
	// Quota bounds the member's database in bytes; 0: 8 GiB.
	Quota int64
}

// Server is a member of an etcd cluster in this process.
type Server struct{ e *embed.Etcd }

// Serve starts a member. It returns once the member takes part in a quorum, or with ctx.
func Serve(ctx context.Context, o ServerOptions) (*Server, error) {
	c, err := o.config()
	if err != nil {
		return nil, fmt.Errorf("etcd member %q: %w", o.Name, err)
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("etcd member %q in %s: %w", o.Name, o.Dir, err)
	}
	timer := time.NewTimer(startPatience)
	defer timer.Stop()
	select {
	case <-e.Server.ReadyNotify():
		return &Server{e}, nil
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("it was stopped: it may have been removed from the cluster")
	case <-timer.C:
		err = fmt.Errorf("no quorum of its members (%s) within %v", strings.Join(slices.Sorted(maps.Keys(o.Members)), ", "), startPatience)
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Close()
	return nil, fmt.Errorf("etcd member %q in %s: %w", o.Name, o.Dir, err)
}

func (o ServerOptions) config() (*embed.Config, error) {
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
		info := transport.TLSInfo{CertFile: o.Certificate, KeyFile: o.Key, TrustedCAFile: o.CA, ClientCertAuth: true}
		c.PeerTLSInfo, c.ClientTLSInfo = info, info
		c.TlsMinVersion = "TLS1.3"
	}
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, historyKept.String()
	c.QuotaBackendBytes = cmp.Or(o.Quota, quotaBytes)
	c.PreVote = true // a member that was cut off does not unseat the leader
	c.EnablePprof = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(logCore{o.Log}))
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

// Close ends the member. Another one becomes the leader first, if this one was.
func (s *Server) Close() { s.e.Close() }
