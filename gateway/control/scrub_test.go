package control

import (
	"context"
	"errors"
	"testing"

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
	var e *Error
	if _, err := findJob(c, list, "a", "vdisk a", "start one"); !errors.As(err, &e) || e.Code != CodeNotFound || e.Hint == "" {
		t.Fatalf("%v", err)
	}
	if j, e := startJob(c, list, "a", "vdisk a", Job[int]{Object: "a"}, run); e != nil || j.State != JobRunning {
		t.Fatalf("%+v %v", j, e)
	}
	<-report
	want(JobRunning, 1, "")
	if _, e := startJob(c, list, "a", "vdisk a", Job[int]{}, run); e == nil || e.Code != CodeInUse {
		t.Fatalf("two at a time: %v", e)
	}
	close(step)
	c.wg.Wait()
	want(JobDone, 2, "")
	if _, e := startJob(c, list, "a", "vdisk a", Job[int]{}, func(context.Context, func(int)) (int, error) {
		return 0, volume.ErrBackend
	}); e != nil {
		t.Fatal(e)
	}
	c.wg.Wait()
	want(JobFailed, 0, CodeBackend)
	step = make(chan struct{})
	if _, e := startJob(c, list, "a", "vdisk a", Job[int]{}, run); e != nil {
		t.Fatal(e)
	}
	<-report
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(JobFailed, 3, CodeStopping)
	if _, e := startJob(c, list, "a", "vdisk a", Job[int]{}, run); e == nil || e.Code != CodeStopping {
		t.Fatalf("while the node stops: %v", e)
	}
}
