package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/guest"
	"github.com/openvstorage/ovgate/scripts/lab"
)

const (
	guestDrill = "cluster-guest"
	guestVDisk = "guest"
	// guestSize is the vDisk's, bytes.
	guestSize = 256 << 20
	// guestFiles is how many files the guest writes in turn, each with fsync.
	guestFiles = 64
	// guestLimit bounds what the guest does after a fault; its processor is emulated.
	guestLimit = 5 * time.Minute
	// guestInitiator is its name.
	guestInitiator = "iqn.2026-11.io.ovgate.drill:guest"
)

// guestImage makes what the guest starts from, where there is a network: within the lab there
// is none.
func guestImage(ctx context.Context) error {
	_, err := guest.Image(ctx, ".")
	return err
}

// joint joins connections to an address of this namespace's loopback with one of a node: a guest
// reaches loopback alone.
type joint struct {
	l  net.Listener
	to string
	wg sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // open ones
	ended bool
}

func newJoint(to string) (*joint, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	j := &joint{l: l, to: to, conns: map[net.Conn]bool{}}
	j.wg.Go(j.accept)
	return j, nil
}

func (j *joint) accept() {
	for {
		c, err := j.l.Accept()
		if err != nil {
			return
		}
		j.wg.Go(func() { j.join(c) })
	}
}

// keep has a connection end with the joint; false: that has ended.
func (j *joint) keep(c net.Conn) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		c.Close()
		return false
	}
	j.conns[c] = true
	return true
}

func (j *joint) drop(c net.Conn) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.conns, c)
	c.Close()
}

// join copies both ways until either side ends.
func (j *joint) join(c net.Conn) {
	if !j.keep(c) {
		return
	}
	defer j.drop(c)
	to, err := net.DialTimeout("tcp", j.to, hostPatience)
	if err != nil || !j.keep(to) {
		return
	}
	defer j.drop(to)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(to, c) // how it ended is the same to both
		j.drop(to)
		j.drop(c)
	}()
	_, _ = io.Copy(c, to)
	j.drop(to)
	j.drop(c)
	<-done
}

func (j *joint) close() {
	j.l.Close()
	j.mu.Lock()
	j.ended = true
	for c := range j.conns {
		c.Close()
	}
	j.mu.Unlock()
	j.wg.Wait()
}

// guestHost is a virtual machine with the kernel's initiator and dm-multipath before the
// cluster: one path through the first node, one through the second.
type guestHost struct {
	c      *clusterDrill
	g      *guest.Guest
	joints []*joint
	faults []string // with the longest time without a write
}

// clusterGuest: a Linux host with ext4 on a vDisk over two paths. The node that serves it is
// killed, stands still, and is cut off from everybody, and the vDisk is moved in between; the
// host goes on without an error, with every file as it was synced.
func clusterGuest(ctx context.Context, e *env) (_ string, err error) {
	l, err := lab.Open(os.Getenv(insideLab))
	if err != nil {
		return "", err
	}
	if err := l.Fill(ctx, e.say); err != nil {
		return "", err
	}
	h := &guestHost{c: &clusterDrill{e: e, l: l, disks: []*followed{{name: guestVDisk}}}}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.start(ctx); err != nil {
		return "", err
	}
	written := 0
	for round := range e.rounds {
		for _, f := range []struct {
			name     string
			do, undo func(node string) error
		}{
			{"killed", func(n string) error { return l.Kill(ctx, n) }, func(n string) error { return l.Start(ctx, n) }},
			{"paused", func(n string) error { return l.Signal(n, syscall.SIGSTOP) }, func(n string) error { return l.Signal(n, syscall.SIGCONT) }},
			{"cut off", func(n string) error { return l.Cut(ctx, n, "all") }, func(string) error { return l.Heal(ctx) }},
		} {
			if err := h.fault(ctx, f.name, f.do, f.undo); err != nil {
				return "", fmt.Errorf("round %d: the node is %s: %w", round+1, f.name, err)
			}
		}
		if written, err = h.check(ctx); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		e.say("round %d: %d files synced so far, all as they were, no error in the guest", round+1, written)
	}
	return fmt.Sprintf("%d rounds, %d files synced by a guest over two paths, none lost, no error; longest time without one: %s", e.rounds, written, strings.Join(h.faults, ", ")), nil
}

// close ends the guest.
func (h *guestHost) close() error {
	var err error
	if h.g != nil {
		err = h.g.Close()
	}
	for _, j := range h.joints {
		j.close()
	}
	return err
}

// start makes the vDisk and boots the guest, which begins to write.
func (h *guestHost) start(ctx context.Context) error {
	c := h.c
	nodes := c.l.Nodes()
	api, err := c.l.API(nodes[0])
	if err != nil {
		return err
	}
	in := client.VDiskInput{Name: guestVDisk, VPool: lab.VPool, Size: guestSize}
	if _, err := client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
		return err
	}
	conn, err := client.Get[client.Connection](api.PublishVDisk(ctx, guestVDisk, client.PublishInput{Open: new(true)}))
	if err != nil {
		return err
	}
	if err := c.mirrored(ctx); err != nil {
		return err
	}
	image, err := guest.Image(ctx, ".")
	if err != nil {
		return err
	}
	relay, err := guest.BuildRelay(ctx, c.e.dir)
	if err != nil {
		return err
	}
	began := time.Now()
	if h.g, err = guest.Start(ctx, image, relay, guest.Options{Dir: filepath.Join(c.e.dir, "guest"), Name: guestInitiator}); err != nil {
		return err
	}
	for i := range guest.Routes {
		j, err := newJoint(c.l.Portal(nodes[i]))
		if err != nil {
			return err
		}
		h.joints = append(h.joints, j)
		if err := h.g.Route(i, j.l.Addr().String()); err != nil {
			return err
		}
	}
	c.e.say("guest up in %v%s", time.Since(began).Round(100*time.Millisecond), layout(c.l))
	conf, err := os.ReadFile(filepath.Join("scripts", "debian", "multipath.conf"))
	if err != nil {
		return err
	}
	script := "set -e\ncat >/etc/multipath.conf <<'C'\ndefaults {\n\tuser_friendly_names yes\n\tfind_multipaths no\n\tpolling_interval 5\n\tmax_polling_interval 5\n}\n" + string(conf) + "C\nmultipathd\n"
	for _, portal := range guest.Addresses {
		script += guestLogin(conn, portal)
	}
	return h.run(ctx, script+guestBegin)
}

// guestLogin logs in with CHAP, with the times that hosts are told to set.
func guestLogin(conn client.Connection, portal string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "iscsiadm -m node -o new -T %s -p %s >/dev/null\n", conn.IQN, portal)
	for _, s := range [][2]string{{"node.session.auth.authmethod", "CHAP"}, {"node.session.auth.username", conn.ChapUser}, {"node.session.auth.password", conn.ChapSecret},
		{"node.session.timeo.replacement_timeout", "5"}, {"node.conn[0].timeo.noop_out_interval", "5"}, {"node.conn[0].timeo.noop_out_timeout", "5"}} {
		fmt.Fprintf(&b, "iscsiadm -m node -T %s -p %s -o update -n %s -v %s\n", conn.IQN, portal, s[0], s[1])
	}
	fmt.Fprintf(&b, "iscsiadm -m node -T %s -p %s --login >/dev/null\n", conn.IQN, portal)
	return b.String()
}

// guestHelpers are shell functions of every script. A path works when multipathd says so.
const guestHelpers = `
paths() { multipathd show paths raw format "%m %t %T" | grep -c " active ready"; }
has_paths() {
	for i in $(seq 1500); do [ "$(paths)" = "$1" ] && return 0; usleep 200000; done
	echo "not $1 paths:"; multipathd show paths; multipath -ll; dmesg | tail -n 25; return 1
}
`

// guestBegin makes the file system and starts the load: one writer syncs small files, each of
// which holds its number, and notes the number that was synced last, and the longest time from
// one to the next in hundredths of a second; the other one writes and verifies a file without
// the cache.
var guestBegin = `
has_paths ` + strconv.Itoa(guest.Routes) + `
ls /dev/mapper | grep mpath | head -n 1 >/tmp/map
map=/dev/mapper/$(cat /tmp/map)
mkfs.ext4 -q -F $map
mount -t ext4 $map /mnt
echo 0 >/tmp/synced; echo 0 >/tmp/longest
dmesg -c >/dev/null
cat >/tmp/writer <<'W'
now() { read -r up _ </proc/uptime; echo ${up%.*}${up#*.}; }
i=$(cat /tmp/synced) last=$(now)
while [ ! -e /tmp/stop ]; do
	i=$((i + 1))
	printf '%04095d\n' $i | dd of=/mnt/f$((i % ` + strconv.Itoa(guestFiles) + `)) bs=4096 iflag=fullblock conv=fsync 2>/tmp/writer.err || { touch /tmp/failed; break; }
	echo $i >/tmp/synced.new; mv /tmp/synced.new /tmp/synced
	t=$(now)
	[ $((t - last)) -le $(cat /tmp/longest) ] || echo $((t - last)) >/tmp/longest
	last=$t
done
touch /tmp/writer.ended
W
cat >/tmp/verifier <<'V'
while [ ! -e /tmp/stop ]; do
	fio --name=verify --filename=/mnt/verify --size=4M --rw=randwrite --bs=4k --iodepth=4 --ioengine=libaio --direct=1 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$(date +%s) --output=/tmp/fio.log || { touch /tmp/failed; break; }
	echo >>/tmp/passes
done
touch /tmp/verifier.ended
V
sh /tmp/writer >/dev/null 2>&1 &
sh /tmp/verifier >/dev/null 2>&1 &
`

// run runs a script in the guest.
func (h *guestHost) run(ctx context.Context, script string) error {
	_, err := h.output(ctx, script)
	return err
}

func (h *guestHost) output(ctx context.Context, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, guestLimit)
	defer cancel()
	return h.g.Run(ctx, guestHelpers+script)
}

// number reads one from a file of the guest.
func (h *guestHost) number(ctx context.Context, file string) (int, error) {
	out, err := h.output(ctx, "[ ! -e /tmp/failed ] || { cat /tmp/writer.err /tmp/fio.log; dmesg | tail -n 40; exit 1; }\ncat "+file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// writing waits until so many more files were synced.
func (h *guestHost) writing(ctx context.Context, more int) error {
	from, err := h.number(ctx, "/tmp/synced")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, guestLimit)
	defer cancel()
	for {
		now, err := h.number(ctx, "/tmp/synced")
		if err != nil {
			return err
		}
		if now >= from+more {
			return nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return fmt.Errorf("%d files synced, %d more within %v: %w", from, now-from, guestLimit, err)
		}
	}
}

// fault takes the vDisk's node away until another one has it and the guest goes on, and brings
// it back; then the vDisk moves under load, to the node of one of the paths.
func (h *guestHost) fault(ctx context.Context, name string, do, undo func(node string) error) error {
	const some = 20 // files
	c := h.c
	node, hit, err := c.victim(ctx)
	if err != nil {
		return err
	}
	if err := h.writing(ctx, some); err != nil {
		return err
	}
	if err := h.run(ctx, "echo 0 >/tmp/longest"); err != nil {
		return err
	}
	began := time.Now()
	err = do(node)
	if err == nil {
		err = c.left(ctx, node, hit)
	}
	took := time.Since(began)
	if err == nil {
		err = h.writing(ctx, some)
	}
	var longest int
	if err == nil {
		longest, err = h.number(ctx, "/tmp/longest")
	}
	if err := errors.Join(err, undo(node)); err != nil {
		return err
	}
	if err := c.mirrored(ctx); err != nil {
		return err
	}
	if err := h.run(ctx, fmt.Sprintf("has_paths %d && echo 0 >/tmp/longest", guest.Routes)); err != nil {
		return err
	}
	all, err := c.agree(ctx)
	if err != nil {
		return err
	}
	to := c.l.Nodes()[0]
	if all[guestVDisk].Node == to {
		to = c.l.Nodes()[1]
	}
	if _, err := c.l.CLI(ctx, node, "vdisk", "move", guestVDisk, "--node", to, "--wait"); err != nil {
		return err
	}
	if err := errors.Join(c.mirrored(ctx), h.writing(ctx, some)); err != nil {
		return err
	}
	move, err := h.number(ctx, "/tmp/longest")
	if err != nil {
		return err
	}
	seconds := func(hundredths int) time.Duration { return time.Duration(hundredths) * 10 * time.Millisecond }
	said := fmt.Sprintf("%s %v (taken over after %v), moved %v", name, seconds(longest), took.Round(10*time.Millisecond), seconds(move))
	h.faults = append(h.faults, said)
	c.e.say("%s: %s", node, said)
	return nil
}

// check ends the load, compares what is stored with what was synced, and begins anew. It
// returns how many files were synced.
func (h *guestHost) check(ctx context.Context) (int, error) {
	out, err := h.output(ctx, `
touch /tmp/stop
for i in $(seq 1500); do [ -e /tmp/writer.ended ] && [ -e /tmp/verifier.ended ] && break; usleep 200000; done
[ -e /tmp/writer.ended ] && [ -e /tmp/verifier.ended ] || { echo "the load does not end"; exit 1; }
[ ! -e /tmp/failed ] || { cat /tmp/writer.err /tmp/fio.log; exit 1; }
! dmesg | grep -E "EXT4-fs error|Buffer I/O error on dev(ice)? dm|I/O error, dev dm|JBD2.*[Ee]rror|Aborting journal" || exit 1
map=/dev/mapper/$(cat /tmp/map)
umount /mnt || exit 1
e2fsck -fn $map >/tmp/e2fsck 2>&1 || { cat /tmp/e2fsck; exit 1; }
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 $map /mnt || exit 1
synced=$(cat /tmp/synced) bad=0
i=$((synced > `+strconv.Itoa(guestFiles)+` ? synced - `+strconv.Itoa(guestFiles-1)+` : 1))
while [ $i -le $synced ]; do
	printf '%04095d\n' $i | cmp -s - /mnt/f$((i % `+strconv.Itoa(guestFiles)+`)) || { echo "file $((i % `+strconv.Itoa(guestFiles)+`)) does not hold $i but $(tail -c 20 /mnt/f$((i % `+strconv.Itoa(guestFiles)+`)))"; bad=1; }
	i=$((i + 1))
done
[ -s /tmp/passes ] || { echo "nothing was verified under load"; bad=1; }
[ $bad = 0 ] || exit 1
echo "$synced $(wc -l </tmp/passes)"
rm -f /tmp/stop /tmp/writer.ended /tmp/verifier.ended
sh /tmp/writer >/dev/null 2>&1 &
sh /tmp/verifier >/dev/null 2>&1 &
`)
	if err != nil {
		return 0, err
	}
	var synced, passes int
	if _, err := fmt.Sscan(out, &synced, &passes); err != nil {
		return 0, fmt.Errorf("the guest says %q: %w", out, err)
	}
	return synced, nil
}
