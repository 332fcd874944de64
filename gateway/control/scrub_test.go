package control

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestJobs: one job of an object at a time; it outlives its asker, tells how far it is,
// says why it failed, and ends with the node.
func TestJobs(t *testing.T) {
	c := New(Options{})
	list := jobs[int]{}
	step, report := make(chan struct{}), make(chan struct{})
	run := func(ctx context.Context, progress func(int)) (int, error) {
		progress(1)
		report <- struct{}{}
		select {
		case <-step:
			return 2, nil
		case <-ctx.Done():
			return 3, ctx.Err()
		}
	}
	want := func(state JobState, result int, code Code) {
		t.Helper()
		j, err := findJob(c, list, "a", "vdisk a", "start one")
		if err != nil || j.State != state || j.Result != result || (j.Err == nil) != (code == "") || j.Err != nil && j.Err.Code != code || j.Ended.IsZero() != (state == JobRunning) {
			t.Fatalf("%+v %v", j, err)
		}
	}
	told := task.Task{Kind: task.Scrub, Object: "vdisk a"}
	measure := func(t *task.Task, r int) { t.Done = int64(r) }
	tell := func(want task.State, done int64, message string) task.Task {
		t.Helper()
		var found []task.Task
		for _, x := range c.opt.Tasks.List() {
			if x.State == want {
				found = append(found, x)
			}
		}
		if len(found) != 1 || found[0].Done != done || (found[0].Error == "") != (message == "") || !strings.Contains(found[0].Error, message) {
			t.Fatalf("%s: %+v", want, c.opt.Tasks.List())
		}
		return found[0]
	}
	var e *Error
	if _, err := findJob(c, list, "a", "vdisk a", "start one"); !errors.As(err, &e) || e.Code != CodeNotFound || e.Hint == "" {
		t.Fatalf("%v", err)
	}
	if j, e := startJob(c, list, "a", Job[int]{Object: "a"}, told, measure, run); e != nil || j.State != JobRunning {
		t.Fatalf("%+v %v", j, e)
	}
	<-report
	want(JobRunning, 1, "")
	tell(task.Running, 1, "")
	if _, e := startJob(c, list, "a", Job[int]{}, told, measure, run); e == nil || e.Code != CodeInUse {
		t.Fatalf("two at a time: %v", e)
	}
	close(step)
	c.wg.Wait()
	want(JobDone, 2, "")
	tell(task.Done, 2, "")
	if _, e := startJob(c, list, "a", Job[int]{}, told, measure, func(context.Context, func(int)) (int, error) {
		return 0, volume.ErrBackend
	}); e != nil {
		t.Fatal(e)
	}
	c.wg.Wait()
	want(JobFailed, 0, CodeBackend)
	tell(task.Failed, 0, volume.ErrBackend.Error())
	step = make(chan struct{})
	if _, e := startJob(c, list, "a", Job[int]{}, told, measure, run); e != nil {
		t.Fatal(e)
	}
	<-report
	if err := c.CancelTask(t.Context(), tell(task.Running, 1, "")); err != nil {
		t.Fatal(err)
	}
	c.wg.Wait()
	want(JobCancelled, 3, "")
	if err := c.CancelTask(t.Context(), tell(task.Cancelled, 3, "")); !errors.As(err, &e) || e.Code != CodeInUse {
		t.Fatalf("what has ended: %v", err)
	}
	step = make(chan struct{})
	if _, e := startJob(c, list, "a", Job[int]{}, told, measure, run); e != nil {
		t.Fatal(e)
	}
	<-report
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(JobFailed, 3, CodeStopping)
	if _, e := startJob(c, list, "a", Job[int]{}, told, measure, run); e == nil || e.Code != CodeStopping {
		t.Fatalf("while the node stops: %v", e)
	}
}
