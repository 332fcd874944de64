package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/precheck"
)

const (
	// knockTime bounds a connection to a port of another node.
	knockTime = 2 * time.Second
	// knocksMost bounds the connections that are tried at a time.
	knocksMost = 32
	// attributeMost bounds a file of /sys, in bytes.
	attributeMost = 64
)

// precheck looks at the machine and asks the other nodes.
func (n *node) precheck(ctx context.Context) []precheck.Check {
	f := precheck.Facts{Synced: clockSynced(), Clustered: n.clusterIdentity() != nil, Interfaces: interfaces("/sys/class/net")}
	for _, l := range n.listeners() {
		for _, a := range l.Addresses {
			if u, err := url.Parse(a); err == nil && u.Host != "" {
				a = u.Host
			}
			f.Listeners = append(f.Listeners, precheck.Listener{Service: string(l.Service), Address: a})
		}
	}
	for _, p := range n.places() {
		f.Places = append(f.Places, factOfPlace(p))
	}
	f.Peers = n.knock(ctx, f.Interfaces)
	return precheck.Look(f)
}

func factOfPlace(p api.MachinePlace) precheck.Place {
	out := precheck.Place{
		Path: p.Path, Device: p.Device, ReadOnly: p.ReadOnly, Write: slices.Contains(p.Roles, api.MachinePlaceRolesWrite), Alba: slices.Contains(p.Roles, api.MachinePlaceRolesAlba),
		Rotational: rotational("/sys/class/block", p.Device),
	}
	if p.Problem != nil {
		out.Problem = *p.Problem
	}
	if p.Total != nil && p.Free != nil {
		out.Total, out.Free = *p.Total, *p.Free
	}
	return out
}

// clockSynced asks the kernel whether something keeps its clock (adjtimex(2)); nil: it does not tell.
func clockSynced() *bool {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return nil
	}
	return new(t.Status&unix.STA_UNSYNC == 0)
}

// interfaces are those of the machine; root is where the kernel tells of them.
func interfaces(root string) []precheck.NIC {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []precheck.NIC
	for _, i := range all {
		nic := precheck.NIC{Name: i.Name, MTU: i.MTU, Up: i.Flags&(net.FlagUp|net.FlagRunning) == net.FlagUp|net.FlagRunning, Loopback: i.Flags&net.FlagLoopback != 0}
		nic.Mbits, _ = strconv.Atoi(attribute(root, i.Name, "speed"))
		nic.Mbits = max(nic.Mbits, 0) // -1: it does not tell
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				nic.Addresses = append(nic.Addresses, p.Addr().Unmap())
			}
		}
		out = append(out, nic)
	}
	return out
}

// rotational tells whether a device, or the disk that it is a partition of, is a hard disk.
func rotational(root, device string) bool {
	if device == "" || strings.Contains(device, "/") {
		return false
	}
	real, err := filepath.EvalSymlinks(filepath.Join(root, device))
	if err != nil {
		return false
	}
	for _, dir := range []string{real, filepath.Dir(real)} {
		if kind := attribute(dir, "queue", "rotational"); kind != "" {
			return kind == "1"
		}
	}
	return false
}

// attribute reads a short file of the kernel; empty: there is none.
func attribute(parts ...string) string {
	f, err := os.Open(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, attributeMost)
	got, _ := f.Read(b)
	return strings.TrimSpace(string(b[:got]))
}

// knock asks the other nodes for their time and connects to each of their ports once.
func (n *node) knock(ctx context.Context, nics []precheck.NIC) []precheck.Peer {
	var nodes []model.Node
	for _, m := range n.model.Nodes() {
		if m.ID != n.self.ID {
			nodes = append(nodes, m)
		}
	}
	out := make([]precheck.Peer, len(nodes))
	free := make(chan struct{}, knocksMost)
	var wg sync.WaitGroup
	for i, m := range nodes {
		out[i].Name = m.Name
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			out[i].Apart, out[i].Timely = n.askTimeOf(ctx, m.ID)
		})
		ports := portsOf(m)
		out[i].Ports = make([]precheck.Reach, len(ports))
		for j, p := range ports {
			wg.Go(func() {
				free <- struct{}{}
				defer func() { <-free }()
				out[i].Ports[j] = reach(ctx, p, nics)
			})
		}
	}
	wg.Wait()
	return out
}

// portsOf are where a node says that it is reached. Of gossip, which has an end of its own for
// that, liveness tells.
func portsOf(m model.Node) []precheck.Listener {
	var out []precheck.Listener
	add := func(service, address string) {
		if address != "" {
			out = append(out, precheck.Listener{Service: service, Address: address})
		}
	}
	if u, err := url.Parse(m.API); err == nil {
		add("api", u.Host)
	}
	for _, p := range m.Portals {
		add("iscsi", p)
	}
	add("dtl", m.DTL)
	add("alba", m.Devices)
	return out
}

// reach connects to a port and sees how much a segment carries there.
func reach(ctx context.Context, p precheck.Listener, nics []precheck.NIC) precheck.Reach {
	out := precheck.Reach{Service: p.Service, Address: p.Address}
	conn, err := (&net.Dialer{Timeout: knockTime}).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		out.Err = plainDial(err)
		return out
	}
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return out
	}
	local := tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if i := slices.IndexFunc(nics, func(n precheck.NIC) bool { return slices.Contains(n.Addresses, local) }); i >= 0 {
		out.NIC = nics[i].Name
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { out.Segment, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	return out
}

// plainDial says why a connection was not made, without the address.
func plainDial(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no answer within %v", knockTime)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
