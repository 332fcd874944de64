package task

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

func find(t *testing.T, b *Book, id string) Task {
	t.Helper()
	for _, x := range b.List() {
		if x.ID == id {
			return x
		}
	}
	t.Fatalf("there is no task %s in %+v", id, b.List())
	return Task{}
}

// TestBook: a task is shown as it is, ends once, and can be cancelled while it has not ended.
func TestBook(t *testing.T) {
	now := clock.NewManual(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	b := New(now)
	done, cancelled := int64(0), false
	e := b.Begin(Task{Kind: Move, Object: "vdisk a", Unit: "bytes"}, func(x *Task) { x.Done = done }, func(context.Context) error {
		cancelled = true
		return nil
	})
	id := b.List()[0].ID
	done = 7
	if x := find(t, b, id); x.State != Running || x.Done != 7 || !x.Cancels || !x.Started.Equal(now.Now()) {
		t.Errorf("begun: %+v", x)
	}
	e.Set(func(x *Task) { x.State, x.Error = Waiting, "away" })
	if x := find(t, b, id); x.State != Waiting || x.Error != "away" {
		t.Errorf("waiting: %+v", x)
	}
	cancel := func(id string) bool {
		ok, err := b.Cancel(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	if !cancel(id) || !cancelled || cancel("move-none") {
		t.Error("cancel does not reach the task that is named")
	}
	done = 9
	now.Advance(time.Minute)
	e.End(Cancelled, "", "")
	e.End(Failed, "late", "")
	if x := find(t, b, id); len(b.List()) != 1 || x.State != Cancelled || x.Done != 9 || x.Error != "" || x.Cancels || x.Ended.Sub(x.Started) != time.Minute {
		t.Errorf("ended: %+v", b.List())
	}
	if cancel(id) {
		t.Error("a task that ended was cancelled")
	}
	b.Begin(Task{Kind: Move}, nil, nil).Drop()
	if len(b.List()) != 1 {
		t.Errorf("dropped: %+v", b.List())
	}
	still := b.Begin(Task{Kind: Scrub}, nil, nil)
	b.Clear()
	if l := b.List(); len(l) != 1 || l[0].Kind != Scrub || l[0].Cancels {
		t.Errorf("cleared: %+v", l)
	}
	still.End(Done, "", "")
	var none *Entry
	none.Set(nil)
	none.End(Done, "", "")
	none.Drop()
}

// TestBookBounds: of a kind the newest are kept, whatever ends of another.
func TestBookBounds(t *testing.T) {
	b := New(clock.NewManual(time.Unix(1e9, 0)))
	b.Begin(Task{ID: "move-1", Kind: Move}, nil, nil).End(Failed, "why", "do")
	for i := range 3 * keepKind {
		b.Begin(Task{ID: fmt.Sprintf("schedule-%d", i), Kind: Schedule}, nil, nil).End(Done, "", "")
	}
	if x := find(t, b, "move-1"); x.Error != "why" || x.Hint != "do" {
		t.Errorf("%+v", x)
	}
	find(t, b, fmt.Sprintf("schedule-%d", 3*keepKind-1))
	if n := len(b.List()); n != 1+keepKind {
		t.Errorf("%d tasks are kept", n)
	}
}
