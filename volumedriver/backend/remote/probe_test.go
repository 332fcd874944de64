package remote

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// broken is a store with one fault.
type broken struct {
	backend.Store
	fault string
}

var errBroken = errors.New("broken")

func (b broken) Put(ctx context.Context, name string, data []byte) error {
	if b.fault == "no puts" {
		return errBroken
	}
	return b.Store.Put(ctx, name, data)
}

func (b broken) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	switch b.fault {
	case "no conditions", "unsaid":
		return backend.ErrUnsupported
	case "always replaces":
		return b.Store.Put(ctx, name, data)
	case "says it exists":
		return errors.Join(b.Store.Put(ctx, name, data), backend.ErrExists)
	}
	return b.Store.PutIfAbsent(ctx, name, data)
}

func (b broken) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	data, err := b.Store.Get(ctx, name, limit)
	if b.fault == "damages" && len(data) > 0 {
		data[len(data)-1]++
	}
	return data, err
}

func (b broken) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if b.fault == "ignores ranges" {
		return b.Store.ReadAt(ctx, name, p, 0)
	}
	return b.Store.ReadAt(ctx, name, p, off)
}

func (b broken) Stat(ctx context.Context, name string) (backend.Info, error) {
	info, err := b.Store.Stat(ctx, name)
	if b.fault == "wrong size" {
		info.Size++
	}
	return info, err
}

func (b broken) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if b.fault == "lists nothing" || b.fault == "lists late" {
		return nil, nil
	}
	return b.Store.List(ctx, prefix, after, limit)
}

func (b broken) Delete(ctx context.Context, name string) error {
	if b.fault == "keeps" {
		return nil
	}
	return b.Store.Delete(ctx, name)
}

func (b broken) Features() backend.Features {
	f := b.Store.Features()
	f.ConditionalPut = f.ConditionalPut && b.fault != "no conditions"
	f.ConsistentList = f.ConsistentList && b.fault != "lists late"
	return f
}

// Each fault shows in the steps that are about it, and nothing is left behind.
func TestProbe(t *testing.T) {
	for fault, want := range map[string]string{
		"":                "",
		"no puts":         "put|put the same again|stat|get|read a range|read beyond the end|list|put if absent, on what is there",
		"no conditions":   "",
		"unsaid":          "put if absent, on what is there|put if absent, on what is not",
		"always replaces": "put if absent, on what is there",
		"says it exists":  "put if absent, on what is there|put if absent, on what is not",
		"damages":         "get|put if absent, on what is there|put if absent, on what is not",
		"ignores ranges":  "read a range|read beyond the end",
		"wrong size":      "stat",
		"lists nothing":   "list",
		"lists late":      "",
		"keeps":           "absent afterwards",
	} {
		t.Run(fault, func(t *testing.T) {
			s := mem(t)
			defer func() { _ = s.Close() }()
			r := Probe(t.Context(), broken{s, fault}, "probe/1/", nil)
			var bad []string
			for _, step := range r.Steps {
				if !step.OK {
					bad = append(bad, step.Step)
				}
				if step.OK == false && step.Detail == "" || step.Duration < 0 {
					t.Errorf("%+v", step)
				}
			}
			if got := strings.Join(bad, "|"); got != want || r.OK != (want == "") {
				t.Errorf("OK %v, failed\n%s, want\n%s", r.OK, got, want)
			}
			infos, err := s.List(t.Context(), "", "", 0)
			if err != nil || len(infos) > 0 && fault != "keeps" {
				t.Errorf("left behind: %v, %v", infos, err)
			}
		})
	}
}

// With a context that has ended nothing works but the cleaning.
func TestProbeCancelled(t *testing.T) {
	s := mem(t)
	defer func() { _ = s.Close() }()
	if err := s.Put(t.Context(), "probe/object", nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Probe(ctx, s, "probe/", nil)
	for i, step := range r.Steps {
		if last := i == len(r.Steps)-1; step.OK != last {
			t.Errorf("%+v", step)
		}
	}
	infos, err := s.List(t.Context(), "", "", 0)
	if err != nil || len(infos) > 0 {
		t.Errorf("left behind: %v, %v", infos, err)
	}
}
