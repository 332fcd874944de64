package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// mostNodes keeps the addresses of the roles apart.
	mostNodes = 9
	// hosts is where hosts are.
	hosts = "client"
	// s3 is the object store.
	s3 = "s3"
	// nowhere is a hardware address that nobody has: what is sent there is lost without a
	// word, as on a cable that was pulled.
	nowhere = "02:00:00:00:00:00"
)

// endPatience bounds how long killed processes may take to be gone.
const endPatience = 10 * time.Second

// prefix of the namespaces of a directory (N1).
func prefix(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "ovg" + hex.EncodeToString(sum[:4])
}

// Namespace is the name of the network namespace of a place.
func (l *Lab) Namespace(place string) string { return prefix(l.dir) + "-" + place }

// Places are all of them, the client first.
func (l *Lab) Places() []string {
	out := []string{hosts}
	out = append(out, l.Machines()...)
	out = append(out, l.Members()...)
	if l.o.Alba {
		return out
	}
	return append(out, s3)
}

// Nodes returns the names of the nodes: n1, n2, ...
func (l *Lab) Nodes() []string { return names("n", l.o.Nodes) }

// Storage returns the names of the storage machines: storage1, ...
func (l *Lab) Storage() []string { return names("storage", l.o.Storage) }

// Machines are the nodes and the storage machines.
func (l *Lab) Machines() []string { return append(l.Nodes(), l.Storage()...) }

// Members returns the names of the members of etcd: etcd1, ...
func (l *Lab) Members() []string { return names("etcd", l.o.Members) }

func names(kind string, count int) (out []string) {
	for i := range count {
		out = append(out, kind+strconv.Itoa(i+1))
	}
	return out
}

// Address of a place; empty: there is no such place.
func Address(place string) string {
	kind := strings.TrimRight(place, "0123456789")
	n, err := strconv.Atoi(place[len(kind):])
	switch {
	case place == hosts:
		return "10.213.0.1"
	case place == s3:
		return "10.213.0.201"
	case err != nil:
		return ""
	case kind == "etcd":
		n += 90
	case kind == "storage":
		n += 50
	}
	return fmt.Sprintf("10.213.0.%d", 10+n)
}

// device that leads to the others.
func device(place string) string {
	if place == hosts {
		return "br0"
	}
	return "eth0"
}

// ip runs commands of iproute2, one a line, in the namespace of a place; empty: in this one.
func (l *Lab) ip(ctx context.Context, place string, lines ...string) error {
	args := []string{"-batch", "-"}
	if place != "" {
		args = append([]string{"-n", l.Namespace(place)}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s (%s): %w: %s", strings.Join(args, " "), strings.Join(lines, "; "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// makeNetwork makes namespaces and links.
func (l *Lab) makeNetwork(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("the program ip is missing: install iproute2, or run scripts/setup.sh")
	}
	var add, link, bridge []string
	for _, p := range l.Places() {
		add = append(add, "netns add "+l.Namespace(p))
	}
	bridge = append(bridge, "link set lo up", "link add br0 type bridge", "addr add "+Address(hosts)+"/24 dev br0")
	for _, p := range l.Places()[1:] {
		link = append(link, fmt.Sprintf("link add %s netns %s type veth peer name eth0 netns %s", p, l.Namespace(hosts), l.Namespace(p)))
		bridge = append(bridge, "link set "+p+" master br0", "link set "+p+" up")
	}
	if err := l.ip(ctx, "", append(add, link...)...); err != nil {
		return err
	}
	if err := l.ip(ctx, hosts, append(bridge, "link set br0 up")...); err != nil {
		return err
	}
	for _, p := range l.Places()[1:] {
		if err := l.ip(ctx, p, "link set lo up", "addr add "+Address(p)+"/24 dev eth0", "link set eth0 up"); err != nil {
			return err
		}
	}
	return nil
}

// namespaces returns those of the directory that there are, also of a lab that another
// process made, and that a crash left.
func (l *Lab) namespaces() ([]string, error) {
	found, err := filepath.Glob("/run/netns/" + prefix(l.dir) + "-*")
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found, err
}

// removeNetwork ends the processes of the namespaces, but for this one, and removes these (N2).
func (l *Lab) removeNetwork(ctx context.Context) error {
	found, err := l.namespaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range found {
		if err := endAll(ctx, ns); err != nil {
			errs = append(errs, err)
		}
		if out, err := exec.CommandContext(ctx, "ip", "netns", "delete", ns).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("ip netns delete %s: %w: %s", ns, err, out))
		}
	}
	return errors.Join(errs...)
}

// endAll kills the processes of a namespace until there are none.
func endAll(ctx context.Context, ns string) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, "ip", "netns", "pids", ns).Output()
		if err != nil {
			return fmt.Errorf("ip netns pids %s: %w", ns, err)
		}
		left := 0
		for _, f := range strings.Fields(string(out)) {
			pid, err := strconv.Atoi(f)
			if err != nil || pid == os.Getpid() {
				continue
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes in %s do not end", left, ns)
		case <-time.After(pollInterval):
		}
	}
}

// Cut makes two places lose each other.
func (l *Lab) Cut(ctx context.Context, a, b string) error {
	return l.change(ctx, a, b, func(k *Link) { k.Cut = true })
}

// Delay holds what two places send each other back by so many milliseconds each way.
func (l *Lab) Delay(ctx context.Context, a, b string, ms int) error {
	if ms < 0 || ms > 10_000 {
		return fmt.Errorf("a delay of %d ms: use 0 to 10000", ms)
	}
	return l.change(ctx, a, b, func(k *Link) { k.DelayMs = ms })
}

// Loss loses so many percent of the packets that a place sends and gets.
func (l *Lab) Loss(ctx context.Context, place string, percent float64) error {
	if !(percent >= 0 && percent <= 100) {
		return fmt.Errorf("a loss of %v percent: use 0 to 100", percent)
	}
	return l.change(ctx, place, "all", func(k *Link) { k.Loss = percent })
}

// Heal makes all links whole.
func (l *Lab) Heal(ctx context.Context) error { return l.apply(ctx, nil) }

// Link is what is wrong with the link between two places.
type Link struct {
	A, B    string
	Cut     bool    `json:",omitempty"`
	DelayMs int     `json:",omitempty"` // each way
	Loss    float64 `json:",omitempty"` // percent of the packets
}

// String says it in words.
func (k Link) String() string {
	if k.Cut {
		return "cut"
	}
	return fmt.Sprintf("%d ms each way, %v %% lost", k.DelayMs, k.Loss)
}

func (k Link) whole() bool { return !k.Cut && k.DelayMs == 0 && k.Loss == 0 }

// same tells whether two are about one link.
func (k Link) same(o Link) bool { return k.A == o.A && k.B == o.B || k.A == o.B && k.B == o.A }

// resolve returns the places that a word stands for: one, all members of etcd, all nodes, all
// storage machines, or all.
func (l *Lab) resolve(word string) ([]string, error) {
	switch {
	case word == "all":
		return l.Places(), nil
	case word == "etcd":
		return l.Members(), nil
	case word == "nodes":
		return l.Nodes(), nil
	case word == "storage":
		return l.Storage(), nil
	case slices.Contains(l.Places(), word):
		return []string{word}, nil
	}
	return nil, fmt.Errorf("there is no %q: use %s, or etcd, nodes, storage, all", word, strings.Join(l.Places(), ", "))
}

// change changes the links between two words' places.
func (l *Lab) change(ctx context.Context, a, b string, f func(*Link)) error {
	as, err := l.resolve(a)
	if err != nil {
		return err
	}
	bs, err := l.resolve(b)
	if err != nil {
		return err
	}
	links, err := l.Links()
	if err != nil {
		return err
	}
	changed := 0
	for _, a := range as {
		for _, b := range bs {
			if a == b {
				continue
			}
			i := slices.IndexFunc(links, Link{A: a, B: b}.same)
			if i < 0 {
				i = len(links)
				links = append(links, Link{A: a, B: b})
			}
			f(&links[i])
			changed++
		}
	}
	if changed == 0 {
		return fmt.Errorf("between %s and %s there is no link", a, b)
	}
	return l.apply(ctx, slices.DeleteFunc(links, Link.whole))
}

// Links returns those that are not whole.
func (l *Lab) Links() ([]Link, error) {
	var out []Link
	err := readJSON(filepath.Join(l.dir, linksFile), &out)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return out, err
}

// apply makes the links what is said; those that are not named are whole. What is cut is cut
// before anything else changes.
func (l *Lab) apply(ctx context.Context, links []Link) error {
	was, err := l.Links()
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(l.dir, linksFile), links); err != nil {
		return err
	}
	steps := map[string][]string{}
	for _, k := range links {
		if k.Cut {
			steps[k.A] = append(steps[k.A], fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", Address(k.B), nowhere, device(k.A)))
			steps[k.B] = append(steps[k.B], fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", Address(k.A), nowhere, device(k.B)))
		}
	}
	for _, k := range was {
		if k.Cut && !slices.ContainsFunc(links, func(o Link) bool { return o.Cut && o.same(k) }) {
			steps[k.A] = append(steps[k.A], fmt.Sprintf("neigh del %s dev %s", Address(k.B), device(k.A)))
			steps[k.B] = append(steps[k.B], fmt.Sprintf("neigh del %s dev %s", Address(k.A), device(k.B)))
		}
	}
	for place, lines := range steps {
		if err := l.ip(ctx, place, lines...); err != nil {
			return err
		}
	}
	return l.wires(ctx, was, links)
}
