package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Report is what Probe found, step by step.
type Report struct {
	OK    bool // all steps
	Steps []Step
}

// Step is one operation.
type Step struct {
	Step     string // what was tried, in words
	OK       bool
	Detail   string // what went wrong, or what is worth knowing; may be empty
	Duration time.Duration
}

// probeBytes is the size of the object that Probe puts; probeClean bounds its removal.
const (
	probeBytes = 256 << 10
	probeClean = 30 * time.Second
)

// Probe tries every operation of a store on one object whose name begins with prefix,
// which must be below a name of its own, and removes that in the end, if ctx ended or
// not. c measures; nil: the machine's clock. Steps that need what an earlier one did
// not bring about fail with it.
func Probe(ctx context.Context, s backend.Store, prefix string, c clock.Clock) Report {
	if c == nil {
		c = clock.Real{}
	}
	p := &probe{Store: s, name: prefix + "object", data: make([]byte, probeBytes)}
	for i := range p.data {
		p.data[i] = byte(i>>8) ^ byte(i*7)
	}
	r := Report{OK: true}
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"put", p.put},
		{"put the same again", p.put},
		{"stat", p.stat},
		{"get", p.get},
		{"read a range", p.read},
		{"read beyond the end", p.beyond},
		{"list", p.list},
		{"put if absent, on what is there", p.ifThere},
		{"put if absent, on what is not", p.ifAbsent},
		{"delete", p.delete},
		{"delete again", p.delete},
		{"absent afterwards", p.absent},
		{"clean up", p.clean},
	} {
		start := c.Now()
		detail, err := step.run(ctx)
		if err != nil {
			detail, r.OK = err.Error(), false
		}
		r.Steps = append(r.Steps, Step{Step: step.name, OK: err == nil, Detail: detail, Duration: c.Now().Sub(start)})
	}
	return r
}

// probe is one Probe.
type probe struct {
	backend.Store
	name string
	data []byte
}

// other is the object of the conditional puts.
func (p *probe) other() string { return p.name + "-2" }

func (p *probe) put(ctx context.Context) (string, error) {
	return "", p.Put(ctx, p.name, p.data)
}

func (p *probe) stat(ctx context.Context) (string, error) {
	info, err := p.Stat(ctx, p.name)
	if err == nil && info.Size != probeBytes {
		err = fmt.Errorf("the store says %d bytes of an object of %d", info.Size, probeBytes)
	}
	return "", err
}

func (p *probe) get(ctx context.Context) (string, error) { return "", p.same(ctx, p.name) }

// same compares an object with what was put.
func (p *probe) same(ctx context.Context, name string) error {
	got, err := p.Get(ctx, name, probeBytes)
	if err == nil && !bytes.Equal(got, p.data) {
		err = fmt.Errorf("%d bytes came that are not the %d put", len(got), probeBytes)
	}
	return err
}

func (p *probe) read(ctx context.Context) (string, error) {
	const off, n = probeBytes/2 - 100, 4096
	buf := make([]byte, n)
	err := p.ReadAt(ctx, p.name, buf, off)
	if err == nil && !bytes.Equal(buf, p.data[off:off+n]) {
		err = errors.New("other bytes came than are there")
	}
	return "", err
}

func (p *probe) beyond(ctx context.Context) (string, error) {
	return "", mustBe(p.ReadAt(ctx, p.name, make([]byte, 4096), probeBytes-100), backend.ErrRange)
}

// mustBe tells what came instead of the error that is right.
func mustBe(err, want error) error {
	switch {
	case err == nil:
		return fmt.Errorf("it succeeded; right is: %w", want)
	case !errors.Is(err, want):
		return err
	}
	return nil
}

func (p *probe) list(ctx context.Context) (string, error) {
	infos, err := p.List(ctx, p.name, "", 2)
	if err != nil {
		return "", err
	}
	for _, info := range infos {
		switch {
		case info.Name != p.name:
		case info.Size != probeBytes:
			return "", fmt.Errorf("listed with %d bytes, it has %d", info.Size, probeBytes)
		default:
			return "", nil
		}
	}
	if !p.Features().ConsistentList {
		return "not listed yet; this store's lists may lag", nil
	}
	return "", errors.New("not listed")
}

func (p *probe) ifThere(ctx context.Context) (string, error) {
	err := p.PutIfAbsent(ctx, p.name, []byte("replaced"))
	if errors.Is(err, backend.ErrUnsupported) && !p.Features().ConditionalPut {
		return "this store cannot; vPools do without", nil
	}
	if err := mustBe(err, backend.ErrExists); err != nil {
		return "", err
	}
	return "", p.same(ctx, p.name)
}

func (p *probe) ifAbsent(ctx context.Context) (string, error) {
	err := p.PutIfAbsent(ctx, p.other(), p.data)
	if errors.Is(err, backend.ErrUnsupported) && !p.Features().ConditionalPut {
		return "this store cannot; vPools do without", nil
	}
	if err != nil {
		return "", err
	}
	return "", p.same(ctx, p.other())
}

func (p *probe) delete(ctx context.Context) (string, error) { return "", p.Delete(ctx, p.name) }

func (p *probe) absent(ctx context.Context) (string, error) {
	_, err := p.Stat(ctx, p.name)
	if err := mustBe(err, backend.ErrNotExist); err != nil {
		return "", err
	}
	_, err = p.Get(ctx, p.name, probeBytes)
	return "", mustBe(err, backend.ErrNotExist)
}

// clean removes both objects, whatever became of the steps.
func (p *probe) clean(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeClean)
	defer cancel()
	return "", errors.Join(p.Delete(ctx, p.name), p.Delete(ctx, p.other()))
}
