package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/observe/syslog"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
)

// Bounds of the history of events in the configuration.
const (
	minEventBytes = 16 << 20
	maxEventBytes = 16 << 30
	minEventAge   = 24 * time.Hour
	maxEventAge   = 10 * 365 * 24 * time.Hour
)

// eventsConfig is the part of the configuration about events.
type eventsConfig struct {
	Bytes    int64         `yaml:"bytes"`
	Age      time.Duration `yaml:"age"`
	Syslog   string        `yaml:"syslog"`
	SyslogCA string        `yaml:"syslog_ca"`
}

func (c eventsConfig) check() error {
	if c.Age != 0 && (c.Age < minEventAge || c.Age > maxEventAge) {
		return fmt.Errorf("configuration: events.age is %s: use %s to %s", c.Age, minEventAge, maxEventAge)
	}
	if c.Syslog == "" && c.SyslogCA != "" {
		return errors.New("configuration: events.syslog_ca without events.syslog: name the server, or leave it out")
	}
	if c.Syslog == "" {
		return nil
	}
	_, err := c.server()
	return err
}

// server is the syslog server that is named.
func (c eventsConfig) server() (syslog.Server, error) {
	s, err := syslog.ParseServer(c.Syslog)
	if err != nil {
		return s, fmt.Errorf("configuration: events.syslog: %w", err)
	}
	if c.SyslogCA != "" && s.Scheme != "tls" {
		return s, fmt.Errorf("configuration: events.syslog_ca is for tls, events.syslog is %s: write tls://HOST:6514, or leave it out", c.Syslog)
	}
	return s, nil
}

// sender returns what sends events to the syslog server; nil: there is none.
func (c eventsConfig) sender(host string, log *slog.Logger) (*syslog.Sender, error) {
	if c.Syslog == "" {
		return nil, nil
	}
	server, err := c.server()
	if err != nil {
		return nil, err
	}
	o := syslog.Options{Server: server, Host: host, Log: log}
	if c.SyslogCA != "" {
		b, err := readPEM(c.SyslogCA, 0)
		if err != nil {
			return nil, fmt.Errorf("configuration: events.syslog_ca: %w", err)
		}
		if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("configuration: events.syslog_ca: %s has no certificate", c.SyslogCA)
		}
	}
	return syslog.New(o), nil
}

// openEvents opens the history of events, before everything that has something to tell. A node
// whose history cannot be written serves, and says so in its health.
func (n *node) openEvents(context.Context) error {
	n.hub = observe.NewHub(clock.Real{})
	n.onClose(func() error { n.hub.Close(); return nil })
	if err := os.MkdirAll(n.dir.file(eventsDir), 0o700); err != nil {
		return unwritable(n.dir.path, err)
	}
	fs, err := blockfs.OS(n.dir.file(eventsDir))
	if err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	if n.syslog, err = n.cfg.Events.sender(n.self.Name, n.log); err != nil {
		return err
	}
	stream := api.Stream(n.hub, n.self.Name)
	told := func(e event.Event) {
		stream(e)
		if n.syslog != nil {
			n.syslog.Send(e)
		}
	}
	n.events = event.Open(event.Options{FS: fs, Log: n.log, MaxBytes: n.cfg.Events.Bytes, MaxAge: n.cfg.Events.Age, Node: n.self.Name, Told: told})
	n.onClose(n.events.Close)
	return nil
}

// tell keeps an event. Before the history is open there is nothing to tell.
func (n *node) tell(code event.Code, object string, fields ...string) {
	if n.events != nil {
		n.events.Tell(code, object, fields...)
	}
}

// object is what events call the node.
func (n *node) object() string { return "node " + n.self.Name }

func (n *node) signInRefused(address string) {
	n.tell(event.SignInRefused, n.object(), "address", address)
}

// loginRefused tells of an initiator that was refused. Names are the initiator's choice: only
// targets that exist are objects.
func (n *node) loginRefused(r iscsi.Refusal) {
	object := n.object()
	n.vsphere.LoginRefused(r.Initiator, r.Reason.Error())
	if t, err := n.ctl.FindTarget(r.Target); err == nil {
		object = "target " + t.IQN
	}
	n.tell(event.SessionRefused, object, "initiator", r.Initiator, "address", r.Remote, "reason", r.Reason.Error())
}

func (n *node) alertSent(channel, subject string, err error) {
	if err != nil {
		n.tell(event.AlertFailed, "alert channel "+channel, "reason", err.Error())
		return
	}
	n.tell(event.AlertSent, "alert channel "+channel, "subject", subject)
}

func (n *node) certificateRenewed(what string, ends time.Time) {
	n.tell(event.CertificateRenewed, n.object(), "what", what, "ends", ends.UTC().Format(time.RFC3339))
}

// nodeTurned tells what gossip thinks of another node now.
func (n *node) nodeTurned(id string, now cluster.Liveness) {
	code := event.NodeAlive
	switch now {
	case cluster.Dead:
		code = event.NodeAway
	case cluster.Left:
		code = event.NodeLeft
	}
	name := id
	if peer, ok := n.model.Node(id); ok {
		name = peer.Name
	}
	n.tell(code, "node "+name)
}
