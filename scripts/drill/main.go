// Command drill runs fault drills against the real ovgate binary: it does to a
// node what happens to machines, and checks that no promise is broken.
//
//	go run ./scripts/drill list
//	go run ./scripts/drill [-size BYTES] [-dir DIR] [-keep] NAME [ROUNDS]
//
// Every drill is bounded in rounds and time, ends what it starts, prints its
// figures as the last line, and exits non-zero when anything was lost. A failed
// drill leaves its directory, with the node's log, and names it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/lab"
)

// drill is one fault drill.
type drill struct {
	name, what string
	rounds     int // by default
	// roundLimit bounds one round, far above what it takes on a busy machine: a
	// hang is a failure, not a wait.
	roundLimit time.Duration
	run        func(ctx context.Context, e *env) (string, error)
}

var drills = []drill{
	{"kill9", "kill -9 under a self-checking load, restart, verify every block", 20, time.Minute, kill9},
	{"kill9-image", "kill -9 during a second image copy; the first stays identical, the second keeps what was acknowledged", 1, 15 * time.Minute, kill9Image},
	{"lost-node", "delete the whole data directory; vpool recover brings back all that was uploaded", 1, 15 * time.Minute, lostNode},
	{"copied-data-dir", "start a copy and an older copy of a data directory, with and without the store's lock; nothing is overwritten, nothing stale served", 1, 5 * time.Minute, copiedDataDir},
	{"iscsi-abuse", "login storms, malformed PDUs, silent connections and lost ones under load; the node lives, a load beside them sees no error, every block is right", 3, 2 * time.Minute, iscsiAbuse},
	{"operations", "snapshots, groups, clones, rollbacks, backups, scrubs, moves and the trash under a self-checking load; every other round ends with kill -9, in the others the process stands still for a while; what was acknowledged is there", 8, 2 * time.Minute, operations},
	{"alba-kill-osds", "a random ASD of an object store is killed, stopped, restarted, damaged, wiped and replaced or set back to an older copy every few seconds under a self-checking load; no command fails, every block is right, and everything is complete again by itself", 14, 4 * time.Minute, albaKillOSDs},
	{"alba-lose-racks", "one of three racks of an object store is lost at one blow under a self-checking load: killed, standing still, or destroyed and replaced; no command fails, every block is right while it is away, and everything is spread over three racks again by itself", 3, 8 * time.Minute, albaLoseRacks},
	{"backend-away", "the backend directory disappears under load and comes back; no write fails, nothing is lost", 3, 3 * time.Minute, backendAway},
	{"cinder", "real Cinder, Keystone and Glance before two nodes (OVGATE_CINDER_NODES=1: one): every operation of the volume driver, with data checked through the LUN, faults in the middle of them, a node lost in OVGATE_CINDER_LOSSES of them, and many volumes at once (OVGATE_CINDER_VOLUMES, OVGATE_CINDER_WORKERS; with OVGATE_CINDER_COMPARE=1 beside Cinder's fake driver)", 1, cinderRound(), cinder},
	{"cinder-guest", "a virtual machine attaches volumes of the real Cinder with os-brick: two paths, I/O, an extend while attached, one path cut, LUKS, detach and delete twice and in any order; and Cinder in one, with backups; scripts/setup.sh guest-cinder brings what it takes; soak runs it, make drills does not", 1, 90 * time.Minute, cinderGuest},
	{"vsphere", "a simulated vCenter whose hosts log in to a node: the life of datastores, the node killed at each thing that it asks of a host, hosts and vCenter away in the middle of jobs", 1, 10 * time.Minute, vsphere},
	{"store-faults", "vDisks on real S3 and Swift behind a proxy that does what networks and stores do, each fault alone and mixed, under a self-checking load with operations and kill -9; afterwards everything gets to the store by itself, is whole there, and serves on a node that has nothing else; no object gets other bytes", 2, 8 * time.Minute, storeFaults},
	{"cluster-kill-node", "a node of a cluster is killed and starts again; others take its vDisks over, with every acknowledged write", 1, 5 * time.Minute, clusterKillNode},
	{"cluster-pause-node", "a node stands still for longer than its lease and goes on; it changes nothing any more and answers nothing stale", 1, 6 * time.Minute, clusterPauseNode},
	{"cluster-cut-node", "a node loses the others, etcd, and store or storage machines, and hosts still reach it; the same as for a pause", 1, 5 * time.Minute, clusterCutNode},
	{"cluster-cut-etcd", "a node loses etcd, then all do; its vDisks move, then everything waits, and nothing is lost", 1, 6 * time.Minute, clusterCutEtcd},
	{"cluster-cut-dtl", "two nodes lose each other alone; journals are mirrored elsewhere, nothing moves", 1, 5 * time.Minute, clusterCutDTL},
	{"cluster-loss", "every link loses 5 % of the packets, and a node is killed meanwhile", 1, 8 * time.Minute, clusterLoss},
	{"cluster-restart-all", "all nodes and storage machines are killed at once, or stopped in every other round, and start again", 2, 6 * time.Minute, clusterRestartAll},
	{"cluster-full-disk", "the disk of a node is full for a while, then that of a storage machine, if there are any", 1, 5 * time.Minute, clusterFullDisk},
	{"cluster-datastore", "the node that serves a datastore of three simulated ESXi hosts is killed, starts again and gets it back; virtual machines go on, paths follow, no host is told that the LUN is gone, and hosts that contend for a lock through all nodes see no false miscompare", 2, 6 * time.Minute, clusterDatastore},
	{"cluster-etcd-leader", "the leading one of three members of etcd is killed and starts again; nothing moves", 2, 5 * time.Minute, clusterEtcdLeader},
	{"cluster-etcd-pause", "each of three members of etcd in turn stands still, the leading one too, and goes on; nothing moves", 1, 5 * time.Minute, clusterEtcdPause},
	{"cluster-many", "a node with a third of 66 vDisks, with OVGATE_CLUSTER=full 1000, is killed and starts again; all of them are taken over, those in use first, with what is in them", 1, 40 * time.Minute, clusterMany},
	{"cluster-alba-kill-node", "cluster-kill-node with the vPool on an Alba over two devices of each node: the devices go with their node, and nothing else keeps the data", 1, 5 * time.Minute, clusterKillNode},
	{"cluster-own-kill-node", "cluster-alba-kill-node with the registry on the nodes, too: with a node a member of it goes, now and then the one that leads", 1, 5 * time.Minute, clusterKillNode},
	{"cluster-own-pause-node", "cluster-alba-pause-node with the registry on the nodes", 1, 6 * time.Minute, clusterPauseNode},
	{"cluster-own-cut-node", "cluster-alba-cut-node with the registry on the nodes", 1, 5 * time.Minute, clusterCutNode},
	{"cluster-alba-pause-node", "cluster-pause-node with the vPool on the nodes' Alba", 1, 6 * time.Minute, clusterPauseNode},
	{"cluster-alba-cut-node", "cluster-cut-node with the vPool on the nodes' Alba: a node and its devices lose the others and etcd", 1, 5 * time.Minute, clusterCutNode},
	{"cluster-alba-cut-etcd", "cluster-cut-etcd with the vPool on the nodes' Alba, whose manifests are in etcd", 1, 6 * time.Minute, clusterCutEtcd},
	{"cluster-storage-kill", "the devices are on machines of their own, one of which is killed and starts again; writes go on, nothing moves, what is stored meanwhile is whole afterwards, and everything is there without another one", 1, 8 * time.Minute, clusterStorageKill},
	{"cluster-storage-pause", "cluster-storage-kill with a storage machine that stands still and goes on", 1, 8 * time.Minute, clusterStoragePause},
	{"cluster-storage-cut", "cluster-storage-kill with a storage machine that the nodes do not reach", 1, 8 * time.Minute, clusterStorageCut},
	{guestDrill, "a virtual machine with Linux's initiator and dm-multipath has ext4 on a vDisk of a cluster with its vPool on the nodes' Alba, over two paths; the node that serves it is killed, paused and cut off, and the vDisk is moved each time: no error in the guest, and every file as it was synced", 1, 25 * time.Minute, clusterGuest},
	{upgradeName, "the program of one node of a cluster after the other is replaced by the next version; no command fails but for its path, and the version before is refused on a newer format", 1, 12 * time.Minute, rollingUpgrade},
}

// env is what a drill works with.
type env struct {
	dir    string // its own, on a real disk
	bin    string
	rounds int
	size   int64 // of images, bytes
	seed   uint64
	rng    *rand.Rand
	nodes  []*node.Node
}

// say prints progress.
func (e *env) say(format string, args ...any) {
	fmt.Printf("  %s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// node prepares a node on a data directory below the drill's own.
func (e *env) node(data string, args ...string) (*node.Node, error) {
	n, err := node.New(node.Options{Bin: e.bin, Data: filepath.Join(e.dir, data), Insecure: true, Args: args})
	if err == nil {
		e.nodes = append(e.nodes, n)
	}
	return n, err
}

// configured starts a node with a configuration.
func (e *env) configured(ctx context.Context, config string) (*node.Node, error) {
	file := filepath.Join(e.dir, "ovgate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	n, err := e.node("data", "--config", file)
	if err != nil {
		return nil, err
	}
	return n, n.Start(ctx)
}

func main() {
	handled, err := lab.Helper(os.Args)
	if !handled {
		err = run()
	}
	if errors.Is(err, errSaid) {
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
}

func run() error {
	size := flag.Int64("size", 1<<30, "size of disk images, in bytes")
	dir := flag.String("dir", "", "where to work (default: a new directory below the temporary one)")
	keep := flag.Bool("keep", false, "leave the directory also after a success")
	seed := flag.Uint64("seed", rand.Uint64(), "seed of all random choices but timing")
	flag.Parse()
	args := flag.Args()
	if len(args) == 0 || len(args) > 2 {
		return errors.New("usage: drill list | drill [-size BYTES] [-dir DIR] [-keep] [-seed N] NAME [ROUNDS]")
	}
	if args[0] == "list" {
		for _, d := range drills {
			fmt.Printf("%-22s %2d rounds  %s\n", d.name, d.rounds, d.what)
		}
		return nil
	}
	d, rounds, err := choose(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rounds)*d.roundLimit+5*time.Minute)
	defer cancel()
	work, inside := filepath.Dir(os.Getenv(insideLab)), os.Getenv(insideLab) != ""
	if inside {
		*keep = true // the lab's maker removes it
	} else if work, err = os.MkdirTemp(*dir, "ovgate-drill-"); err != nil {
		return err
	}
	if d.inLab() && !inside {
		err := drillInLab(ctx, d, work, *seed, rounds)
		if err == nil && !*keep {
			err = os.RemoveAll(work)
		}
		return err
	}
	fmt.Printf("drill %s: %d rounds, seed %d, in %s\n", d.name, rounds, *seed, work)
	e := &env{dir: work, rounds: rounds, size: *size, seed: *seed, rng: rand.New(rand.NewPCG(*seed, 1))}
	start := time.Now()
	figures, err := e.do(ctx, d)
	if err != nil {
		return fmt.Errorf("%s FAILED after %v (seed %d, logs in %s): %w", d.name, time.Since(start).Round(time.Second), *seed, work, err)
	}
	if !*keep {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
	}
	fmt.Printf("drill %s: ok: %s in %v\n", d.name, figures, time.Since(start).Round(100*time.Millisecond))
	return nil
}

// choose reads NAME [ROUNDS].
func choose(args []string) (drill, int, error) {
	for _, d := range drills {
		if d.name != args[0] {
			continue
		}
		rounds := d.rounds
		if len(args) == 2 {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 || n > 1_000_000 {
				return d, 0, fmt.Errorf("rounds %q: a number from 1 to 1000000", args[1])
			}
			rounds = n
		}
		return d, rounds, nil
	}
	return drill{}, 0, fmt.Errorf("no drill %q; see: drill list", args[0])
}

// do runs a drill and ends whatever it left running.
func (e *env) do(ctx context.Context, d drill) (figures string, err error) {
	defer func() {
		for _, n := range e.nodes {
			err = errors.Join(err, n.Close())
		}
	}()
	if !d.inLab() {
		if e.bin, err = node.Build(ctx, e.dir); err != nil {
			return "", err
		}
	}
	figures, err = d.run(ctx, e)
	if err == nil {
		err = ctx.Err()
	}
	return figures, err
}
