package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/lab"
)

const (
	// clusterPrefix begins the keys of the set cluster.
	clusterPrefix = "cluster-"
	needCluster   = 28 << 30 // Ceph's files, 12 GiB, what ours writes, and room
	// clusterSize is the image and the vDisk, in bytes; both are written whole before.
	clusterSize = 1 << 30
	// cephOSDs and cephOSDBytes are Ceph's.
	cephOSDs     = 6
	cephOSDBytes = 2 << 30
	cephReplicas = 3
	// mirroredLimit bounds the wait for the journal to be mirrored.
	mirroredLimit = 2 * time.Minute
)

// clusterLoads are the rows, with how often as fast as the peer we are to be.
var clusterLoads = []struct {
	load flood
	what string
	goal float64
}{
	{flood{"write-qd1", true, 4 << 10, 1, 1}, "durable 4k random write QD1", 4},
	{flood{"write-qd32", true, 4 << 10, 32, 1}, "durable 4k random write QD32", 8},
	{flood{"read-qd1", false, 4 << 10, 1, 1}, "4k random read QD1", 0},
	{flood{"read-qd32", false, 4 << 10, 32, 1}, "4k random read QD32", 0},
}

// clusterComparisons are the rows of the set cluster.
func (r *results) clusterComparisons() []comparison {
	var out []comparison
	for _, l := range clusterLoads {
		out = append(out, comparison{"three nodes, DTL sync, Alba, over iSCSI: " + l.what + ", Ceph RBD with 3 replicas",
			clusterPrefix + "ovgate-" + l.load.name, clusterPrefix + "ceph-" + l.load.name, l.goal, ""})
	}
	return out
}

// insideLab is the environment variable with the lab's directory for the part of the
// bench that runs where its hosts are.
const insideLab = "OVGATE_BENCH_LAB"

// errNoCeph: Ceph cannot run here.
var errNoCeph = errors.New("the packages of Ceph are not installed (scripts/setup.sh ceph), or this is not root")

// measureCluster runs the rounds of the set cluster; without Ceph there are none.
func measureCluster(ctx context.Context, o options, dir string, r *results) (err error) {
	if _, err := exec.LookPath("ceph-osd"); err != nil || os.Getuid() != 0 {
		fmt.Println("bench: set cluster left out:", errNoCeph)
		return nil
	}
	r.noise = newNoise()
	r.noise.children = true // fio
	c, err := openCluster(ctx, dir)
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	if err != nil {
		return err
	}
	p, err := openCeph(ctx, dir)
	if p != nil {
		defer func() { err = errors.Join(err, p.peer.Close()) }()
	}
	if err != nil {
		return err
	}
	r.noise.pids = append(append(r.noise.pids, c.pids...), p.pids...)
	r.configs = append(r.configs,
		[2]string{clusterPrefix + "ovgate", "three ovgate nodes in network namespaces, each with two devices of an Alba (directories, policy (4,2,6,2)) and a member of the registry, all with TLS, journal mirrored on a second node's disk before the answer; iSCSI through the vDisk's node"},
		[2]string{clusterPrefix + "ceph", fmt.Sprintf("Ceph %s, monitor, manager and %d BlueStore OSDs on files, pool of %d replicas, no authentication, fio with librbd without its cache", p.peer.Said["version"], cephOSDs, cephReplicas)})
	var steps []step
	for _, l := range clusterLoads {
		settle := func(context.Context) error { return settleDisk(true) }
		steps = append(steps,
			step{key: clusterPrefix + "ovgate-" + l.load.name, settle: settle, run: func(_ context.Context, seconds float64, seed uint64) (float64, int64, error) {
				return c.run(l.load, seconds, seed)
			}},
			step{key: clusterPrefix + "ceph-" + l.load.name, settle: settle, run: func(ctx context.Context, seconds float64, seed uint64) (float64, int64, error) {
				return p.run(ctx, l.load, seconds, seed)
			}})
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.cluster = fmt.Sprintf("%d GiB, written whole before, all on one disk and the same CPUs; %s; %s", clusterSize>>30, cachesDropped(), r.noise)
	return nil
}

// clusterSide is a lab, with the process that loads it from within.
type clusterSide struct {
	lab  *lab.Lab
	cmd  *exec.Cmd
	to   io.WriteCloser
	from *bufio.Scanner
	pids []int
}

// openCluster starts three nodes, and a vDisk that is mirrored and written whole.
func openCluster(ctx context.Context, dir string) (*clusterSide, error) {
	fmt.Println("bench: preparing three nodes")
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	l, err := lab.Make(ctx, filepath.Join(dir, "lab"), lab.Options{Nodes: 3, OwnRegistry: true, Alba: true, OwnPaths: true, Bin: bin})
	if l == nil {
		return nil, err
	}
	c := &clusterSide{lab: l}
	if err != nil {
		return c, err
	}
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	c.cmd = l.Enter(ctx, self)
	c.cmd.Env = append(os.Environ(), insideLab+"="+l.Dir())
	c.cmd.Stderr = os.Stderr
	from, err := c.cmd.StdoutPipe()
	if err == nil {
		c.to, err = c.cmd.StdinPipe()
	}
	if err != nil {
		c.cmd = nil
		return c, err
	}
	if err := c.cmd.Start(); err != nil {
		c.cmd = nil
		return c, err
	}
	c.from = bufio.NewScanner(from)
	if _, _, err := c.answer(); err != nil {
		return c, err
	}
	c.pids = append(l.PIDs(), c.cmd.Process.Pid)
	return c, nil
}

// answer reads a line of the process within: a rate and a number of commands.
func (c *clusterSide) answer() (rate float64, ops int64, err error) {
	if !c.from.Scan() {
		return 0, 0, errors.Join(errors.New("the bench within the lab ended"), c.from.Err())
	}
	if _, err := fmt.Sscan(c.from.Text(), &rate, &ops); err != nil {
		return 0, 0, fmt.Errorf("the bench within the lab answers %q: %w", c.from.Text(), err)
	}
	return rate, ops, nil
}

func (c *clusterSide) run(f flood, seconds float64, seed uint64) (float64, int64, error) {
	if _, err := fmt.Fprintln(c.to, f.name, seconds, seed); err != nil {
		return 0, 0, err
	}
	return c.answer()
}

func (c *clusterSide) close() error {
	var err error
	if c.cmd != nil {
		err = errors.Join(c.to.Close(), c.cmd.Wait())
	}
	return errors.Join(err, c.lab.Close(context.Background()))
}

// withinLab fills the lab, makes the vDisk and does what it is told: a load, for how long
// and with which seed. It ends with its input.
func withinLab(ctx context.Context, dir string) error {
	l, err := lab.Open(dir)
	if err != nil {
		return err
	}
	if err := l.Fill(ctx, func(string, ...any) {}); err != nil {
		return err
	}
	first := l.Nodes()[0]
	api, err := l.API(first)
	if err != nil {
		return err
	}
	in := client.VDiskInput{Name: "bench", VPool: lab.VPool, Size: clusterSize}
	if _, err := client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
		return err
	}
	conn, err := client.Get[client.Connection](api.PublishVDisk(ctx, in.Name, client.PublishInput{Open: new(true)}))
	if err != nil {
		return err
	}
	a := lun.Of(conn)
	a.Portal = l.Portal(first)
	d, err := lun.Dial(ctx, a)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(d, clusterSize), d.Close(), mirrored(ctx, api, in.Name)); err != nil {
		return err
	}
	fmt.Println(0, 0)
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var name string
		var seconds float64
		var seed uint64
		if _, err := fmt.Sscan(s.Text(), &name, &seconds, &seed); err != nil {
			return err
		}
		for _, c := range clusterLoads {
			if c.load.name != name {
				continue
			}
			rate, ops, err := c.load.run(ctx, a, clusterSize, seconds, seed)
			if err == nil {
				err = mirrored(ctx, api, in.Name) // or it was something else that was measured
			}
			if err != nil {
				return err
			}
			fmt.Println(rate, ops)
		}
	}
	return nil
}

// mirrored waits until a vDisk's journal is.
func mirrored(ctx context.Context, api *client.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, mirroredLimit)
	defer cancel()
	for {
		v, err := client.Get[client.VDisk](api.GetVDisk(ctx, name))
		if err != nil || v.Dtl.State == client.DtlStateOk {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the DTL of vdisk %s is %s (%s) after %v", name, v.Dtl.State, v.Dtl.Reason, mirroredLimit)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// cephSide is Ceph with an image.
type cephSide struct {
	peer *node.Peer
	pids []int
}

func openCeph(ctx context.Context, dir string) (*cephSide, error) {
	fmt.Println("bench: preparing Ceph")
	p, err := startPeer(ctx, dir, "ceph", "bench", "--osds", strconv.Itoa(cephOSDs), "--osd-bytes", strconv.Itoa(cephOSDBytes),
		"--replicas", strconv.Itoa(cephReplicas), "--image-bytes", strconv.Itoa(clusterSize))
	if err != nil {
		return nil, err
	}
	c := &cephSide{peer: p}
	for k, v := range p.Said {
		if !strings.HasPrefix(k, "pid_") {
			continue
		}
		pid, err := strconv.Atoi(v)
		if err != nil {
			return c, fmt.Errorf("ceph: %s: %w", k, err)
		}
		c.pids = append(c.pids, pid)
	}
	_, _, err = c.fio(ctx, "--rw=write", "--bs=1M", "--iodepth=8")
	return c, err
}

func (c *cephSide) run(ctx context.Context, f flood, seconds float64, seed uint64) (float64, int64, error) {
	rw := "randread"
	if f.write {
		rw = "randwrite"
	}
	return c.fio(ctx, "--rw="+rw, fmt.Sprint("--bs=", f.size), fmt.Sprint("--iodepth=", f.depth), "--time_based", fmt.Sprintf("--runtime=%gs", seconds), fmt.Sprint("--randseed=", seed+1))
}

// fio loads the image and returns requests per second, and how many there were.
func (c *cephSide) fio(ctx context.Context, args ...string) (float64, int64, error) {
	cmd := exec.CommandContext(ctx, "fio", append([]string{"--name=bench", "--ioengine=rbd", "--clientname=admin",
		"--pool=" + c.peer.Said["pool"], "--rbdname=" + c.peer.Said["image"], "--output-format=json"}, args...)...)
	cmd.Env = append(os.Environ(), "CEPH_CONF="+c.peer.Said["conf"])
	var messages bytes.Buffer
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("fio: %w: %s", err, messages.String())
	}
	var said struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				IOPS  float64 `json:"iops"`
				Total int64   `json:"total_ios"`
			}
		}
	}
	if at := bytes.IndexByte(out, '{'); at < 0 || json.Unmarshal(out[at:], &said) != nil || len(said.Jobs) != 1 || said.Jobs[0].Error != 0 {
		return 0, 0, fmt.Errorf("fio answers %.300q", out)
	}
	j := said.Jobs[0]
	return j.Read.IOPS + j.Write.IOPS, j.Read.Total + j.Write.Total, nil
}
