package openstack

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/guest"
)

const (
	// asds on machines of asdsPerMachine are the fewest that the default preset's
	// policy (4,2,5,2) is met by.
	asds           = 6
	asdsPerMachine = 2
	// endTime is kept of the time that tests have, to end the peers in.
	endTime = 30 * time.Second
	backend = "ovgate"
)

// vPools are the pools of the backend.
const (
	fast  = "fast"
	plain = "plain"
)

// lab is what all tests share.
type lab struct {
	ctx    context.Context
	dir    string
	node   *node.Node
	second *node.Node   // nil: one node is all there is
	etcd   *etcd.Server // of both
	asds   []*node.ASD
	door   *door // the driver's first address
	back   *door // its second, of the second node if there is one
	pieces counter
	api    *client.Client
	cinder *node.Peer
	admin  *cloud // role admin, project admin
	member *cloud // role member, project ovgate
	token  string // of the driver

	// portals are those of the nodes, on the loopback.
	portals []string
}

// l is set up by TestMain.
var l *lab

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	for _, program := range []string{"cinder-manage", "glance-api", "keystone-manage", "openstack", "cinder"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Println("OpenStack is not installed, see scripts/setup.sh:", err)
			if os.Getenv("CI") == "true" {
				return 1
			}
			return 0
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if limit := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit-endTime)
		defer cancel()
	}
	start := time.Now()
	l = &lab{ctx: ctx}
	if err := l.start(); err != nil {
		fmt.Println("set-up:", errors.Join(err, l.end(false)))
		return 1
	}
	fmt.Printf("set-up took %v\n", time.Since(start).Round(100*time.Millisecond))
	code := m.Run()
	if err := l.end(code == 0); err != nil {
		fmt.Println("the end:", err)
		return 1
	}
	return code
}

func (l *lab) start() error {
	// The peers are started from the root of the repository.
	if err := os.Chdir("../.."); err != nil {
		return err
	}
	var err error
	if l.dir, err = os.MkdirTemp("", "ovgate-openstack-"); err != nil {
		return err
	}
	if err := l.startNode(); err != nil {
		return err
	}
	if err := l.makeToken(); err != nil {
		return err
	}
	text := l.section(l.door.Addr(), l.back.Addr())
	file := filepath.Join(l.dir, "ovgate.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	other := filepath.Join(l.dir, "fake.conf")
	if err := os.WriteFile(other, []byte(fakeSection), 0o600); err != nil {
		return err
	}
	args := []string{"--backend", file, "--backend", other}
	if database := os.Getenv("OVGATE_CINDER_DATABASE"); database != "" {
		args = append(args, "--database", database)
	}
	if l.cinder, err = node.StartPeer(l.ctx, l.peers(), "cinder", "openstack", args...); err != nil {
		return err
	}
	if down := l.cinder.Said["uninitialized"]; down != "" {
		return fmt.Errorf("the backends %s did not come up, see %s", down, l.cinder.Said["log"])
	}
	if l.admin, err = l.cloud("admin", "admin_key", "admin_project"); err != nil {
		return err
	}
	if l.member, err = l.cloud("user", "key", "project"); err != nil {
		return err
	}
	return l.types()
}

// peers is where their state is: of this run alone, or where the caller ends what a run
// that was killed leaves.
func (l *lab) peers() string {
	if dir := os.Getenv("OVGATE_PEERS"); dir != "" {
		return dir
	}
	return l.dir
}

func (l *lab) startNode() error {
	bin, err := node.Build(l.ctx, l.dir)
	if err != nil {
		return err
	}
	portal, err := freeport.Address()
	if err != nil {
		return err
	}
	args := []string{"--iscsi", portal}
	if guestAsked() { // hosts are told where the guest finds the portals
		for _, a := range guest.Addresses {
			args = append(args, "--advertise", a)
		}
	}
	if twoNodes() {
		err = l.startBoth(bin)
	} else {
		err = l.startOne(bin, args, portal)
	}
	if err != nil {
		return err
	}
	if l.api, err = l.node.API(); err != nil {
		return err
	}
	for i := range asds {
		a, err := node.NewASD(bin, filepath.Join(l.dir, fmt.Sprint("asd", i)))
		if err != nil {
			return err
		}
		if err := a.Start(l.ctx); err != nil {
			return err
		}
		l.asds = append(l.asds, a)
		if _, err := l.node.ClaimASD(l.ctx, a, fmt.Sprint("machine", i/asdsPerMachine), ""); err != nil {
			return err
		}
	}
	small := []string{"--journal-quota", "128MiB", "--sco-size", "4MiB", "--commit-interval", "500ms"}
	if _, err := l.node.CLI(l.ctx, append([]string{"vpool", "create", fast, "--backend", "alba"}, small...)...); err != nil {
		return err
	}
	where, behind := []string{"--path", filepath.Join(l.dir, plain)}, l.node
	if l.second != nil {
		where, behind = []string{"--backend", "alba"}, l.second // both nodes have to reach it
	}
	if _, err := l.node.CLI(l.ctx, append(append([]string{"vpool", "create", plain}, where...), small...)...); err != nil {
		return err
	}
	if l.door, err = newDoor(l.node, &l.pieces); err != nil {
		return err
	}
	l.back, err = newDoor(behind, &l.pieces)
	return err
}

// startOne starts the node that is alone.
func (l *lab) startOne(bin string, args []string, portal string) error {
	var err error
	if l.node, err = node.New(node.Options{Bin: bin, Data: filepath.Join(l.dir, "data"), Args: args}); err != nil {
		return err
	}
	l.portals = []string{l.node.Portal(), portal}
	return l.node.Start(l.ctx)
}

// local is where this machine finds a portal that hosts are told.
func (l *lab) local(portal string) string {
	if i := slices.Index(guest.Addresses[:], portal); i >= 0 {
		return l.portals[i]
	}
	return portal
}

// makeToken makes the driver's, which may write to its vPools and do nothing else.
func (l *lab) makeToken() error {
	user := "cinder"
	grants := []client.GrantInput{{Role: client.RoleWrite, Scope: "vpool:" + fast}, {Role: client.RoleWrite, Scope: "vpool:" + plain}}
	if err := client.Done(l.api.CreateUser(l.ctx, nil, client.UserInput{Name: user, Password: uuid(), Role: client.RoleOrNoneNone, Grants: &grants})); err != nil {
		return err
	}
	made, err := client.Get[client.NewToken](l.api.CreateToken(l.ctx, nil, client.TokenInput{Name: user, Role: client.RoleOrNoneNone, User: &user, Grants: &grants}))
	l.token = made.Secret
	return err
}

// section is that of cinder.conf, with the addresses of the API.
func (l *lab) section(addresses ...string) string {
	return fmt.Sprintf(`[%s]
volume_driver = ovgate_cinder.iscsi.OVGateISCSIDriver
volume_backend_name = %[1]s
ovgate_api_urls = https://%[2]s
ovgate_token = %[3]s
ovgate_ca_file = %[4]s
ovgate_vpools = %[5]s, %[6]s
max_over_subscription_ratio = 1000
`, backend, strings.Join(addresses, ", https://"), l.token, l.authority(), fast, plain)
}

// authority is the file with the node's CA.
func (l *lab) authority() string { return filepath.Join(l.node.Data(), "tls", "ca.pem") }

// end ends everything, and keeps what explains a failure.
func (l *lab) end(ok bool) error {
	var err error
	if l.cinder != nil {
		err = l.cinder.Close()
	}
	for _, d := range []*door{l.door, l.back} {
		if d != nil {
			d.Close()
		}
	}
	for _, n := range []*node.Node{l.second, l.node} {
		switch {
		case n == nil:
		case n.Alive() && ok:
			err = errors.Join(err, n.Stop())
		default:
			err = errors.Join(err, n.Close())
		}
	}
	for _, a := range l.asds {
		err = errors.Join(err, a.Kill())
	}
	if l.etcd != nil {
		l.etcd.Close()
	}
	if ok && err == nil {
		return os.RemoveAll(l.dir)
	}
	fmt.Println("logs are in", l.dir)
	return err
}
