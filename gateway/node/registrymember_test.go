package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// ringed are nodes that run the registry themselves.
type ringed struct {
	t     *testing.T
	dirs  []string
	confs []string
	nodes []*running
}

// conf writes the configuration of a node; member: it runs a member.
func (c *ringed) conf(i int, member bool) {
	c.t.Helper()
	text := fmt.Sprintf("node_name: n%d\ncluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n", i+1)
	if member {
		var at [2]string
		for j := range at {
			var err error
			if at[j], err = freeport.Address(); err != nil {
				c.t.Fatal(err)
			}
		}
		text += fmt.Sprintf("registry: {member: {listen: %q, peers: %q}}\n", at[0], at[1])
	}
	write(c.t, c.confs[i], text)
}

func (c *ringed) place() int {
	c.dirs = append(c.dirs, filepath.Join(c.t.TempDir(), "node"))
	c.confs = append(c.confs, filepath.Join(c.t.TempDir(), "ovgate.yaml"))
	c.nodes = append(c.nodes, nil)
	return len(c.dirs) - 1
}

func (c *ringed) options(i int) Options {
	return Options{Data: c.dirs[i], Config: c.confs[i], askRegistry: patience / 500}
}

func (c *ringed) start(i int) *running {
	c.t.Helper()
	c.nodes[i] = start(c.t, c.options(i))
	return c.nodes[i]
}

func (c *ringed) stop(i int) {
	c.t.Helper()
	if err := c.nodes[i].stop(); err != nil {
		c.t.Fatal(err)
	}
}

// join makes one node more.
func (c *ringed) join(by int, member bool) int {
	c.t.Helper()
	i := c.place()
	c.conf(i, member)
	token := c.nodes[by].call("POST", "/cluster/tokens", nil, 201)["token"].(string)
	if _, err := Join(c.t.Context(), JoinOptions{Data: c.dirs[i], Config: c.confs[i], Token: token}); err != nil {
		c.t.Fatal(err)
	}
	c.start(i)
	return i
}

type seenMember struct{ URL, Node, State string }

// members are what a node says of the registry.
func (r *running) members() (kind string, out []seenMember) {
	r.t.Helper()
	status, b, err := r.ask("GET", "/cluster", nil)
	if err != nil || status != 200 {
		return "", nil
	}
	var c struct {
		Registry        string
		RegistryMembers []seenMember
	}
	if err := json.Unmarshal(b, &c); err != nil {
		r.t.Fatal(err)
	}
	return c.Registry, c.RegistryMembers
}

// has waits until a node sees these members, all up.
func (r *running) has(names ...string) {
	r.t.Helper()
	r.until("members "+strings.Join(names, " "), func() bool {
		kind, all := r.members()
		var up []string
		for _, m := range all {
			if m.State == "up" {
				up = append(up, m.Node)
			}
		}
		slices.Sort(up)
		return kind == "nodes" && len(all) == len(names) && slices.Equal(up, names)
	})
}

// newRinged makes a cluster of nodes each of which runs a member, from one that had its
// registry in its data directory.
func newRinged(t *testing.T, count int) *ringed {
	t.Helper()
	c := &ringed{t: t}
	c.place()
	write(t, c.confs[0], "node_name: n1\n")
	plain := c.start(0)
	plain.call("POST", "/vpools", map[string]any{"name": "before", "backend": map[string]any{"kind": "local", "path": t.TempDir()}}, 201)
	c.stop(0)
	c.conf(0, true)
	one := c.start(0)
	if s := one.poolState("before"); s == "" {
		t.Fatal("what was there before is not there")
	}
	one.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	c.stop(0)
	one = c.start(0) // from the member alone
	one.has("n1")
	for i := 1; i < count; i++ {
		c.join(0, true)
		var names []string
		for j := range i + 1 {
			names = append(names, fmt.Sprintf("n%d", j+1))
		}
		one.has(names...)
		c.nodes[i].has(names...)
	}
	return c
}

// label changes the registry through a node.
func (r *running) label(text string) {
	r.t.Helper()
	r.until("a change", func() bool {
		status, _, err := r.ask("POST", "/users", map[string]any{"name": text, "password": "correct horse " + text, "role": "read"})
		return err == nil && (status == 201 || status == 409)
	})
}

// TestOwnRegistry: a node's registry moves into a member that it runs, others join and become
// members; any of them may be gone, come back, lose its disk, stop being a member or leave.
func TestOwnRegistry(t *testing.T) {
	t.Parallel()
	c := newRinged(t, 3)
	// The first one, which was the cluster's only member, is gone.
	c.stop(0)
	c.nodes[1].label("d1")
	c.nodes[2].until("d1", func() bool { return c.nodes[2].knows("d1") })
	one := c.start(0)
	one.until("d1", func() bool { return one.knows("d1") })
	one.has("n1", "n2", "n3")

	// Its disk is lost: a member without data is another one.
	c.stop(1)
	if err := os.RemoveAll(filepath.Join(c.dirs[1], etcdDir)); err != nil {
		t.Fatal(err)
	}
	two := c.start(1)
	two.has("n1", "n2", "n3")

	// A fourth node reads it without a member, and outlives the first three's restart.
	four := c.nodes[c.join(2, false)]
	four.has("n1", "n2", "n3")
	four.label("d2")
	p, err := (&dataDir{path: c.dirs[3]}).place()
	if err != nil || !p.Own || p.Format != 2 || len(p.Members) != 3 {
		t.Errorf("place %+v, %v", p, err)
	}

	// One gives up its member, by configuration.
	c.stop(2)
	c.conf(2, false)
	three := c.start(2)
	one.has("n1", "n2")
	three.has("n1", "n2")

	// Of two members none can be spared while the other one is away.
	one.call("DELETE", "/vpools/before", nil, 204)
	// Without the other one there is no quorum, and so no answer of the registry.
	c.stop(1)
	if status, b, err := one.ask("POST", "/cluster/leave", nil); err == nil && (status == 204 || !strings.Contains(string(b), "registry")) {
		t.Errorf("the last member that answers leaves: %d %s", status, b)
	}
	two = c.start(1)
	two.has("n1", "n2")
	two.call("POST", "/cluster/leave", nil, 204)
	if err := <-two.endedSoon(); err != nil {
		t.Error(err)
	}
	one.has("n1")
	if e := one.call("POST", "/cluster/leave", nil, 409); !strings.Contains(e["hint"].(string), "another node run one") {
		t.Errorf("the only member leaves: %v", e)
	}
	// As it was, it does not come back.
	if !etcd.Has(filepath.Join(c.dirs[1], etcdDir)) {
		t.Error("the data of the node that left are gone")
	}
}

func (r *running) knows(name string) bool {
	r.t.Helper()
	status, b, err := r.ask("GET", "/users", nil)
	return err == nil && status == 200 && strings.Contains(string(b), `"`+name+`"`)
}

// TestRegistryRecover: of three members two are lost for good. Nothing answers then; by word of
// the administrator one goes on alone, and the others become members anew.
func TestRegistryRecover(t *testing.T) {
	if testing.Short() {
		t.Skip("members of etcd take a minute with the race detector; TestOwnRegistry has them, too")
	}
	t.Parallel()
	c := newRinged(t, 3)
	c.nodes[0].label("d1")
	for i := range c.nodes {
		c.stop(i)
	}
	if _, err := RecoverRegistry(RecoverOptions{Data: c.dirs[0]}); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("without the configuration: %v", err)
	}
	if _, err := RecoverRegistry(RecoverOptions{Data: c.dirs[0], Config: c.confs[0], Alone: true}); err != nil {
		t.Fatal(err)
	}
	one := c.start(0)
	one.until("what there was", func() bool { return one.knows("d1") })
	one.has("n1")
	one.label("d2")
	// The last one starts as it was: the others tell it that it is a member no more.
	for i := 1; i < 3; i++ {
		if i == 2 {
			c.start(i)
			continue
		}
		if _, err := RecoverRegistry(RecoverOptions{Data: c.dirs[i], Config: c.confs[i]}); err != nil {
			t.Fatal(err)
		}
		if _, err := RecoverRegistry(RecoverOptions{Data: c.dirs[i], Config: c.confs[i]}); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("again: %v", err)
		}
		c.start(i)
	}
	one.has("n1", "n2", "n3")
	c.stop(0)
	c.nodes[2].until("d2", func() bool { return c.nodes[2].knows("d2") })
	c.nodes[1].label("d3")
}

// store reaches the registry of a node, as its process does.
func (c *ringed) store(i int) *etcd.Store {
	c.t.Helper()
	d := &dataDir{path: c.dirs[i]}
	p, err := d.place()
	if err != nil {
		c.t.Fatal(err)
	}
	tls, err := d.ownTLS()
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := etcd.Open(c.t.Context(), etcd.Options{Endpoints: p.Members, Prefix: p.Etcd, TLS: tls})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return s
}

// TestRegistryPowerCut: a node loses power between its addition to the registry's members and its
// first start as one, or in the midst of that. It becomes one when it starts; if it never does, the
// others let nothing of it keep other nodes from becoming members.
func TestRegistryPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("members of etcd take a minute with the race detector; TestOwnRegistry has them, too")
	}
	t.Parallel()
	c := newRinged(t, 1)
	one := c.nodes[0]
	s := c.store(0)
	add := func(peer string) { // refused while the newest member is not known to be well
		t.Helper()
		one.until("a learner is added", func() bool {
			list, err := s.List(t.Context())
			if err == nil && !slices.ContainsFunc(list, func(m etcd.Member) bool { return m.Peer == peer }) {
				_, err = s.Add(t.Context(), peer)
			}
			return err == nil
		})
	}
	for try, left := range []string{"", "member", "member/snap/db"} {
		i := c.place()
		c.conf(i, true)
		token := one.call("POST", "/cluster/tokens", nil, 201)["token"].(string)
		if _, err := Join(t.Context(), JoinOptions{Data: c.dirs[i], Config: c.confs[i], Token: token}); err != nil {
			t.Fatal(err)
		}
		conf, err := loadConfig(Options{Config: c.confs[i]})
		if err != nil {
			t.Fatal(err)
		}
		add(conf.Registry.Member.peer())
		if dir := filepath.Join(c.dirs[i], etcdDir, left); left == "member/snap/db" {
			if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "torn")
		} else if left != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		c.start(i)
		var names []string
		for j := range c.nodes {
			names = append(names, fmt.Sprintf("n%d", j+1))
		}
		one.has(names...)
		c.nodes[i].has(names...)
		c.nodes[i].label(fmt.Sprint("d", try))
		one.until("it is written", func() bool { return one.knows(fmt.Sprint("d", try)) })
	}
	// One that does not come back.
	gone, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	add("https://" + gone)
	i := c.join(0, true)
	one.has("n1", "n2", "n3", "n4", "n5")
	c.nodes[i].has("n1", "n2", "n3", "n4", "n5")
}

// TestTurn: one member at a time gives back what it does not use, the one that leads last, and
// none while another one is away.
func TestTurn(t *testing.T) {
	a := etcd.MemberState{Endpoint: "a", Leads: true, Size: 2 * defragmentFrom, InUse: 1}
	b := etcd.MemberState{Endpoint: "b", Size: 2 * defragmentFrom, InUse: 1}
	c := etcd.MemberState{Endpoint: "c", Size: 2 * defragmentFrom, InUse: 1}
	tidy := func(m etcd.MemberState) etcd.MemberState { m.Size = 1; return m }
	away := func(m etcd.MemberState) etcd.MemberState { m.Err = errors.New("away"); return m }
	for want, all := range map[string][][]etcd.MemberState{
		"b": {{a, b, c}, {c, b, a}, {b, c, tidy(a)}},
		"c": {{a, tidy(b), c}, {c, a, tidy(b)}},
		"a": {{a, tidy(b), tidy(c)}, {a}},
		"":  {{a, b, away(c)}, {tidy(a), tidy(b)}, nil},
	} {
		for _, m := range all {
			if got := turn(m); got != want {
				t.Errorf("%q, want %q: %+v", got, want, m)
			}
		}
	}
}
