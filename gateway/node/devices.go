package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/model"
)

// DefaultDevices is where nodes of a cluster reach each other's devices of the Alba.
const DefaultDevices = "127.0.0.1:8550"

// devicesConfig says where this node serves its devices to others.
type devicesConfig struct {
	Listen    string `yaml:"listen"`    // HOST:PORT
	Advertise string `yaml:"advertise"` // HOST:PORT as other nodes reach it
	// Clear: what goes between this node and devices is not encrypted on its way, once both
	// ends have shown who they are.
	Clear bool `yaml:"clear"`
}

func (c devicesConfig) check() error {
	if c.Listen != "" {
		if _, _, err := splitAddress("configuration: alba: listen", c.Listen); err != nil {
			return err
		}
	}
	if c.Advertise == "" {
		return nil
	}
	host, port, err := splitAddress("configuration: alba: advertise", c.Advertise)
	if err == nil && (port == 0 || host == "") {
		err = fmt.Errorf("configuration: alba: advertise: address %q lacks the host or the port that other nodes use", c.Advertise)
	}
	return err
}

// devicesNode is where this node serves its devices.
type devicesNode struct {
	listener net.Listener // nil: it does not
	address  string       // as other nodes reach it
}

// bindDevices takes the address for the devices, if the node is in a cluster or its
// configuration asks for that.
func (n *node) bindDevices(context.Context) error {
	id := n.clusterIdentity()
	if id == nil && n.cfg.Alba == (devicesConfig{}) {
		return nil
	}
	address := n.cfg.Alba.Listen
	if address == "" {
		address = DefaultDevices
	}
	host, _, err := splitAddress("configuration: alba: listen", address)
	if err != nil {
		return err
	}
	if id == nil && !loopback(host) {
		return fmt.Errorf("configuration: alba: listen: %s is not a loopback address, and this node has no certificate of a cluster: devices are served over a network with TLS only; join a cluster, or use %s", address, DefaultDevices)
	}
	l, err := listen("alba", "alba: listen in the configuration", address)
	if err != nil {
		return err
	}
	n.onClose(func() error { return ignoreClosed(l.Close()) })
	n.devices = devicesNode{l, n.cfg.Alba.Advertise}
	if n.devices.address == "" {
		n.devices.address = machineAddresses(l.Addr())[0]
	}
	return nil
}

// albaCluster is what the Alba is told of the nodes that share the registry; nil: this node
// has it for itself.
func (n *node) albaCluster() alba.Cluster {
	if len(n.cfg.Registry.Etcd) == 0 {
		return nil
	}
	return albaCluster{n}
}

// albaCluster implements alba.Cluster.
type albaCluster struct{ n *node }

// Node implements alba.Cluster.
func (c albaCluster) Node(id string) (alba.Node, bool) {
	return albaNode(c.n.model.Node(id))
}

// Find implements alba.Cluster.
func (c albaCluster) Find(ref string) (alba.Node, bool) {
	return albaNode(c.n.model.FindNode(ref))
}

func albaNode(m model.Node, ok bool) (alba.Node, bool) {
	return alba.Node{ID: m.ID, Name: m.Name, Domain: m.Domain, Devices: m.Devices}, ok
}

// Others implements alba.Cluster.
func (c albaCluster) Others() bool { return c.n.others() }

// Leased implements alba.Cluster.
func (c albaCluster) Leased() bool { return c.n.lease.Valid() }

// Listener implements alba.Cluster.
func (c albaCluster) Listener() net.Listener { return c.n.devices.listener }

// Server implements alba.Cluster.
func (c albaCluster) Server() *tls.Config {
	id := c.n.clusterIdentity()
	if id == nil {
		return nil
	}
	return id.Server(func(node string) bool { _, ok := c.n.model.Node(node); return ok })
}

// Client implements alba.Cluster.
func (c albaCluster) Client(node string) *tls.Config {
	id := c.n.clusterIdentity()
	if id == nil {
		return nil
	}
	return id.Client(node)
}
