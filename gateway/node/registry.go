package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// registryConfig says where the registry is, when it is not in the data directory.
type registryConfig struct {
	Etcd         []string `yaml:"etcd"`          // URLs of the members
	Prefix       string   `yaml:"prefix"`        // of all keys; default ovgate/
	CA           string   `yaml:"ca"`            // PEM file; default: the system's
	Certificate  string   `yaml:"certificate"`   // PEM file that the node shows
	Key          string   `yaml:"key"`           // PEM file
	User         string   `yaml:"user"`          // of a cluster that asks for one
	PasswordFile string   `yaml:"password_file"` // holds the password, mode 0600
	// Member says that the node runs a member itself.
	Member *registryMemberConfig `yaml:"member"`

	// secure is how members that nodes run are reached; nil: others run them.
	secure func() (*tls.Config, error)
}

// own tells whether nodes run the registry's members.
func (c registryConfig) own() bool { return c.secure != nil }

const (
	defaultPrefix = "ovgate/"
	maxEndpoints  = 16
	maxKeyPrefix  = 128
	// registryWait is how long a start waits for a quorum.
	registryWait = 30 * time.Second
	// maxPassword bounds the file with the password, in bytes.
	maxPassword = 4096
)

// Keys of the registry that say whose it is.
const (
	// onlyKey holds the id of the node that records without a node are of: it had the
	// registry for itself, as older versions demanded. It takes them over, and the key away.
	onlyKey = "cluster/only"
	// movingKey holds the id of the node whose records are being copied here.
	movingKey = "cluster/moving"
)

func (c registryConfig) check() error {
	if len(c.Etcd) > maxEndpoints {
		return fmt.Errorf("configuration: registry lists %d members: use at most %d", len(c.Etcd), maxEndpoints)
	}
	for _, e := range c.Etcd {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Port() == "" || u.Path != "" || u.User != nil {
			return fmt.Errorf("configuration: registry: member %.100q is not https://HOST:PORT", e)
		}
		if u.Scheme == "http" && !loopback(u.Hostname()) {
			return fmt.Errorf("configuration: registry: member %s is reached without TLS: use https, but for a loopback address", e)
		}
	}
	if c.Prefix != "" && (!strings.HasSuffix(c.Prefix, "/") || len(c.Prefix) > maxKeyPrefix) {
		return fmt.Errorf("configuration: registry: prefix is %.200q: end it with a slash, and use at most %d bytes", c.Prefix, maxKeyPrefix)
	}
	if (c.Certificate == "") != (c.Key == "") {
		return errors.New("configuration: registry: certificate and key are given together")
	}
	if (c.User == "") != (c.PasswordFile == "") {
		return errors.New("configuration: registry: user and password_file are given together")
	}
	if c.Member != nil && (len(c.Etcd) > 0 || c.CA+c.Certificate+c.User != "") {
		return errors.New("configuration: registry: member says that nodes run the registry: leave etcd, ca, certificate, key, user and password_file out, or member")
	}
	return c.Member.check()
}

// given tells whether the configuration says anything about the registry.
func (c registryConfig) given() bool {
	return c.Member != nil || len(c.Etcd) > 0 || c.Prefix+c.CA+c.Certificate+c.Key+c.User+c.PasswordFile != ""
}

// placed takes from the place of the registry what the configuration does not say.
func (c registryConfig) placed(p place) registryConfig {
	if len(p.Members) > 0 && len(c.Etcd) == 0 {
		c.Etcd = p.Members
	}
	if len(p.Members) > 0 && c.Prefix == "" {
		c.Prefix = p.Etcd
	}
	return c
}

// options reads the files that the configuration names.
func (c registryConfig) options() (etcd.Options, error) {
	o := etcd.Options{Endpoints: c.Etcd, Prefix: c.prefix(), User: c.User}
	if strings.HasPrefix(c.Etcd[0], "https:") {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.own() {
		var err error
		if o.TLS, err = c.secure(); err != nil {
			return o, err
		}
	}
	if c.CA != "" && o.TLS != nil {
		b, err := os.ReadFile(c.CA)
		if err != nil {
			return o, fmt.Errorf("configuration: registry: ca: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(b) {
			return o, fmt.Errorf("configuration: registry: ca: %s has no certificate in PEM", c.CA)
		}
	}
	if c.Certificate != "" && o.TLS != nil {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return o, fmt.Errorf("configuration: registry: certificate: %w", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	if c.PasswordFile == "" {
		return o, nil
	}
	st, err := os.Stat(c.PasswordFile)
	switch {
	case err != nil:
		return o, fmt.Errorf("configuration: registry: password_file: %w", err)
	case st.Mode().Perm()&0o077 != 0:
		return o, fmt.Errorf("configuration: registry: password_file: %s can be read by others (mode %04o): chmod 600 it", c.PasswordFile, st.Mode().Perm())
	case st.Size() > maxPassword:
		return o, fmt.Errorf("configuration: registry: password_file: %s has %d bytes: it holds a password and nothing else", c.PasswordFile, st.Size())
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return o, fmt.Errorf("configuration: registry: password_file: %w", err)
	}
	o.Password = strings.TrimRight(string(b), "\r\n")
	return o, nil
}

func (c registryConfig) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

// place is DIR/cluster.json: where the registry is. Without it, in DIR/kv.db. Writing it is
// what moves the registry.
type place struct {
	Format int    `json:"format"`
	Etcd   string `json:"etcd"` // prefix of the keys
	// Members are URLs of etcd, of a node that joined a cluster; those of the configuration
	// go before them.
	Members []string `json:"members,omitempty"`
	// Own: nodes run the members, and reach them with the cluster's certificates.
	Own bool `json:"own,omitempty"`
}

// placeFormat is the newest format of DIR/cluster.json: 2 with Own, else 1.
const placeFormat = 2

// setPlace writes DIR/cluster.json.
func (d *dataDir) setPlace(p place) error {
	p.Format = 1
	if p.Own {
		p.Format = 2
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := writeFile(d.file(placeFile), append(b, '\n'), 0o600); err != nil {
		return unwritable(d.path, err)
	}
	return nil
}

func (d *dataDir) place() (place, error) {
	var p place
	b, err := os.ReadFile(d.file(placeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	err = json.Unmarshal(b, &p)
	switch {
	case err == nil && p.Format > placeFormat:
		return p, fmt.Errorf("data directory %s: %s has format %d, this ovgate knows %d: upgrade ovgate; nothing was changed", d.path, placeFile, p.Format, placeFormat)
	case err != nil || p.Format < 1 || p.Etcd == "":
		return p, fmt.Errorf("data directory %s: the file %s is damaged: bring it back from a copy; it says where the registry is", d.path, placeFile)
	}
	return p, nil
}

// openRegistry opens the registry where it is, and moves it first when the configuration
// names an etcd for one that is in the data directory.
func (n *node) openRegistry(ctx context.Context) (kv.Store, error) {
	if n.opt.registry != nil {
		return n.opt.registry, nil
	}
	p, err := n.dir.place()
	if err != nil {
		return nil, err
	}
	if n.cfg.Registry.Member != nil {
		n.onClose(n.regMember.Close)
		if err := n.regMember.open(ctx, p); err != nil {
			return nil, err
		}
		if p.Etcd == "" {
			n.cfg.Registry.Etcd = []string{n.cfg.Registry.Member.client()}
		}
	}
	if n.cfg.Registry.Member != nil || p.Own {
		n.cfg.Registry.secure = n.dir.ownTLS
	}
	n.cfg.Registry = n.cfg.Registry.placed(p)
	c := n.cfg.Registry
	switch {
	case len(c.Etcd) == 0 && c.given():
		return nil, errors.New("configuration: registry has no etcd: list the URLs of the members, or take registry out")
	case len(c.Etcd) == 0 && p.Etcd != "":
		return nil, fmt.Errorf("data directory %s: the registry is in etcd below %s: name its members in the configuration, with registry", n.dir.path, p.Etcd)
	case len(c.Etcd) == 0:
		// Until cluster.json is written, kv.db is the registry (settle).
		if _, err := os.Stat(n.dir.file(kvFile)); n.dir.format == formatMoved && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("data directory %s: the registry is in etcd, and the file %s, which says where, is missing: bring it back from a copy", n.dir.path, placeFile)
		}
		return n.openBolt()
	case p.Etcd != "" && p.Etcd != c.prefix():
		return nil, fmt.Errorf("data directory %s: the registry is in etcd below %s, the configuration says %s: set prefix back", n.dir.path, p.Etcd, c.prefix())
	}
	s, err := c.open(ctx, n.log)
	if err != nil {
		return nil, err
	}
	if err = notRestoring(ctx, s); err == nil {
		err = n.notLost(ctx, p, s)
	}
	if err == nil {
		err = n.settle(ctx, p, s)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry in etcd below %s: %w", c.prefix(), err), s.Close())
	}
	return s, nil
}

// notLost refuses a registry without records when this node has served with some: begun anew, it
// would not be the cluster whose vDisks it has, and its records would be in a restore's way.
func (n *node) notLost(ctx context.Context, p place, s kv.Store) error {
	if p.Etcd == "" {
		return nil
	}
	if _, err := os.Stat(n.dir.file(adminFile)); err != nil && len(p.Members) == 0 {
		return nil // it may never have come so far as to write any
	}
	in, err := storeCluster(ctx, s)
	if err != nil || in.ID != "" {
		return err
	}
	return errors.New("it has no records, and those of this node were there: it was lost, or other members are named. Name the members that have the records; or, with all nodes stopped, restore a backup at one of them: ovgate metadata restore FILE --config FILE --data DIR. Without a backup, begin with empty data directories, and recover the vPools")
}

// open connects to the registry in etcd.
func (c registryConfig) open(ctx context.Context, log *slog.Logger) (*etcd.Store, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	o.Log = log
	wait, cancel := context.WithTimeout(ctx, registryWait)
	defer cancel()
	s, err := etcd.Open(wait, o)
	if err != nil {
		return nil, fmt.Errorf("registry below %s: no quorum answers within %v: %w", c.prefix(), registryWait, err)
	}
	return s, nil
}

func (n *node) openBolt() (*kv.Bolt, error) {
	b, err := kv.OpenBolt(n.dir.file(kvFile), kv.BoltOptions{})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	return b, nil
}

// settle makes etcd the registry of this node, once. Until cluster.json is written, kv.db is
// the registry and what is in etcd a copy that may be cut off; from then on it is the other
// way round. Each start goes on from where the one before ended.
func (n *node) settle(ctx context.Context, p place, to kv.Store) error {
	if p.Etcd != "" {
		return n.afterMove(ctx, to)
	}
	if _, err := os.Stat(n.dir.file(kvFile)); errors.Is(err, fs.ErrNotExist) {
		if err := n.comeIn(ctx, to); err != nil {
			return err
		}
	} else if err := n.move(ctx, to); err != nil {
		return err
	}
	if err := n.step("copied"); err != nil {
		return err
	}
	// A version that does not know of cluster.json must not start without its registry.
	if err := n.dir.setFormat(formatMoved); err != nil {
		return err
	}
	there := place{Etcd: n.cfg.Registry.prefix()}
	if n.cfg.Registry.own() {
		there.Own, there.Members = true, n.cfg.Registry.Etcd
	}
	if err := n.dir.setPlace(there); err != nil {
		return err
	}
	if err := n.step("placed"); err != nil {
		return err
	}
	return n.afterMove(ctx, to)
}

// step is where tests end the move.
func (n *node) step(name string) error {
	if n.opt.steps == nil {
		return nil
	}
	return n.opt.steps(name)
}

// comeIn makes a node without records one of those that use a registry, or the first. It
// refuses one to which another node's is being moved: what is there is not all, and may go
// again.
func (n *node) comeIn(ctx context.Context, to kv.Store) error {
	held, err := to.Get(ctx, movingKey)
	if err != nil {
		return err
	}
	if held != nil {
		return fmt.Errorf("the registry of node %s is being moved there: start that node, which ends the move, then this one", held.Value)
	}
	sealed, err := to.Get(ctx, sealKey)
	if err != nil {
		return err
	}
	if _, err := os.Stat(n.dir.file(sealFile)); sealed != nil && errors.Is(err, fs.ErrNotExist) {
		return n.noSeal("is missing")
	}
	// Before cluster.json, after which a node without an id is a damaged one.
	_, err = openSelf(n.dir, n.cfg.NodeName, model.NewUUID)
	return err
}

// claimEmpty refuses an etcd that holds anything but what moving left.
func claimEmpty(ctx context.Context, to kv.Store, moving string) error {
	held, err := to.Get(ctx, movingKey)
	if err != nil {
		return err
	}
	if held != nil && string(held.Value) == moving {
		return nil
	}
	any, _, err := to.Range(ctx, "", "", 1)
	if err != nil {
		return err
	}
	if len(any) > 0 {
		return errors.New("it holds records already, and this node has records of its own: choose another prefix, or have a new node join the cluster there with ovgate cluster join")
	}
	return nil
}

// move copies kv.db to etcd and compares.
func (n *node) move(ctx context.Context, to kv.Store) error {
	from, err := n.openBolt()
	if err != nil {
		return err
	}
	defer from.Close()
	s, err := openSelf(n.dir, n.cfg.NodeName, func() (string, error) { return firstID(ctx, n.dir, from) })
	if err != nil {
		return err
	}
	if err := claimEmpty(ctx, to, s.ID); err != nil {
		return err
	}
	n.log.Info("the registry moves to etcd", "prefix", n.cfg.Registry.prefix())
	// What a copy that was cut off left goes first: kv.db may have changed since.
	if _, err := to.Txn(ctx, nil, []kv.Op{kv.Put(movingKey, []byte(s.ID))}, nil); err != nil {
		return err
	}
	if err := n.step("marked"); err != nil {
		return err
	}
	if err := kv.Wipe(ctx, to, "", func(e kv.KV) bool { return string(e.Key) != movingKey }); err != nil {
		return err
	}
	err = kv.Copy(ctx, from, to, "", func(e kv.KV) (bool, error) {
		if !movable(e) {
			return false, nil
		}
		return true, n.step("copying")
	})
	if err != nil {
		return err
	}
	if err := kv.Same(ctx, from, to, "", movable); err != nil {
		return fmt.Errorf("%w: something else writes below this prefix", err)
	}
	return nil
}

// afterMove takes the marks of a move away, and kv.db out of the way. It may be repeated.
func (n *node) afterMove(ctx context.Context, to kv.Store) error {
	s, err := readSelf(n.dir)
	if err != nil {
		return err
	}
	// Once: another node's move to this prefix is refused.
	mine := []kv.Compare{kv.ValueIs(movingKey, []byte(s.ID))}
	if _, err := to.Txn(ctx, mine, []kv.Op{kv.Delete(movingKey), kv.Put(onlyKey, []byte(s.ID))}, nil); err != nil {
		return err
	}
	if err := n.step("unmarked"); err != nil {
		return err
	}
	err = os.Rename(n.dir.file(kvFile), n.dir.file(kvMoved))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unwritable(n.dir.path, err)
	}
	n.log.Info("the registry is in etcd; the old one is kept and not used", "old", n.dir.file(kvMoved))
	return syncDir(filepath.Dir(n.dir.file(kvMoved)))
}

// adopt makes what an older version stored without a node this one's, if it was the only one.
func (n *node) adopt(ctx context.Context) error {
	if len(n.cfg.Registry.Etcd) == 0 {
		return n.model.Adopt(ctx, n.self.ID)
	}
	only, err := n.kv.Get(ctx, onlyKey)
	if err != nil || only == nil || string(only.Value) != n.self.ID {
		return err
	}
	if err := n.model.Adopt(ctx, n.self.ID); err != nil {
		return err
	}
	_, err = n.kv.Txn(ctx, nil, []kv.Op{kv.Delete(onlyKey)}, nil)
	return err
}

// others tells whether the cluster has other nodes.
func (n *node) others() bool {
	return slices.ContainsFunc(n.model.Nodes(), func(m model.Node) bool { return m.ID != n.self.ID })
}

// sealKey holds what tells whether a node has the seal.key of the cluster.
const sealKey = "cluster/seal"

// sameSeal refuses a seal.key that is not the cluster's: what other nodes sealed would not
// open here, nor what is sealed here there.
func (n *node) sameSeal(ctx context.Context, s *control.Sealer) error {
	want := []byte(s.Digest([]byte(sealKey)))
	have, err := n.kv.Get(ctx, sealKey)
	if err != nil || have != nil && bytes.Equal(have.Value, want) {
		return err
	}
	cmp := kv.Absent(sealKey)
	if have != nil {
		if n.others() {
			return n.noSeal("is not the cluster's")
		}
		cmp = kv.ModRevIs(sealKey, have.ModRev)
	}
	res, err := n.kv.Txn(ctx, []kv.Compare{cmp}, []kv.Op{kv.Put(sealKey, want)}, nil)
	if err == nil && !res.Succeeded {
		return errors.New("another node starts at the same time with another seal.key: start it again")
	}
	return err
}

func (n *node) noSeal(what string) error {
	return fmt.Errorf("data directory %s: %s %s: copy it from the data directory of another node, mode 0600; the cluster's secrets are sealed with it", n.dir.path, sealFile, what)
}

// movable tells whether a record is copied: not what a lease holds, which its owner makes
// anew, nor the marks.
func movable(e kv.KV) bool {
	return e.Lease == 0 && !slices.Contains([]string{movingKey, onlyKey}, string(e.Key))
}
