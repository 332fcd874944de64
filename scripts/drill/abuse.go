package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// What one round of abuse is.
const (
	abuseAtOnce = 8   // initiators in a storm
	abuseLogins = 800 // of them together
	abusePDUs   = 400 // sessions that send something malformed
	abuseSilent = 200 // connections that say nothing, more than may be in login
	abuseKills  = 9   // connections lost with a full queue

	// abuseMemory is what a node may have more than at its start: journals and read
	// caches of two disks fill up once, and not with what peers announced.
	abuseMemory = 640 << 20
	// abuseSockets likewise: connections to the API that are kept for its next caller.
	abuseSockets = 4
	// settleTime is how long dropped connections may take to be gone: a login that
	// stands still has 15 s.
	settleTime = 60 * time.Second
)

// abuse is what a drill did to a node.
type abuse struct {
	n   *node.Node
	api *client.Client

	logins, refused, pdus, kills atomic.Int64
}

// iscsiAbuse lets peers misbehave in every way at once beside a load that must not
// notice, and takes connections away from another one, whose blocks must be right.
func iscsiAbuse(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx, smallSettings...)
	if err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, 2)
	if err != nil {
		return "", err
	}
	calm, hurt := targets[:1], targets[1]
	victim, err := n.CreateVDisk(ctx, "drill", "victim", 64<<20)
	if err != nil {
		return "", err
	}
	api, err := n.API()
	if err != nil {
		return "", err
	}
	before, err := held(n)
	if err != nil {
		return "", err
	}
	a := abuse{n: n, api: api}
	for round := range e.rounds {
		err := e.underLoad(ctx, calm, false, func(ctx context.Context) error { return e.abuse(ctx, &a, victim, hurt) })
		err = errors.Join(err, verify(ctx, targets))
		if err == nil {
			err = a.settled(ctx, before)
		}
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		after, err := held(n)
		if err != nil {
			return "", err
		}
		e.say("round %d: node at %d MiB and %d sockets, before %d MiB and %d", round+1,
			after.memory>>20, after.sockets, before.memory>>20, before.sockets)
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	if strings.Contains(n.LogTail(), "panic") {
		return "", fmt.Errorf("the log speaks of a panic\n%s", n.LogTail())
	}
	c := sum(targets)
	return fmt.Sprintf("%d logins and %d refused, %d sessions with malformed PDUs, %d connections lost under load; %d blocks acknowledged, 0 lost",
		a.logins.Load(), a.refused.Load(), a.pdus.Load(), a.kills.Load(), c.Blocks), nil
}

// abuse does everything at once and waits for all of it.
func (e *env) abuse(ctx context.Context, a *abuse, victim client.Connection, hurt *target) error {
	silent, err := hangOn(ctx, a.n.Portal())
	defer silent()
	errs := []error{err}
	var mu sync.Mutex
	var wg sync.WaitGroup
	do := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	for w := range abuseAtOnce {
		rng := rand.New(rand.NewPCG(e.rng.Uint64(), uint64(w)))
		do(func() error { return a.storm(ctx, victim, rng) })
		do(func() error { return a.malformed(ctx, victim, rand.New(rand.NewPCG(rng.Uint64(), 2))) })
	}
	rng := rand.New(rand.NewPCG(e.rng.Uint64(), 3))
	do(func() error { return a.lose(ctx, hurt, rng) })
	wg.Wait()
	return errors.Join(errs...)
}

// hangOn opens connections that say nothing, and returns what closes them.
func hangOn(ctx context.Context, portal string) (func(), error) {
	var all []net.Conn
	var d net.Dialer
	end := func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
	for range abuseSilent {
		c, err := d.DialContext(ctx, "tcp", portal)
		if err != nil {
			return end, err
		}
		all = append(all, c)
	}
	return end, nil
}

// login signs in. While silent connections hold the places of logins it is refused at
// first; that it stays so is an error.
func (a *abuse) login(ctx context.Context, c client.Connection) (*initiator.Session, error) {
	end := time.Now().Add(settleTime)
	for {
		s, err := initiator.Dial(ctx, initiator.Options{Address: c.Portals[0].Address, Target: c.IQN, CHAPUser: c.ChapUser, CHAPSecret: c.ChapSecret})
		if err == nil {
			a.logins.Add(1)
			return s, nil
		}
		a.refused.Add(1)
		if time.Now().After(end) {
			return nil, fmt.Errorf("nobody got in for %v: %w", settleTime, err)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// storm logs in over and over, and leaves in one of the ways there are.
func (a *abuse) storm(ctx context.Context, c client.Connection, rng *rand.Rand) error {
	for range abuseLogins / abuseAtOnce {
		s, err := a.login(ctx, c)
		if err != nil {
			return err
		}
		switch rng.IntN(3) {
		case 0:
			_ = s.Logout(ctx) // of interest is only that the node survives
		case 1:
			_ = s.Submit(&initiator.Command{LUN: uint16(c.LUN), CDB: initiator.ReadCDB(0, 128), In: make([]byte, 64<<10), Done: func(*initiator.Command) {}})
		}
		s.Close()
	}
	return ctx.Err()
}

// malformed sends nonsense before and after a login, and behind it a logout: in either
// case the connection must end.
func (a *abuse) malformed(ctx context.Context, c client.Connection, rng *rand.Rand) error {
	for range abusePDUs / abuseAtOnce {
		if err := beforeLogin(ctx, c.Portals[0].Address, nonsense(rng)); err != nil {
			return err
		}
		s, err := a.login(ctx, c)
		if err != nil {
			return err
		}
		a.pdus.Add(1)
		_ = s.Raw(append(nonsense(rng), logout()...)) // the node may close while it is sent
		select {
		case <-s.Done():
		case <-ctx.Done():
		case <-time.After(settleTime):
			err = fmt.Errorf("a session is still open %v after a malformed PDU and a logout", settleTime)
		}
		s.Close()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// logout is an immediate Logout Request: its CmdSN does not matter.
func logout() []byte {
	b := make([]byte, 48)
	b[0], b[1] = 0x46, 0x80
	b[16] = 0x7f // a tag that is not in use
	return b
}

// beforeLogin sends bytes instead of a login and waits for the end of the connection.
func beforeLogin(ctx context.Context, portal string, b []byte) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", portal)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(settleTime)); err != nil {
		return err
	}
	_, _ = c.Write(b) // the node may have closed
	_ = c.(*net.TCPConn).CloseWrite()
	for buf := make([]byte, 4096); ; {
		if _, err := c.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("a connection is neither served nor closed %v after bytes that are no login", settleTime)
		} else if err != nil {
			return nil
		}
	}
}

// nonsense is bytes that a peer should not send. Whole segments follow their
// headers, mostly, so that the node gets to see more than one.
func nonsense(rng *rand.Rand) []byte {
	switch rng.IntN(8) {
	case 0:
		return make([]byte, 48*(1+rng.IntN(20)))
	case 1:
		return bytes.Repeat([]byte{0xff}, 48*23) // a header, and as many additional ones as it announces
	case 2: // announces much
		b := pduOf(rng, nil)
		b[5], b[6], b[7] = 0xff, 0xff, 0xff
		return b
	}
	var all []byte
	for range 1 + rng.IntN(8) {
		data := make([]byte, 4*rng.IntN(300))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		all = append(all, pduOf(rng, data)...)
	}
	return all
}

// pduOf is a PDU with a random header and a correct length.
func pduOf(rng *rand.Rand, data []byte) []byte {
	b := make([]byte, 48, 48+len(data))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	if rng.IntN(2) == 0 { // an opcode of initiators
		b[0] = b[0]&0x40 | byte(rng.IntN(8))
	}
	b[4] = 0
	b[5], b[6], b[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	if rng.IntN(2) == 0 { // LUN 0 exists
		clear(b[8:16])
	}
	if rng.IntN(4) > 0 {
		binary.BigEndian.PutUint32(b[24:], uint32(1+rng.IntN(4))) // a CmdSN near the expected one
	}
	return append(b, data...)
}

// lose takes connections away from a load in three ways, and checks every block when
// the same initiator is back: a write that was on its way is there or never will be.
func (a *abuse) lose(ctx context.Context, t *target, rng *rand.Rand) error {
	at := lun.Of(t.conn)
	at.ISID = [6]byte{0x80, 0, 0, 0, 0, 1}
	for i := range abuseKills {
		if err := a.loseOnce(ctx, t, at, i, rng); err != nil {
			return fmt.Errorf("connection %d of %s: %w", i+1, t.name, err)
		}
		a.kills.Add(1)
	}
	return nil
}

func (a *abuse) loseOnce(ctx context.Context, t *target, at lun.Address, way int, rng *rand.Rand) error {
	mine, cut := context.WithCancel(ctx)
	defer cut()
	d, err := lun.Dial(mine, at)
	if err != nil {
		return err
	}
	defer d.Close()
	ended := make(chan error, 1)
	seed := rng.Uint64()
	go func() { ended <- t.load.Run(ctx, d, loadDepth, seed) }()
	if err := sleep(ctx, 20*time.Millisecond+time.Duration(rng.IntN(int(100*time.Millisecond)))); err != nil {
		return err
	}
	switch way % 3 {
	case 0: // the host goes
		cut()
	case 1: // the operator drops it
		if err := a.drop(ctx, at.IQN); err != nil {
			return err
		}
	} // else the next login throws it out
	again, err := lun.Dial(ctx, at)
	if err != nil {
		return err
	}
	defer again.Close()
	if err := <-ended; err != nil {
		return err
	}
	return t.load.Verify(again)
}

// sessions lists the node's sessions, of one target if iqn is not empty; a page of
// them, since there are few.
func (a *abuse) sessions(ctx context.Context, iqn string) ([]client.ISCSISession, error) {
	var p client.ListISCSISessionsParams
	if iqn != "" {
		p.Target = &iqn
	}
	l, err := client.Get[client.ISCSISessionList](a.api.ListISCSISessions(ctx, &p))
	return l.Items, err
}

// drop drops the sessions of a target.
func (a *abuse) drop(ctx context.Context, iqn string) error {
	all, err := a.sessions(ctx, iqn)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("the node shows no session of a target that is in use")
	}
	for _, s := range all {
		if err := client.Done(a.api.DropISCSISession(ctx, s.ID)); err != nil {
			return err
		}
	}
	return nil
}

// holding is what a node's process has.
type holding struct {
	memory  int64 // bytes resident
	sockets int
}

func held(n *node.Node) (holding, error) {
	dir := "/proc/" + strconv.Itoa(n.PID())
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return holding{}, err
	}
	sockets := 0
	for _, f := range files {
		to, err := os.Readlink(filepath.Join(dir, "fd", f.Name()))
		if err == nil && strings.HasPrefix(to, "socket:") { // else it was closed meanwhile
			sockets++
		}
	}
	statm, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return holding{}, err
	}
	f := strings.Fields(string(statm))
	if len(f) < 2 {
		return holding{}, fmt.Errorf("%s/statm: %q", dir, statm)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return holding{pages * int64(os.Getpagesize()), sockets}, err
}

// settled waits until no session is left and the node holds no more than before.
func (a *abuse) settled(ctx context.Context, before holding) error {
	n := a.n
	end := time.Now().Add(settleTime)
	for {
		if !n.Alive() {
			return fmt.Errorf("the node ended\n%s", n.LogTail())
		}
		left, err := a.sessions(ctx, "")
		if err != nil {
			return err
		}
		now, err := held(n)
		if err != nil {
			return err
		}
		if len(left) == 0 && now.sockets <= before.sockets+abuseSockets && now.memory <= before.memory+abuseMemory {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%v after the abuse: %d sessions, %d sockets (before: %d), %d MiB (before: %d)",
				settleTime, len(left), now.sockets, before.sockets, now.memory>>20, before.memory>>20)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}
