package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/client"
)

const (
	stateFile = "lab.json"
	linksFile = "links.json"
	// VPool is the one that all nodes reach.
	VPool = "lab"
	// store is what the S3 peer is registered as.
	store = "store"
	// devices is how many each node, or storage machine, has for the Alba of a lab, deviceBytes
	// the size of each.
	devices     = 2
	deviceBytes = 4 << 30
)

// albaPolicies are those of the lab's preset: all that is acknowledged outlives the loss of a
// machine, on three and on the two that are left, where writes go on with the second or third. Other than with the default preset, c is all of k+m: one may be lost in the
// moment of the acknowledgement.
var albaPolicies = []string{"4,2,6,2", "2,2,4,2", "1,1,2,1"}

// Arguments that make a program with this package a process of a lab.
const (
	helperEtcd  = "lab-etcd"
	helperWires = "lab-wires"
)

// Helper runs a process of a lab, if the program's arguments say so. A program that makes
// labs calls it first.
func Helper(args []string) (handled bool, err error) {
	if len(args) < 2 {
		return false, nil
	}
	switch args[1] {
	case helperEtcd:
		return true, runEtcd(args[2:])
	case helperWires:
		return true, runWires(args[2:])
	}
	return false, nil
}

// Options say what a lab consists of.
type Options struct {
	Nodes   int // 1 to 9
	Members int // of etcd: 1, 3 or 5; 0 with OwnRegistry
	// OwnRegistry: each node runs a member of the registry; there is no etcd beside.
	OwnRegistry bool `json:",omitempty"`
	Bin         string
	// DiskBytes is the size of the file system of each node and storage machine, which is in
	// memory then; 0: it is the lab's.
	DiskBytes int64    `json:",omitempty"`
	Settings  []string `json:",omitempty"` // more flags of vpool create
	// OwnPaths: a node's portals are for its own vDisks, so that who answers is who serves.
	OwnPaths bool `json:",omitempty"`
	// Alba: the vPool is on the Alba of the nodes, each of which has devices in its own
	// directory; there is no S3 store.
	Alba bool `json:",omitempty"`
	// Storage is how many machines have devices and nothing else, 2 to 9, with Alba; the nodes
	// have none then. 0: there are no such machines.
	Storage int `json:",omitempty"`
	// Bins are the programs of nodes that have another one than Bin (Use).
	Bins map[string]string `json:",omitempty"`
}

func (o Options) check() error {
	if o.Nodes < 1 || o.Nodes > mostNodes {
		return fmt.Errorf("%d nodes: use 1 to %d", o.Nodes, mostNodes)
	}
	if o.OwnRegistry != (o.Members == 0) || !slices.Contains([]int{0, 1, 3, 5}, o.Members) {
		return fmt.Errorf("%d members of etcd: use 1, 3 or 5", o.Members)
	}
	if o.Storage != 0 && (!o.Alba || o.Storage < 2 || o.Storage > mostNodes) {
		return fmt.Errorf("%d storage machines: use 2 to %d, with a vPool on Alba, or none", o.Storage, mostNodes)
	}
	if !filepath.IsAbs(o.Bin) {
		return fmt.Errorf("ovgate at %q: name it from the root", o.Bin)
	}
	return nil
}

// Lab is one cluster.
type Lab struct {
	dir string
	o   Options
}

// state is what a directory says of its lab.
type state struct {
	Options
	Ready bool // it was filled
}

// Open returns the lab of a directory.
func Open(dir string) (*Lab, error) {
	l, _, err := open(dir)
	return l, err
}

func open(dir string) (*Lab, state, error) {
	var s state
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, s, err
	}
	if err := readJSON(filepath.Join(dir, stateFile), &s); err != nil {
		return nil, s, fmt.Errorf("no cluster is in %s: %w", dir, err)
	}
	return &Lab{dir, s.Options}, s, nil
}

func (l *Lab) save(ready bool) error {
	return writeJSON(filepath.Join(l.dir, stateFile), state{l.o, ready})
}

// Dir is the lab's directory, from the root.
func (l *Lab) Dir() string { return l.dir }

// Make makes an empty lab: directory, namespaces and links.
func Make(ctx context.Context, dir string, o Options) (*Lab, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err != nil {
		return nil, err
	} else if len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty: choose another directory (N3)", dir)
	}
	l := &Lab{dir, o}
	if err := l.save(false); err != nil {
		return nil, err
	}
	for _, d := range []string{"run", "log", "tls"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := l.removeNetwork(ctx); err != nil { // what a crash left, and whose directory was removed since
		return nil, err
	}
	return l, l.makeNetwork(ctx)
}

// Up makes a lab, or starts what does not run of the one that is there.
func Up(ctx context.Context, dir string, o Options, say func(string, ...any)) (*Lab, error) {
	l, s, err := open(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if l, err = Make(ctx, dir, o); err != nil {
			return nil, err
		}
		return l, l.Fill(ctx, say)
	case err != nil:
		return nil, err
	case !s.Ready:
		say("an earlier up did not end; beginning anew")
		if err := Down(ctx, dir); err != nil {
			return nil, err
		}
		return Up(ctx, dir, o, say)
	case s.Nodes != o.Nodes || s.Members != o.Members || s.Storage != o.Storage:
		return nil, fmt.Errorf("the cluster in %s has %d nodes, %d members of etcd and %d storage machines: remove it first (down), or choose another directory", l.dir, s.Nodes, s.Members, s.Storage)
	}
	if found, err := l.namespaces(); err != nil {
		return nil, err
	} else if len(found) < len(l.Places()) { // the machine was restarted
		if err := errors.Join(l.removeNetwork(ctx), l.makeNetwork(ctx), l.Heal(ctx)); err != nil {
			return nil, err
		}
	}
	if err := l.startStores(ctx); err != nil {
		return nil, err
	}
	return l, l.StartAll(ctx)
}

// Fill starts everything in a lab that Make made, with the vPool VPool on all nodes.
func (l *Lab) Fill(ctx context.Context, say func(string, ...any)) error {
	if err := l.certify(); err != nil {
		return err
	}
	for _, m := range l.Machines() {
		if err := l.prepare(m); err != nil {
			return err
		}
	}
	var stores []string
	if !l.o.OwnRegistry {
		stores = append(stores, "etcd")
	}
	if l.o.Storage > 0 {
		stores = append(stores, "the storage machines")
	}
	if !l.o.Alba {
		stores = append(stores, "the object store")
	}
	if len(stores) > 0 {
		say("starting %s", strings.Join(stores, " and "))
	}
	if err := l.startStores(ctx); err != nil {
		return err
	}
	say("starting n1, the first node")
	if err := l.first(ctx); err != nil {
		return err
	}
	if l.o.Nodes > 1 {
		say("joining the others")
	}
	if err := l.Each(l.Nodes()[1:], func(n string) error { return l.join(ctx, n) }); err != nil {
		return err
	}
	if err := l.registered(ctx); err != nil {
		return err
	}
	if err := l.makeVPool(ctx); err != nil {
		return err
	}
	return l.save(true)
}

// Each does something for several places at a time.
func (l *Lab) Each(places []string, f func(string) error) error {
	errs := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Data is the data directory of a node; a storage machine has none.
func (l *Lab) Data(node string) string { return filepath.Join(l.Disk(node), "data") }

// Disk is the file system of a node or storage machine.
func (l *Lab) Disk(machine string) string { return filepath.Join(l.dir, machine) }

// device is the directory of a device, the first is 1.
func (l *Lab) device(machine string, number int) string {
	return filepath.Join(l.Disk(machine), fmt.Sprint("device", number))
}

func (l *Lab) config(node string) string { return filepath.Join(l.dir, node+".yaml") }

// Portal is the iSCSI address of a node.
func (l *Lab) Portal(node string) string { return net.JoinHostPort(Address(node), "3260") }

// prepare makes the places of a node or storage machine.
func (l *Lab) prepare(machine string) error {
	if err := os.Mkdir(l.Disk(machine), 0o700); err != nil {
		return err
	}
	if l.o.DiskBytes > 0 {
		if err := unix.Mount("tmpfs", l.Disk(machine), "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", l.o.DiskBytes)); err != nil {
			return fmt.Errorf("mount %s: %w", l.Disk(machine), err)
		}
	}
	return nil
}

// configure writes the configuration of a node. The first one has no place for journals of
// others, and no devices, before it is in a cluster.
func (l *Lab) configure(node string, dtl bool) error {
	var members []string
	for _, m := range l.Members() {
		members = append(members, memberURL(m))
	}
	a := Address(node)
	registry := fmt.Sprintf("{etcd: [%s], ca: %s.pem, certificate: %s.pem, key: %s.key}", strings.Join(members, ", "), l.tls(caPair), l.tls(nodePair), l.tls(nodePair))
	if l.o.OwnRegistry {
		registry = fmt.Sprintf("{member: {listen: %s:2379, peers: %s:2380}}", a, a)
	}
	text := fmt.Sprintf("node_name: %s\napi: %s:8443\niscsi: %s:3260\ncluster: {listen: %s:7946}\nregistry: %s\n", node, a, a, a, registry)
	if dtl {
		text += fmt.Sprintf("dtl: {listen: %s:8600}\n", a)
	}
	if dtl && l.o.Alba && l.o.Storage == 0 {
		text += fmt.Sprintf("alba: {listen: %s:8550}\nasds:\n", a)
		for i := range devices {
			text += fmt.Sprintf("- {dir: %q, bytes: %d}\n", l.device(node, i+1), deviceBytes)
		}
	}
	if l.o.OwnPaths {
		text += "paths: owner\n"
	}
	return os.WriteFile(l.config(node), []byte(text), 0o600)
}

// startStores starts the members of etcd, and the S3 peer or the storage machines, if they do
// not run.
func (l *Lab) startStores(ctx context.Context) error {
	for _, m := range l.Members() {
		if !l.Running(m) {
			if err := l.startMember(m); err != nil {
				return err
			}
		}
	}
	if !l.o.Alba {
		if _, err := l.peer(ctx, "up", "--tls", "--address", Address(s3)); err != nil {
			return err
		}
	}
	if err := l.Each(l.Storage(), func(m string) error { return l.Start(ctx, m) }); err != nil {
		return err
	}
	for _, m := range l.Members() {
		if err := l.await(ctx, m, func() bool { return l.memberUp(m) }); err != nil {
			return err
		}
	}
	return nil
}

// StartMember starts a member of etcd that was killed, and waits for it.
func (l *Lab) StartMember(ctx context.Context, name string) error {
	if err := l.startMember(name); err != nil {
		return err
	}
	return l.await(ctx, name, func() bool { return l.memberUp(name) })
}

// Registry is how clients reach etcd.
type Registry struct {
	URLs                 []string
	CA, Certificate, Key string // PEM files
}

// StartRegistry starts the members of etcd alone in a lab that Make made, for nodes that
// others install.
func (l *Lab) StartRegistry(ctx context.Context) (Registry, error) {
	r := Registry{CA: l.tls(caPair) + ".pem", Certificate: l.tls(nodePair) + ".pem", Key: l.tls(nodePair) + ".key"}
	if err := l.certify(); err != nil {
		return r, err
	}
	for _, m := range l.Members() {
		if err := l.StartMember(ctx, m); err != nil {
			return r, err
		}
		r.URLs = append(r.URLs, memberURL(m))
	}
	return r, nil
}

// peer runs a verb of the S3 peer, and returns what it says of itself. The working directory
// is the root of the repository.
func (l *Lab) peer(ctx context.Context, verb string, args ...string) (map[string]string, error) {
	cmd := l.at(ctx, s3, append([]string{filepath.Join("scripts", "peer"), "s3", verb, "--instance", "lab"}, args...)...)
	cmd.Env = append(os.Environ(), "OVGATE_PEERS="+filepath.Join(l.dir, "peers"))
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("scripts/peer s3 %s, from the root of the repository: %w", verb, err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			said[k] = v
		}
	}
	return said, nil
}

// output runs a command; its error has what it said.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

// CLI runs an ovgate verb against a node, as its operator.
func (l *Lab) CLI(ctx context.Context, node string, args ...string) ([]byte, error) {
	return l.cli(ctx, node, nil, args...)
}

func (l *Lab) cli(ctx context.Context, node string, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := l.at(ctx, node, append([]string{l.bin(node), "--data", l.Data(node)}, args...)...)
	cmd.Stdin = stdin
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("%s: ovgate %s: %w", node, strings.Join(args, " "), err)
	}
	return out, nil
}

// API returns a client of a node with the operator's rights. It works in the client's
// namespace.
func (l *Lab) API(node string) (*client.Client, error) {
	o, err := client.Discover(client.System(), l.Data(node))
	if err != nil {
		return nil, err
	}
	return client.New(o)
}

// serve starts a node.
func (l *Lab) serve(node string) error {
	return l.start(node, node, l.bin(node), "serve", "--data", l.Data(node), "--config", l.config(node))
}

// Alba tells whether the vPool is on the nodes' or storage machines' Alba.
func (l *Lab) Alba() bool { return l.o.Alba }

// Bin is the program of the nodes, but for those that Use gave another one.
func (l *Lab) Bin() string { return l.o.Bin }

func (l *Lab) bin(node string) string { return cmp.Or(l.o.Bins[node], l.o.Bin) }

// Use gives a node another program, for its next start.
func (l *Lab) Use(node, bin string) error {
	if l.o.Bins == nil {
		l.o.Bins = map[string]string{}
	}
	l.o.Bins[node] = bin
	return l.save(true)
}

// Refused starts a node that is expected not to come up, and returns what it says.
func (l *Lab) Refused(ctx context.Context, node string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	out, err := l.at(ctx, node, l.bin(node), "serve", "--data", l.Data(node), "--config", l.config(node)).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return string(out), nil
	}
	return "", fmt.Errorf("%s was to refuse to start: %w: %s", node, err, out)
}

// Start starts a node or storage machine and waits until it answers.
func (l *Lab) Start(ctx context.Context, node string) error {
	if slices.Contains(l.Storage(), node) {
		return l.startStorage(ctx, node)
	}
	if l.Running(node) {
		return nil
	}
	if err := l.serve(node); err != nil {
		return err
	}
	return l.await(ctx, node, func() bool {
		_, err := l.CLI(ctx, node, "status")
		return err == nil
	})
}

// StartAll starts the nodes and storage machines that do not run.
func (l *Lab) StartAll(ctx context.Context) error {
	return l.Each(l.Machines(), func(m string) error { return l.Start(ctx, m) })
}

// Kill ends what runs at a place with SIGKILL.
func (l *Lab) Kill(ctx context.Context, place string) error {
	return l.Each(l.processes(place), func(p string) error { return l.kill(ctx, p) })
}

// Stop ends what runs at a place in order.
func (l *Lab) Stop(ctx context.Context, place string) error {
	return l.Each(l.processes(place), func(p string) error { return l.end(ctx, p, syscall.SIGTERM, stopTimeout) })
}

// first makes n1 the first node of the cluster.
func (l *Lab) first(ctx context.Context) error {
	n := l.Nodes()[0]
	if err := l.configure(n, false); err != nil {
		return err
	}
	if err := l.Start(ctx, n); err != nil {
		return err
	}
	if _, err := l.CLI(ctx, n, "cluster", "init", "--name", "lab"); err != nil {
		return err
	}
	if err := l.Stop(ctx, n); err != nil {
		return err
	}
	if err := l.configure(n, true); err != nil {
		return err
	}
	return l.Start(ctx, n)
}

// join makes a node a member of n1's cluster, and starts it.
func (l *Lab) join(ctx context.Context, node string) error {
	if err := l.configure(node, true); err != nil {
		return err
	}
	token, err := l.CLI(ctx, l.Nodes()[0], "cluster", "token", "create")
	if err != nil {
		return err
	}
	if _, err := l.cli(ctx, node, bytes.NewReader(token), "cluster", "join", "--config", l.config(node)); err != nil {
		return err
	}
	return l.Start(ctx, node)
}

// makeVPool makes the vPool, and waits until each node has it.
func (l *Lab) makeVPool(ctx context.Context) error {
	makeStore := l.register
	on := []string{"--store", store}
	if l.o.Alba {
		makeStore, on = l.makePreset, []string{"--backend", "alba", "--preset", store}
	}
	if err := makeStore(ctx); err != nil {
		return err
	}
	args := append([]string{"vpool", "create", VPool}, on...)
	if _, err := l.CLI(ctx, l.Nodes()[0], append(args, l.o.Settings...)...); err != nil {
		return err
	}
	return l.Each(l.Nodes(), func(n string) error {
		return l.await(ctx, n, func() bool {
			out, err := l.CLI(ctx, n, "vpool", "show", VPool, "-o", "json")
			return err == nil && bytes.Contains(out, []byte(`"state": "running"`))
		})
	})
}

// register makes the S3 peer known.
func (l *Lab) register(ctx context.Context) error {
	said, err := l.peer(ctx, "status")
	if err != nil {
		return err
	}
	b, err := os.ReadFile(said["credentials"])
	if err != nil {
		return err
	}
	var user, secret string
	for line := range strings.Lines(string(b)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k {
		case "access_key":
			user = v
		case "secret_key":
			secret = v
		}
	}
	_, err = l.cli(ctx, l.Nodes()[0], strings.NewReader(secret), "backend", "create", "s3", store, "--url", said["endpoint"], "--bucket", said["bucket"],
		"--region", said["region"], "--user", user, "--ca", said["ca"], "--secret-stdin")
	return err
}

// makePreset waits until all devices work for each node, and makes the preset.
func (l *Lab) makePreset(ctx context.Context) error {
	if err := l.claim(ctx); err != nil {
		return err
	}
	for _, n := range l.Nodes() {
		if err := l.await(ctx, n, func() bool { return l.devicesWork(ctx, n) }); err != nil {
			return fmt.Errorf("devices: %w", err)
		}
	}
	args := []string{"preset", "create", store}
	for _, p := range albaPolicies {
		args = append(args, "--policy", p)
	}
	_, err := l.CLI(ctx, l.Nodes()[0], args...)
	return err
}

// devicesWork tells whether a node reaches all devices.
func (l *Lab) devicesWork(ctx context.Context, node string) bool {
	out, err := l.CLI(ctx, node, "osd", "list", "-o", "json")
	if err != nil {
		return false
	}
	var list client.OSDList
	if json.Unmarshal(out, &list.Items) != nil && json.Unmarshal(out, &list) != nil {
		return false
	}
	working := 0
	for _, o := range list.Items {
		if o.Working {
			working++
		}
	}
	return working == devices*cmp.Or(l.o.Storage, l.o.Nodes)
}

// Enter returns a command in the client's namespace, which ends with this process.
func (l *Lab) Enter(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := l.at(ctx, hosts, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Close ends what runs of a lab and removes its namespaces; the files stay.
func (l *Lab) Close(ctx context.Context) error {
	err := l.removeNetwork(ctx)
	for _, n := range l.Machines() {
		if merr := unix.Unmount(l.Disk(n), 0); merr != nil && !errors.Is(merr, syscall.EINVAL) && !errors.Is(merr, syscall.ENOENT) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", l.Disk(n), merr))
		}
	}
	return err
}

// Down removes everything that Make, Fill and Up made; a directory without a lab is left
// alone (N3).
func Down(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	l, err := Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return (&Lab{dir: dir}).removeNetwork(ctx)
	}
	if err != nil {
		return err
	}
	if err := l.Close(ctx); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// registered waits until the registry has a member on every node that counts.
func (l *Lab) registered(ctx context.Context) error {
	if !l.o.OwnRegistry {
		return nil
	}
	api, err := l.API(l.Nodes()[0])
	if err != nil {
		return err
	}
	up := 0
	err = l.await(ctx, l.Nodes()[0], func() bool {
		c, err := client.Get[client.ClusterStatus](api.GetCluster(ctx))
		if err != nil || c.RegistryMembers == nil {
			return false
		}
		up = 0
		for _, m := range *c.RegistryMembers {
			if m.State == client.RegistryMemberStateUp && m.Node != nil {
				up++
			}
		}
		return up == l.o.Nodes
	})
	if err != nil {
		err = fmt.Errorf("%d of %d nodes have a member of the registry: %w", up, l.o.Nodes, err)
	}
	return err
}
