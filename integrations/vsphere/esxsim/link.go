package esxsim

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const (
	// loginTime bounds a login, ioTime a command: far above what a target on loopback
	// takes, below the patience of tests.
	loginTime = 5 * time.Second
	ioTime    = 20 * time.Second
	// relogin is the pause between tries to open a session again.
	relogin = 100 * time.Millisecond
	// authFailed is the login status "authentication failure" (RFC 7143 11.13.5).
	authFailed = 0x0201
	iscsiPort  = 3260
)

// place is a target at one of its portals.
type place struct{ target, portal string }

// link is a path's session, opened again by itself until it is closed.
type link struct {
	host *Host
	at   place
	stop context.CancelFunc
	ctx  context.Context

	mu   sync.Mutex
	s    *initiator.Session                                // nil: not connected
	auth types.HostInternetScsiHbaAuthenticationProperties // of the next login
}

// credentials are those of its next login.
func (l *link) credentials() types.HostInternetScsiHbaAuthenticationProperties {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.auth
}

// next gives it those of its next login.
func (l *link) next(auth types.HostInternetScsiHbaAuthenticationProperties) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.auth = auth
}

// session returns the session, nil while there is none.
func (l *link) session() *initiator.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.s
}

// open logs in and keeps the session from then on.
func (h *Host) open(at place, auth types.HostInternetScsiHbaAuthenticationProperties) (*link, error) {
	s, err := h.login(at, auth)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(h.f.ctx)
	l := &link{host: h, at: at, auth: auth, s: s, ctx: ctx, stop: stop}
	h.f.wg.Add(1)
	go l.keep()
	return l, nil
}

// keep opens the session again when it ended.
func (l *link) keep() {
	defer l.host.f.wg.Done()
	for s := l.session(); ; {
		if !l.watch(s) {
			s.Close()
			return
		}
		l.set(nil)
		for s = nil; s == nil; {
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(relogin):
			}
			if now, err := l.host.login(l.at, l.credentials()); err == nil {
				s = now
			}
		}
		l.set(s)
		if l.host.f.heartbeat > 0 {
			l.look(s)
		}
	}
}

// watch returns when the session ended, false: the link is closed.
func (l *link) watch(s *initiator.Session) bool {
	var beat <-chan time.Time
	if l.host.f.heartbeat > 0 {
		t := time.NewTicker(l.host.f.heartbeat)
		defer t.Stop()
		beat = t.C
	}
	for {
		select {
		case <-l.ctx.Done():
			return false
		case <-s.Done():
			return true
		case <-beat:
			l.look(s)
		}
	}
}

// look asks for the states of the link's paths anew.
func (l *link) look(s *initiator.Session) {
	h, devs := l.host, map[uint16]*device{}
	h.f.mu.Lock()
	for p := range h.pathsOf(l) {
		devs[p.number] = p.dev
	}
	h.f.mu.Unlock()
	now, changed := map[uint16]pathState{}, false
	for n, d := range devs {
		now[n] = d.pathState(s, n)
	}
	h.f.mu.Lock()
	for p := range h.pathsOf(l) {
		if state, ok := now[p.number]; ok && state != p.pathState && s.Err() == nil {
			p.pathState, changed = state, true
		}
	}
	h.f.mu.Unlock()
	if changed {
		l.tell()
	}
}

// set changes the session and has the paths told of it.
func (l *link) set(s *initiator.Session) {
	l.mu.Lock()
	l.s = s
	l.mu.Unlock()
	l.tell()
}

// tell has the simulator told of the host's paths.
func (l *link) tell() {
	h := l.host
	ctx := h.f.context()
	ctx.WithLock(h.hss, func() {
		h.f.mu.Lock()
		defer h.f.mu.Unlock()
		if l.ctx.Err() == nil {
			h.publish(ctx)
		}
	})
}

// login logs in as the adapter is told to. What the adapter calls preferred is CHAP where
// the target takes it.
func (h *Host) login(at place, auth types.HostInternetScsiHbaAuthenticationProperties) (*initiator.Session, error) {
	var s *initiator.Session
	err := h.withAuth(auth, func(o initiator.Options) error {
		ctx, cancel := context.WithTimeout(h.f.ctx, loginTime)
		defer cancel()
		o.Address, o.Target = at.portal, at.target
		var err error
		s, err = initiator.Dial(ctx, o)
		return err
	})
	if err == nil {
		h.f.logins.Add(1)
	}
	return s, err
}

// discover asks a send target for what there is.
func (h *Host) discover(at string, auth types.HostInternetScsiHbaAuthenticationProperties) (found []initiator.Target, err error) {
	err = h.withAuth(auth, func(o initiator.Options) error {
		ctx, cancel := context.WithTimeout(h.f.ctx, loginTime)
		defer cancel()
		o.Address = at
		found, err = initiator.Discover(ctx, o)
		return err
	})
	return found, err
}

func (h *Host) withAuth(auth types.HostInternetScsiHbaAuthenticationProperties, login func(initiator.Options) error) error {
	plain := initiator.Options{Initiator: h.IQN, DialFunc: h.dial}
	chap := plain
	chap.CHAPUser, chap.CHAPSecret = auth.ChapName, auth.ChapSecret
	if auth.MutualChapAuthenticationType == string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired) {
		chap.MutualUser, chap.MutualSecret = auth.MutualChapName, auth.MutualChapSecret
	}
	if !auth.ChapAuthEnabled {
		return login(plain)
	}
	first, second := plain, plain
	switch types.HostInternetScsiHbaChapAuthenticationType(auth.ChapAuthenticationType) {
	case types.HostInternetScsiHbaChapAuthenticationTypeChapRequired:
		return login(chap)
	case types.HostInternetScsiHbaChapAuthenticationTypeChapPreferred:
		first = chap
	case types.HostInternetScsiHbaChapAuthenticationTypeChapDiscouraged:
		second = chap
	default:
		return login(plain)
	}
	err := login(first)
	var refused *initiator.LoginError
	if errors.As(err, &refused) && refused.Status == authFailed {
		// A target that does not know the method, and one that knows the secret to be
		// wrong, say the same: the other method tells.
		if login(second) == nil {
			return nil
		}
	}
	return err
}

// hostPort is the address of a send or static target; port 0 is the registered one.
func hostPort(address string, port int32) string {
	if port == 0 {
		port = iscsiPort
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// portalOf takes the group off an address of a SendTargets answer.
func portalOf(address string) string {
	portal, _, _ := strings.Cut(address, ",")
	return portal
}

// again runs a command until no unit attention is left and the LUN is not busy, as every
// initiator does.
func again(do func(ctx context.Context) error) error {
	const pause = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), ioTime)
	defer cancel()
	for {
		err := do(ctx)
		var e *initiator.SCSIError
		switch {
		case initiator.IsUnitAttention(err) && ctx.Err() == nil:
		case errors.As(err, &e) && (e.Status == initiator.Busy || e.Status == initiator.TaskSetFull):
			select {
			case <-ctx.Done():
				return err
			case <-time.After(pause):
			}
		default:
			return err
		}
	}
}
