package alba

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/openvstorage/ovgate/alba/manager"
)

// Cluster is what an Alba needs of the nodes that share the registry, and with it manager and
// NSM. Safe for concurrent use; nothing of it waits.
type Cluster interface {
	// Node returns a node by its id.
	Node(id string) (Node, bool)
	// Find returns a node by its id or name.
	Find(ref string) (Node, bool)
	// Others tells whether there are other nodes.
	Others() bool
	// Leased tells whether this node has its lease (O3): one that lost it does no
	// maintenance.
	Leased() bool
	// Listener is where this node serves its directories to the others; nil: it does not.
	// The Alba closes it.
	Listener() net.Listener
	// Server is for connections that other nodes make, Client for those to one of them; nil
	// without a certificate of a cluster: then over loopback, without TLS.
	Server() *tls.Config
	Client(id string) *tls.Config
}

// Node is a node of the cluster.
type Node struct {
	ID, Name string
	Domain   string // what fails together with it; empty: not known
	// Devices is HOST:PORT where it serves its directories; empty: it does not.
	Devices string
}

// NodeName is what people call the node, or the machine, that a device is on.
func (s *Service) NodeName(id string) string {
	if s.o.Cluster != nil {
		if n, ok := s.o.Cluster.Node(id); ok {
			return n.Name
		}
	}
	return id
}

// validDomain is what a domain may be called.
var validDomain = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]{0,62}$`)

// machine returns what a device's record says of the machine that a person named: a node's
// id, so that its directories and its ASDs count as one machine, and its domain.
func (s *Service) machine(name, domain string) (machine, in string, err error) {
	if domain != "" && !validDomain.MatchString(domain) {
		return "", "", fmt.Errorf("%w: domain %.100q: use 1 to 63 letters, digits, dots, hyphens and underscores, and begin with a letter or digit", manager.ErrInvalid, domain)
	}
	var n Node
	known := false
	if s.o.Cluster != nil {
		n, known = s.o.Cluster.Find(name)
	} else if name == s.o.Node {
		n, known = Node{ID: name, Domain: s.o.Domain}, true
	}
	switch {
	case !known:
		return name, domain, nil
	case domain != "" && domain != n.Domain:
		return "", "", fmt.Errorf("%w: domain %s: node %s says that it is in %q: leave the domain out, or change the node's configuration", manager.ErrInvalid, domain, name, n.Domain)
	}
	return n.ID, n.Domain, nil
}

// errNoLease is why the devices of a node are not used.
var errNoLease = errors.New("its node has no lease in the registry")

// Suspect has no write wait for the devices of a node that lost its lease: one that is paused
// or cut off answers nothing, and each call would wait for its timeout. Devices that answer
// all the same are used again after a trial. It does not block.
func (s *Service) Suspect(node string) {
	if !s.mu.TryLock() {
		return // the Alba opens or closes
	}
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.client.Suspect(node, errNoLease)
	}
}
