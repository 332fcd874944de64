package esxsim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi"
	_ "github.com/vmware/govmomi/pbm/simulator" // storage policies
	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Options configure a VCenter. Zero is what is named.
type Options struct {
	Address        string // to listen on; 127.0.0.1:0
	Hosts          int    // in its one cluster, or with Alone the only one; 3
	Alone          bool   // an ESXi host without a vCenter
	User, Password string // administrator@vsphere.local, "secret"
	Log            *slog.Logger
	// Reach tells whether a host reaches a portal; nil: every host reaches all.
	Reach func(host, portal string) bool
	// Between sees every SCSI command between hosts and targets twice or more: before the
	// target gets it, with each piece of data, and at its end. It may change what it sees,
	// as a target that lies, and is called by many at once. nil: nobody looks.
	Between func(*Exchange)
	// Heartbeat is how often hosts look at their paths, as VMFS does; 0: they do not.
	Heartbeat time.Duration
}

// VCenter is a simulated vCenter that is served over TLS.
type VCenter struct {
	opt    Options
	model  *simulator.Model
	server *simulator.Server
	// resumed is what serves after Stop and Resume; nil: server does.
	resumed *http.Server
	f       *fabric
	cert    tls.Certificate
	dir     string
}

// Cluster is the name of the one cluster of a VCenter.
const Cluster = "DC0_C0"

// Start starts one. Close it.
func Start(o Options) (*VCenter, error) {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.Address, "127.0.0.1:0")
	def(&o.User, "administrator@vsphere.local")
	def(&o.Password, "secret")
	if o.Hosts == 0 {
		o.Hosts = 3
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	v := &VCenter{opt: o}
	var err error
	if v.cert, err = certificate(); err != nil {
		return nil, err
	}
	if v.dir, err = os.MkdirTemp("", "esxsim-"); err != nil {
		return nil, err
	}
	if v.model = simulator.VPX(); o.Alone {
		v.model = simulator.ESX()
	} else {
		v.model.Cluster, v.model.ClusterHost, v.model.Host = 1, o.Hosts, 0
	}
	v.model.Machine = 0
	if err := v.model.Create(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(v.dir))
	}
	v.f = install(v.model, v.dir, o)
	v.model.Service.RegisterEndpoints = true
	if err := v.serve(o.Address); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// certificate makes one that nobody signed, as a new vCenter has.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vcenter"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// serve listens. The simulator would end the process if it cannot: that is tried first. It
// can be called once.
func (v *VCenter) serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	s := v.model.Service
	s.Listen = &url.URL{Host: address, User: url.UserPassword(v.opt.User, v.opt.Password)}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{v.cert}, MinVersion: tls.VersionTLS12}
	v.server = s.NewServer()
	return nil
}

// URL is where clients sign in, without user and password.
func (v *VCenter) URL() string {
	u := *v.server.URL
	u.User = nil
	return u.String()
}

// User and Password sign in.
func (v *VCenter) User() string     { return v.opt.User }
func (v *VCenter) Password() string { return v.opt.Password }

// Client signs in as another administrator.
func (v *VCenter) Client(ctx context.Context) (*govmomi.Client, error) {
	u := *v.server.URL
	u.User = url.UserPassword(v.User(), v.Password())
	return govmomi.NewClient(ctx, &u, true)
}

// Thumbprint is the SHA-256 of its certificate, as vSphere writes it.
func (v *VCenter) Thumbprint() string { return soap.ThumbprintSHA256(v.cert.Leaf) }

// Logins is how often hosts logged in to targets.
func (v *VCenter) Logins() int64 { return v.f.logins.Load() }

// Host returns a host, from 0.
func (v *VCenter) Host(i int) *Host {
	hosts := make([]*Host, 0, len(v.f.hosts))
	for _, h := range v.f.hosts {
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(a, b *Host) int { return strings.Compare(a.sys.Name, b.sys.Name) })
	return hosts[i]
}

// DropSessions breaks the sessions of hosts with targets, as a network does: of all hosts when
// none is named. Hosts open them again.
func (v *VCenter) DropSessions(hosts ...string) {
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	for _, h := range v.f.hosts {
		if len(hosts) > 0 && !slices.Contains(hosts, h.Name()) {
			continue
		}
		for _, l := range h.links {
			if s := l.session(); s != nil {
				s.Close()
			}
		}
	}
}

// ExpireSessions ends the sessions of all clients, as an idle time does.
func (v *VCenter) ExpireSessions() {
	v.f.hmu.Lock()
	for cookie := range v.f.cookies {
		v.f.cookies[cookie] = false
	}
	v.f.hmu.Unlock()
	v.f.endWaits()
}

// Stop ends the service, and every connection to it; hosts go on. Resume serves at the
// same address again. Sessions of clients are gone then.
func (v *VCenter) Stop() {
	v.ExpireSessions()
	v.stopServing()
}

func (v *VCenter) stopServing() {
	if v.f != nil {
		v.f.endWaits()
	}
	if v.resumed != nil {
		_ = v.resumed.Close() // of a test
		return
	}
	v.server.CloseClientConnections()
	v.server.Close()
}

// Resume serves again after Stop.
func (v *VCenter) Resume() error {
	l, err := net.Listen("tcp", v.server.URL.Host)
	if err != nil {
		return err
	}
	v.resumed = &http.Server{
		Handler: v.server.Config.Handler, ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{Certificates: []tls.Certificate{v.cert}, MinVersion: tls.VersionTLS12},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func(s *http.Server) { _ = s.ServeTLS(l, "", "") }(v.resumed) // ends with Close
	return nil
}

// Close ends it and its hosts' sessions.
func (v *VCenter) Close() {
	if v.server != nil {
		v.stopServing()
	}
	if v.f != nil {
		v.f.close()
	}
	v.model.Remove()
	_ = os.RemoveAll(v.dir) // of a test
}

// Before has hook look at each call before it is carried out; a fault is the answer. nil
// ends that.
func (v *VCenter) Before(hook func(Call) types.BaseMethodFault) {
	v.f.hmu.Lock()
	defer v.f.hmu.Unlock()
	v.f.before = hook
}

// SetDown takes a host away from its vCenter, or brings it back: calls to it fail. What it
// has mounted stays.
func (v *VCenter) SetDown(h *Host, down bool) {
	v.f.hmu.Lock()
	for _, ref := range []types.ManagedObjectReference{h.hss.Self, h.dss.Self} {
		if delete(v.f.down, ref); down {
			v.f.down[ref] = h.sys.Self
		}
	}
	v.f.hmu.Unlock()
	state := types.HostSystemConnectionStateConnected
	if down {
		state = types.HostSystemConnectionStateNotResponding
	}
	v.runtime(h, func(r *types.HostRuntimeInfo) { r.ConnectionState = state })
}

// SetMaintenance puts a host into maintenance mode, or takes it out.
func (v *VCenter) SetMaintenance(h *Host, on bool) {
	v.runtime(h, func(r *types.HostRuntimeInfo) { r.InMaintenanceMode = on })
}

func (v *VCenter) runtime(h *Host, change func(*types.HostRuntimeInfo)) {
	ctx := v.f.context()
	ctx.WithLock(h.sys, func() {
		r := h.sys.Runtime
		change(&r)
		ctx.Map.Update(ctx, h.sys, []types.PropertyChange{{Name: "runtime", Val: r}})
	})
}
