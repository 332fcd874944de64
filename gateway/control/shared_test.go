package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	hostA = "iqn.2026-01.com.example:a"
	hostB = "iqn.2026-01.com.example:b"
)

// shown returns what the front end has of a target: LUNs, and the LUNs and CHAP
// name of each group.
func (b *bench) shown(iqn string) string {
	b.t.Helper()
	i, err := b.front.Target(iqn)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, l := range i.LUNs {
		out = append(out, fmt.Sprint(l.Number))
	}
	for _, g := range i.Groups {
		out = append(out, fmt.Sprintf("%s%v", g.Name, g.LUNs))
	}
	return strings.Join(out, " ")
}

// TestSharedAway: a LUN of a shared target whose backend is away keeps its place,
// groups see of it what they saw, and it comes back by itself.
func TestSharedAway(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	b.disk("one")
	ctx := t.Context()
	target, err := b.CreateTarget(ctx, "cluster", "", "")
	if err != nil {
		t.Fatal(err)
	}
	lun := uint16(3)
	if _, err := b.Publish(ctx, "one", PublishOptions{Target: "cluster", LUN: &lun}); err != nil {
		t.Fatal(err)
	}
	maps := []model.LUNMap{{LUN: 3, Number: 0}}
	for name, in := range map[string]GroupChange{"mapped": {Initiators: &[]string{hostA}, LUNs: &maps}, "reads": {Initiators: &[]string{hostB}, ReadOnly: new(true)}} {
		if _, err := b.CreateGroup(ctx, "cluster", name, in); err != nil {
			t.Fatal(err)
		}
	}
	with := b.shown(target.IQN)
	if !strings.HasPrefix(with, "3 ") || !strings.Contains(with, "mapped[{0 3 false}]") || !strings.Contains(with, "reads[{3 3 true}]") {
		t.Errorf("shown: %s", with)
	}
	b.stop()
	p.away.Store(true)
	b = newBench(t, dir, p)
	if got := b.shown(target.IQN); got != with {
		t.Errorf("without the backend: %s, want %s", got, with)
	}
	// What may change meanwhile lasts too.
	if _, err := b.UpdateGroup(ctx, "cluster", "mapped", GroupChange{ReadOnly: new(true)}); err != nil {
		t.Fatal(err)
	}
	p.away.Store(false)
	d, _ := b.FindVDisk("one")
	b.until("served", func() bool { return b.DiskStatus(d).State == volume.StateRunning })
	if got := b.shown(target.IQN); !strings.Contains(got, "mapped[{0 3 true}]") {
		t.Errorf("with the backend back: %s", got)
	}
}

// TestSharedClosed: a shared target that changes in the moment in which one of its vDisks was
// closed to be handed over, and is not taken out yet, keeps that one's place.
func TestSharedClosed(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	v := b.disk("one")
	ctx := t.Context()
	target, err := b.CreateTarget(ctx, "cluster", "", "")
	if err != nil {
		t.Fatal(err)
	}
	lun := uint16(3)
	if _, err := b.Publish(ctx, "one", PublishOptions{Target: "cluster", LUN: &lun}); err != nil {
		t.Fatal(err)
	}
	d := b.vdisk(v.ID)
	if err := d.lock.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	defer d.lock.release()
	set := func(vol Volume, front *disk, state volume.State) {
		b.mu.Lock()
		d.vol, d.disk, d.state = vol, front, state
		b.mu.Unlock()
	}
	vol, front, state := d.vol, d.disk, d.state
	set(nil, nil, volume.StateClosed)
	defer set(vol, front, state)
	if _, again := b.visitTarget(ctx, target.ID); again {
		t.Error("the target is not as it was changed")
	}
	if got := b.shown(target.IQN); !strings.HasPrefix(got, "3") {
		t.Errorf("shown: %q", got)
	}
}

// TestRefusedByFrontEnd: a change that the front end does not take is taken back
// in the record (C1).
func TestRefusedByFrontEnd(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	b.disk("one")
	b.disk("two")
	ctx := t.Context()
	own, err := b.Publish(ctx, "one", PublishOptions{Initiators: []string{hostA}})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := b.CreateTarget(ctx, "cluster", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, iqn := range []string{own.Target.IQN, shared.IQN} {
		// The front end forgets the target, so that it refuses the update.
		if err := b.front.Server.RemoveTarget(iqn, true); err != nil {
			t.Fatal(err)
		}
		before, _ := b.FindTarget(iqn)
		if _, err := b.CreateGroup(ctx, iqn, "more", GroupChange{}); err == nil {
			t.Errorf("%s: a group of a target that is not there", iqn)
		}
		if _, err := b.SetPortals(ctx, iqn, []string{"10.0.0.1:3260"}, nil); err == nil {
			t.Errorf("%s: portals of a target that is not there", iqn)
		}
		after, _ := b.FindTarget(iqn)
		if len(after.Access.Groups) != len(before.Access.Groups) || len(after.Access.Portals) != 0 {
			t.Errorf("%s: groups %+v, portals %v", iqn, after.Access.Groups, after.Access.Portals)
		}
	}
	if _, err := b.Publish(ctx, "two", PublishOptions{Target: "cluster"}); err == nil {
		t.Error("published in a target that is not there")
	}
	if v, _ := b.FindVDisk("two"); v.Published() {
		t.Errorf("recorded as published: %+v", v)
	}
}

// TestSealKeyLost: with another seal.key nobody gets in by the groups that have
// secrets, whatever they are, until they have new ones; the others go on.
func TestSealKeyLost(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	b.disk("one")
	ctx := t.Context()
	conn, err := b.Publish(ctx, "one", PublishOptions{Open: new(true), Mutual: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateGroup(ctx, "one", "none", GroupChange{}); err == nil {
		t.Error("a vDisk's name is no name of a target here")
	}
	if _, err := b.CreateGroup(ctx, conn.Target.IQN, "hosts", GroupChange{Initiators: &[]string{hostA}}); err != nil {
		t.Fatal(err)
	}
	seal, err := NewSealer(slices.Repeat([]byte{1}, SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	b.opt.Sealer = seal
	wantCode(t, second(b.Publish(ctx, "one", PublishOptions{})), CodeInternal)
	spec, err := b.spec(conn.Target)
	if err != nil {
		t.Fatal(err)
	}
	if a := spec.Groups[0].Auth; a == nil || a.User != "one" || a.Secret == conn.Credentials.Secret || len(a.Secret) != secretLength {
		t.Error("the group has no secret, or the old one")
	}
	out, err := b.UpdateGroup(ctx, conn.Target.IQN, "hosts", GroupChange{Rotate: true})
	if err != nil || out.Drawn.Secret == "" {
		t.Errorf("a new secret for one group: %v", err)
	}
	again, err := b.Publish(ctx, "one", PublishOptions{Rotate: true})
	if err != nil || again.Credentials.Secret == "" || again.Credentials.MutualSecret == conn.Credentials.MutualSecret {
		t.Errorf("new secrets for the other: %v", err)
	}
}

// TestQuoting: a secret that somebody chose survives shell, PowerShell and URL.
func TestQuoting(t *testing.T) {
	c := makeCommands("iqn.x:y", 3, []iscsi.Portal{{Address: "10.0.0.5:3260"}}, Credentials{User: "u", Secret: `it's $HOME %`, MutualUser: "t", MutualSecret: "plain-secret-1"})
	for text, want := range map[string]string{
		c.Libiscsi: "iscsi://u%it%27s%20%24HOME%20%25@10.0.0.5:3260/iqn.x:y/3?target_user=t&target_password=plain-secret-1",
		c.Iscsiadm: `-n node.session.auth.password -v 'it'\''s $HOME %'` + "\n",
		c.ESXi:     `--direction=mutual --level=required --authname=t --secret=plain-secret-1`,
		c.Windows:  `-AuthenticationType MUTUALCHAP -ChapUsername u -ChapSecret 'it''s $HOME %'`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\nlacks %s", text, want)
		}
	}
	if c := makeCommands("iqn.x:y", 0, []iscsi.Portal{{Address: "10.0.0.5:3260"}}, Credentials{}); strings.Contains(c.Iscsiadm+c.ESXi+c.Windows, "auth") || c.Libiscsi != "iscsi://10.0.0.5:3260/iqn.x:y/0" {
		t.Errorf("without CHAP: %+v", c)
	}
}
