package node

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/forward"
)

// What paths in the configuration may be; empty is all.
const (
	pathsAll   = "all"
	pathsOwner = "owner"
)

// discoveries are what discovery_chap in the configuration may be; empty is optional.
var discoveries = map[string]iscsi.DiscoveryCHAP{
	"": iscsi.DiscoveryOptional, "none": iscsi.DiscoveryOpen, "optional": iscsi.DiscoveryOptional, "required": iscsi.DiscoveryRequired,
}

// openFront makes the iSCSI front end. Where nodes reach each other, commands of vDisks that
// another node serves are forwarded to that node, through the listener of the DTL.
func (n *node) openFront() {
	c := iscsi.Config{Log: n.log, Refused: n.loginRefused, Limits: n.opt.iscsiLimits, DiscoveryCHAP: discoveries[n.cfg.DiscoveryCHAP]}
	if n.dtl.listener != nil && n.cfg.Paths != pathsOwner {
		n.forwarder = forward.NewForwarder(forward.Options{
			Cluster: n.model.Cluster().ID, Node: n.self.ID, Dial: n.dialDTL, Clock: clock.Real{}, Log: n.log,
			Owner: func(unit string) string { return n.ctl.Owner(unit) }, // sessions begin after it is there
			Lives: n.member.lives,
		})
		n.onClose(func() error { n.forwarder.Close(); return nil })
		c.Forward = n.forwarder
	}
	n.front = iscsi.NewServer(c)
	if n.dtl.listener != nil { // others may forward in any case
		n.forwarding = forward.NewServer(forward.ServerOptions{Cluster: n.model.Cluster().ID, Node: n.self.ID, Target: n.front, Clock: clock.Real{}, Log: n.log})
		n.onClose(func() error { n.forwarding.Close(); return nil })
	}
}

// moved tells the forwarder that vDisks may have other nodes.
func (n *node) moved() { n.forwarder.Moved() }

// begun is a connection of which the first bytes were read.
type begun struct {
	net.Conn
	first []byte
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	k := copy(p, c.first)
	c.first = c.first[k:]
	return k, nil
}

// Flush sends what the connection holds back (wire.TLSConn).
func (c *begun) Flush() error {
	if f, ok := c.Conn.(interface{ Flush() error }); ok {
		return f.Flush()
	}
	return nil
}

// servePeer serves a node that connected: by its first bytes it forwards commands, or sends
// records of journals. ready is called once that is known.
func (n *node) servePeer(conn net.Conn, node string, ready func()) error {
	var magic [len(forward.Magic)]byte
	err := conn.SetReadDeadline(time.Now().Add(dtlHandshake))
	if err == nil {
		_, err = io.ReadFull(conn, magic[:])
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	ready()
	conn = &begun{conn, magic[:]}
	if magic == forward.Magic && n.forwarding != nil {
		return n.forwarding.Serve(conn, node)
	}
	return n.host.ServeDTL(conn, node)
}
