package node

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/client"
)

// JoinOptions say which node joins which cluster.
type JoinOptions struct {
	Data    string // data directory of the node, empty or with a join that was cut off
	Config  string // configuration file that the node is to be served with; empty: none
	Token   string // as ovgate cluster token create prints it
	Cluster string // name of the cluster that is meant; empty: that of the token
	Version string // of the program; empty: from the build
	Stderr  io.Writer

	// steps is asked at each step, and ends the join there with an error; for tests.
	steps func(name string) error
}

// Joined is what a node is after it joined.
type Joined struct {
	Cluster   string `json:"cluster"` // name
	ClusterID string `json:"clusterId"`
	Node      string `json:"node"` // name
	NodeID    string `json:"nodeId"`
}

// joining is DIR/join.json: a join that has begun. While it is there, the directory is not
// served. Its node's id is drawn once, so that each attempt is one of the same node.
type joining struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"` // UUID
	Node    string `json:"node"`    // UUID
}

const joiningFormat = 1

// joinTimeout bounds a request of a join.
const joinTimeout = 30 * time.Second

// Join makes an empty data directory that of a new node of a cluster, which serve runs then.
// Cut off anywhere, it is repeated with the same token.
//
//	format, join.json → ask a node → seal.key, tls/, node.json → cluster.json → join.json goes
func Join(ctx context.Context, o JoinOptions) (Joined, error) {
	j := &join{o: o}
	token, err := cluster.ParseToken(o.Token)
	if err != nil {
		return Joined{}, err
	}
	j.token = token
	if j.cfg, err = loadConfig(Options{Config: o.Config}); err != nil {
		return Joined{}, err
	}
	if o.Stderr == nil {
		j.o.Stderr = io.Discard
	}
	if j.log, err = newLogger(j.cfg, j.o.Stderr); err != nil {
		return Joined{}, err
	}
	if j.dir, err = openDataDir(o.Data, j.log); err != nil {
		return Joined{}, err
	}
	err = j.run(ctx)
	return j.done, errors.Join(err, j.dir.Close())
}

// join is one attempt.
type join struct {
	o     JoinOptions
	cfg   config
	log   *slog.Logger
	token cluster.Token
	dir   *dataDir
	state joining
	key   []byte // of the node's certificate, PEM
	done  Joined
}

func (j *join) step(name string) error {
	if j.o.steps == nil {
		return nil
	}
	return j.o.steps(name)
}

func (j *join) run(ctx context.Context) error {
	if err := j.begin(); err != nil {
		return err
	}
	if err := j.step("begun"); err != nil {
		return err
	}
	// With the place of the registry all is there.
	there, err := j.dir.place()
	if err != nil {
		return err
	}
	if there.Etcd != "" {
		return j.end(ctx, there)
	}
	name := j.cfg.NodeName
	if name == "" {
		name = hostName(j.state.Node)
	}
	a, err := j.ask(ctx, name)
	if err != nil {
		return err
	}
	if err := j.step("asked"); err != nil {
		return err
	}
	p, err := j.reach(ctx, a)
	if err != nil {
		return err
	}
	if err := j.keep(a, self{Format: selfFormat, ID: j.state.Node, Name: name}); err != nil {
		return err
	}
	if err := j.dir.setPlace(p); err != nil {
		return err
	}
	if err := j.step("placed"); err != nil {
		return err
	}
	return j.end(ctx, p)
}

// begin marks the directory, or finds the mark of an attempt before.
func (j *join) begin() error {
	was, err := j.dir.joining()
	if err != nil {
		return err
	}
	if was != nil {
		if was.Cluster != j.token.Cluster {
			return fmt.Errorf("data directory %s: a join of cluster %s began here, the token is of cluster %s: use a token of the first, or remove the directory", j.dir.path, was.Cluster, j.token.Cluster)
		}
		j.state = *was
		return nil
	}
	has, err := j.dir.used()
	if err != nil {
		return err
	}
	if has != "" {
		return fmt.Errorf("data directory %s: it holds a node already (%s): join with an empty one, named with --data; a node keeps its cluster", j.dir.path, has)
	}
	id, err := model.NewUUID()
	if err != nil {
		return err
	}
	// A version that does not know of join.json must not start here.
	if err := j.dir.setFormat(formatMoved); err != nil {
		return err
	}
	j.state = joining{joiningFormat, j.token.Cluster, id}
	return j.write(joinFile, j.state, 0o600)
}

// joining returns the join that began in the directory; nil: none.
func (d *dataDir) joining() (*joining, error) {
	b, err := os.ReadFile(d.file(joinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	var v joining
	err = json.Unmarshal(b, &v)
	switch {
	case err == nil && v.Format > joiningFormat:
		return nil, fmt.Errorf("data directory %s: %s has format %d, this ovgate knows %d: upgrade ovgate; nothing was changed", d.path, joinFile, v.Format, joiningFormat)
	case err != nil || v.Format < 1 || !uuid.MatchString(v.Cluster) || !uuid.MatchString(v.Node):
		return nil, fmt.Errorf("data directory %s: the file %s is damaged: remove the directory, and join with a new token", d.path, joinFile)
	}
	return &v, nil
}

// used returns what a directory holds that was ever a node's; empty: nothing.
func (d *dataDir) used() (string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return "", fmt.Errorf("data directory %s: %w", d.path, err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{lockFile, formatFile, "lost+found"}, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			return e.Name(), nil
		}
	}
	return "", nil
}

// notJoined refuses to serve a directory whose join has not ended.
func (d *dataDir) notJoined() error {
	v, err := d.joining()
	if err != nil || v == nil {
		return err
	}
	return fmt.Errorf("data directory %s: a join of cluster %s began here and has not ended: repeat ovgate cluster join, or remove the directory", d.path, v.Cluster)
}

// ask sends the token to the first of its nodes that answers and is of the cluster.
func (j *join) ask(ctx context.Context, name string) (client.JoinAnswer, error) {
	key, request, err := cluster.NewRequest()
	if err != nil {
		return client.JoinAnswer{}, err
	}
	j.key = key
	var failed error
	for _, u := range j.token.URLs {
		a, err := j.askAt(ctx, u, name, request)
		if err == nil {
			return a, nil
		}
		failed = errors.Join(failed, err)
		var refusal *client.APIError
		if ctx.Err() != nil || errors.As(err, &refusal) && refusal.Status < http.StatusInternalServerError {
			break // the others would say the same
		}
	}
	return client.JoinAnswer{}, fmt.Errorf("join of cluster %s: %w", j.token.Cluster, failed)
}

func (j *join) askAt(ctx context.Context, url, name string, request []byte) (client.JoinAnswer, error) {
	var none client.JoinAnswer
	ca, err := j.token.Reach(ctx, url)
	if err != nil {
		return none, fmt.Errorf("%s: %w", url, err)
	}
	version := Version(j.o.Version).Version
	api, err := client.New(client.Options{URL: url, CA: ca, ServerName: cluster.OwnName, UserAgent: "ovgate/" + version, Timeout: joinTimeout})
	if err != nil {
		return none, err
	}
	in := client.JoinInput{
		Token: j.token.ID, Secret: j.token.Secret, Node: j.state.Node, Name: name, Version: version, Format: model.Format,
		Clock: time.Now().UTC(), Request: string(request),
	}
	if j.o.Cluster != "" {
		in.Cluster = &j.o.Cluster
	}
	a, err := client.Get[client.JoinAnswer](api.JoinCluster(ctx, in))
	if err != nil {
		return none, err
	}
	return a, j.check(a)
}

// check refuses an answer that cannot be used.
func (j *join) check(a client.JoinAnswer) error {
	if err := j.token.CheckAnswer(cluster.JoinAnswer{Cluster: a.Cluster, CA: []byte(a.Ca)}); err != nil {
		return err
	}
	if _, err := cluster.NewIdentity(a.Cluster, j.state.Node, []byte(a.Certificate), j.key, []byte(a.Ca)); err != nil {
		return err
	}
	key, err := hex.DecodeString(a.SealKey)
	if err == nil {
		_, err = control.NewSealer(key)
	}
	return errors.Join(err, cluster.CheckName(a.Name))
}

// reach opens the registry as serve will, and sees that it is the cluster's.
func (j *join) reach(ctx context.Context, a client.JoinAnswer) (place, error) {
	p := place{Etcd: a.Prefix, Members: a.Etcd, Own: a.Own}
	c := j.cfg.Registry.placed(p)
	switch {
	case p.Own && len(j.cfg.Registry.Etcd) > 0:
		return p, fmt.Errorf("registry of cluster %s: its nodes run it: take etcd out of the configuration's registry, and repeat ovgate cluster join", a.Name)
	case p.Own:
		c.Member = nil // it is no member yet
		c.secure = func() (*tls.Config, error) {
			if a.Certificate == "" { // it is in the directory
				return j.dir.ownTLS()
			}
			return ownTLS([]byte(a.Ca), func() (*tls.Certificate, error) {
				pair, err := tls.X509KeyPair([]byte(a.Certificate), j.key)
				return &pair, err
			})
		}
	case c.Member != nil:
		return p, fmt.Errorf("registry of cluster %s: others run it than its nodes: take member out of the configuration's registry, and repeat ovgate cluster join", a.Name)
	}
	const remedy = "say in the configuration how this node reaches it, with registry: {etcd, ca, certificate, key, user, password_file}, and repeat ovgate cluster join"
	if err := c.check(); err != nil {
		return p, fmt.Errorf("registry of cluster %s: %w: %s", a.Name, err, remedy)
	}
	s, err := c.open(ctx, j.log)
	if err != nil {
		return p, fmt.Errorf("%w: %s", err, remedy)
	}
	r, err := cluster.LoadRecord(ctx, s)
	switch {
	case err != nil:
		err = fmt.Errorf("registry of cluster %s: %w: %s", a.Name, err, remedy)
	case r == nil || r.ID != a.Cluster:
		err = fmt.Errorf("the registry at %s below %s is not that of cluster %s: take etcd and prefix out of the configuration, or correct them, and repeat ovgate cluster join", strings.Join(c.Etcd, " "), c.prefix(), a.Name)
	}
	if err == nil {
		j.done = Joined{Cluster: r.Name, ClusterID: r.ID}
	}
	return p, errors.Join(err, s.Close())
}

// keep writes what makes the directory a node's.
func (j *join) keep(a client.JoinAnswer, s self) error {
	if err := j.dir.keepCertificate([]byte(a.Certificate), j.key); err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		mode       fs.FileMode
	}{{j.dir.file(tlsDir, "ca.pem"), a.Ca, 0o644}, {j.dir.file(sealFile), a.SealKey + "\n", 0o600}} {
		if err := writeFile(f.name, []byte(f.text), f.mode); err != nil {
			return unwritable(j.dir.path, err)
		}
	}
	if err := j.step("sealed"); err != nil {
		return err
	}
	return j.write(selfFile, s, 0o600)
}

func (j *join) write(name string, v any, mode fs.FileMode) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := writeFile(j.dir.file(name), append(b, '\n'), mode); err != nil {
		return unwritable(j.dir.path, err)
	}
	return nil
}

// end takes the mark away: the directory is a node's.
func (j *join) end(ctx context.Context, p place) error {
	s, err := readSelf(j.dir)
	if err != nil {
		return err
	}
	if j.done.Cluster == "" { // all was there
		if _, err := j.reach(ctx, client.JoinAnswer{Cluster: j.token.Cluster, Name: j.token.Cluster, Etcd: p.Members, Prefix: p.Etcd, Own: p.Own}); err != nil {
			return err
		}
	}
	if err := os.Remove(j.dir.file(joinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(j.dir.path, err)
	}
	j.done.Node, j.done.NodeID = s.Name, s.ID
	return syncDir(j.dir.path)
}
