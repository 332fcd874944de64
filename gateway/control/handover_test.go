package control

import (
	"errors"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestGive: a closed vDisk is given to another node, but not when a third one took it over
// meanwhile, as it may from a node that stood still.
func TestGive(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	rec := b.disk("a")
	ctx := t.Context()
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	node := func() string {
		v, _ := b.model.VDisk(rec.ID)
		return v.Node
	}
	if err := b.give(ctx, rec, id, "m"); !errors.Is(err, volume.ErrInUse) || node() != rec.Node {
		t.Fatalf("given while it is open: %v, node %q", err, node())
	}
	d := b.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	defer d.lock.release()
	if err := b.closeVolume(ctx, d); err != nil {
		t.Fatal(err)
	}
	is := func(node string) {
		t.Helper()
		if _, err := b.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Node = node; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.give(ctx, rec, id, "m"); !errors.Is(err, model.ErrConflict) || node() != rec.Node {
		t.Errorf("given to a node that is no member: %v, node %q", err, node())
	}
	if _, err := b.model.CreateNode(ctx, model.Node{ID: "m", Name: "m"}); err != nil {
		t.Fatal(err)
	}
	if err := b.model.MarkLeaving(ctx, "m", true); err != nil {
		t.Fatal(err)
	}
	if err := b.give(ctx, rec, id, "m"); !errors.Is(err, model.ErrConflict) || node() != rec.Node {
		t.Errorf("given to a node that is about to leave: %v, node %q", err, node())
	}
	if err := b.model.MarkLeaving(ctx, "m", false); err != nil {
		t.Fatal(err)
	}
	is("third")
	var refused *Error
	if err := b.give(ctx, rec, id, "m"); !errors.As(err, &refused) || refused.Code != CodeElsewhere || node() != "third" {
		t.Errorf("given although another node took it over: %v, node %q", err, node())
	}
	is(rec.Node)
	if err := b.give(ctx, rec, id, "m"); err != nil || node() != "m" {
		t.Errorf("given: %v, node %q", err, node())
	}
	is(rec.Node) // the bench closes it
}

// TestGone: who is to hear of nodes that are gone hears of each once, also when it comes back
// and goes again, and not of this node.
func TestGone(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	for _, id := range []string{"m", "n"} {
		if _, err := b.model.CreateNode(t.Context(), model.Node{ID: id, Name: id}); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	b.opt.Gone = func(node string) { told = append(told, node) }
	for i, look := range []struct {
		living []string
		want   []string
	}{{[]string{"m", "n"}, nil}, {[]string{"m"}, []string{"n"}}, {[]string{"m"}, nil}, {[]string{"m", "n"}, nil}, {nil, []string{"m", "n"}}} {
		living := map[string]bool{}
		for _, n := range look.living {
			living[n] = true
		}
		told = nil
		b.noteGone(living)
		slices.Sort(told)
		if !slices.Equal(told, look.want) {
			t.Errorf("look %d: told of %v, want %v", i, told, look.want)
		}
	}
}

// TestHandedOver: a vDisk that was given to another node is on its way until that one opens it,
// or somebody else has it.
func TestHandedOver(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	ctx := t.Context()
	rec := b.disk("a")
	for _, n := range []string{"m", "third"} {
		if _, err := b.model.CreateNode(ctx, model.Node{ID: n, Name: n}); err != nil {
			t.Fatal(err)
		}
	}
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	record := func() model.VDisk {
		v, _ := b.model.VDisk(rec.ID)
		return v
	}
	way := func() string {
		to, failed, ok := b.HandingOver(record())
		if failed != "" || ok != (to != "") {
			t.Errorf("on its way to %q, %q, %v", to, failed, ok)
		}
		return to
	}
	d := b.vdisk(rec.ID)
	give := func() {
		t.Helper()
		if err := d.lock.acquire(ctx); err != nil {
			t.Fatal(err)
		}
		defer d.lock.release()
		to, _ := b.model.Node("m")
		if err := b.switchNode(ctx, d, record(), to); err != nil {
			t.Fatal(err)
		}
		if got := record().Node; got != "m" || way() != "m" {
			t.Errorf("given to %q, on its way to %q", got, way())
		}
	}
	is := func(node string) {
		t.Helper()
		if _, err := b.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Node = node; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if way() != "" {
		t.Errorf("on its way to %q before", way())
	}
	give()
	is("third")
	if way() != "" {
		t.Errorf("on its way to %q, and another node's", way())
	}
	b.pass(givenEvery, "not followed any more", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return d.given == ""
	})
	is(b.opt.Node)
	b.schedule(ref{"vdisk", rec.ID}, 0)
	b.until("open here again", func() bool { return b.DiskStatus(record()).State == volume.StateRunning })
	give()
	ep, err := b.attached(rec.VPool)
	if err != nil {
		t.Fatal(err)
	}
	vol, err := ep.Open(ctx, id) // as the other node does
	if err != nil {
		t.Fatal(err)
	}
	b.pass(givenEvery, "open there", func() bool { return way() == "" })
	if err := vol.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
