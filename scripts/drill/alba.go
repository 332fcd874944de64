package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// albaNodes machines with albaPerNode ASDs each: a machine's worth may be
	// missing and (4,2,5,2) is still met.
	albaNodes   = 4
	albaPerNode = 2
	// albaFault is how long a fault lasts before the next.
	albaFaultMin = 1 * time.Second
	albaFaultMax = 4 * time.Second
	// albaScrub is after how many faults what was overwritten is given back.
	albaScrub = 3
	// albaPatience bounds the repair at the end.
	albaPatience = 3 * time.Minute
	// albaConfig gives ASDs up soon, and lets reads come from them.
	albaConfig = "auto_repair: 3s\ncache_bytes: 1048576\n"
)

// albaDrill is a node over ASD processes that get hurt.
type albaDrill struct {
	e       *env
	n       *node.Node
	perRack int // ASDs in a domain of failure of their own; 0: there are none
	asds    []*node.ASD
	numbers []int64 // of asds in the object store
	targets []*target
	copies  map[int]string // older copies of ASDs' directories
	counts  map[string]int
	serial  int
}

// albaKillOSDs: vDisks under a self-checking load on an object store of ASD processes. Every
// few seconds one of them is killed, stopped, restarted, wiped and replaced, set back to an
// older copy, or gets bits flipped. No command of an initiator fails, everything read is right,
// and at the end the object store is complete again by itself.
func albaKillOSDs(ctx context.Context, e *env) (_ string, err error) {
	d := &albaDrill{e: e, copies: map[int]string{}, counts: map[string]int{}}
	defer func() { err = errors.Join(err, d.killAll()) }()
	if err := d.start(ctx, albaNodes*albaPerNode); err != nil {
		return "", err
	}
	for round := range e.rounds {
		err := e.underLoad(ctx, d.targets, false, func(ctx context.Context) error { return d.hurt(ctx, round) })
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if err := verify(ctx, d.targets); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		e.say("round %d: %s; all verified", round+1, d.text())
		// What was overwritten is given back now and then: the load never rests, and fills any disk.
		if round%albaScrub == albaScrub-1 {
			if err := d.scrub(ctx); err != nil {
				return "", fmt.Errorf("round %d: %w", round+1, err)
			}
		}
	}
	took, err := d.end(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds, %s, %d blocks acknowledged, 0 lost, complete again %v after the last", e.rounds, d.text(), sum(d.targets).Blocks, took.Round(time.Second)), nil
}

// killAll ends the ASDs that run.
func (d *albaDrill) killAll() error {
	var errs []error
	for _, a := range d.asds {
		errs = append(errs, a.Kill())
	}
	return errors.Join(errs...)
}

// end waits until the object store is complete, and tells how long that took. It checks every
// block and object after a restart of the node, which it stops.
func (d *albaDrill) end(ctx context.Context) (time.Duration, error) {
	took, err := d.whole(ctx)
	if err != nil {
		return 0, err
	}
	// From the backend alone: nothing of it is in memory after a restart.
	if err := errors.Join(d.n.Stop(), d.n.Start(ctx)); err != nil {
		return 0, err
	}
	if err := errors.Join(verify(ctx, d.targets), d.verifyObjects(ctx)); err != nil {
		return 0, err
	}
	return took, d.n.Stop()
}

func (d *albaDrill) text() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(d.counts)) {
		all = append(all, fmt.Sprintf("%d %s", d.counts[k], k))
	}
	return strings.Join(all, ", ")
}

// start starts the node, so many ASDs, and a vPool on them, with a preset of its own: its name
// and what else the command takes.
func (d *albaDrill) start(ctx context.Context, asds int, preset ...string) error {
	var err error
	if d.n, err = d.e.configured(ctx, albaConfig); err != nil {
		return err
	}
	for range asds {
		if err := d.add(ctx, len(d.asds)); err != nil {
			return err
		}
	}
	create := slices.Concat([]string{"vpool", "create", "drill", "--backend", "alba"}, smallSettings)
	if len(preset) > 0 {
		if _, err := d.n.CLI(ctx, slices.Concat([]string{"preset", "create"}, preset)...); err != nil {
			return err
		}
		create = append(create, "--preset", preset[0])
	}
	if _, err := d.n.CLI(ctx, create...); err != nil {
		return err
	}
	d.targets, err = d.e.targets(ctx, d.n, loadDisks)
	return err
}

// add makes a new ASD for a slot and claims it.
func (d *albaDrill) add(ctx context.Context, slot int) error {
	d.serial++
	a, err := node.NewASD(d.e.bin, filepath.Join(d.e.dir, fmt.Sprintf("asd%d", d.serial)))
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	if slot == len(d.asds) {
		d.asds, d.numbers = append(d.asds, a), append(d.numbers, 0)
	}
	d.asds[slot] = a
	domain := ""
	if d.perRack > 0 {
		domain = fmt.Sprint("rack", slot/d.perRack+1)
	}
	o, err := d.n.ClaimASD(ctx, a, fmt.Sprint("machine", slot/albaPerNode), domain)
	d.numbers[slot] = o.Number
	return err
}

// hurt does one thing to one ASD, and undoes it where it can be undone.
func (d *albaDrill) hurt(ctx context.Context, round int) error {
	slot := d.e.rng.IntN(len(d.asds))
	a := d.asds[slot]
	faults := []struct {
		name string
		do   func() error
	}{
		{"killed", func() error {
			return d.during(ctx, a.Kill, func() error { return a.Start(ctx) })
		}},
		{"stood still", func() error {
			return d.during(ctx, func() error { return a.Signal(syscall.SIGSTOP) }, func() error { return a.Signal(syscall.SIGCONT) })
		}},
		{"damaged", func() error { return d.damage(a) }},
		{"copied", func() error { return d.copy(ctx, slot) }},
		{"set back", func() error { return d.setBack(ctx, slot) }},
		{"wiped", func() error { return d.wipe(ctx, slot) }},
		{"restarted", func() error {
			return d.during(ctx, a.Stop, func() error { return a.Start(ctx) })
		}},
	}
	// Each kind in turn, so that a short drill has them all.
	f := faults[round%len(faults)]
	if err := d.e.pause(ctx, loadMin, loadMax); err != nil {
		return err
	}
	if err := f.do(); err != nil {
		return fmt.Errorf("ASD %d %s: %w", d.numbers[slot], f.name, err)
	}
	d.counts[f.name]++
	if err := d.e.pause(ctx, loadMin, loadMax); err != nil {
		return err
	}
	// The next fault is another ASD's: what this one lacks is made anew first, as no
	// policy promises more than c-k losses at once.
	_, err := d.whole(ctx)
	return err
}

// during does a thing, waits, and undoes it.
func (d *albaDrill) during(ctx context.Context, do, undo func() error) error {
	if err := do(); err != nil {
		return err
	}
	return errors.Join(d.e.pause(ctx, albaFaultMin, albaFaultMax), undo())
}

// damage flips bits in what an ASD stores, while it serves.
func (d *albaDrill) damage(a *node.ASD) error {
	files, err := filepath.Glob(filepath.Join(a.Dir(), "asd", "blob", "*"))
	if err != nil {
		return err
	}
	for _, name := range files {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		for range 8 {
			if err != nil || st.Size() == 0 {
				break
			}
			var b [1]byte
			at := d.e.rng.Int64N(st.Size())
			if _, err = f.ReadAt(b[:], at); err == nil {
				b[0] ^= 1 << d.e.rng.IntN(8)
				_, err = f.WriteAt(b[:], at)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// copy keeps a copy of an ASD's directory; the ASD is stopped meanwhile.
func (d *albaDrill) copy(ctx context.Context, slot int) error {
	a := d.asds[slot]
	if err := a.Stop(); err != nil {
		return err
	}
	d.copies = map[int]string{slot: a.Dir() + ".copy"}
	err := os.RemoveAll(a.Dir() + ".copy")
	if err == nil {
		err = os.CopyFS(a.Dir()+".copy", os.DirFS(a.Dir()))
	}
	return errors.Join(err, a.Start(ctx))
}

// setBack puts the older copy of an ASD in its place.
func (d *albaDrill) setBack(ctx context.Context, _ int) error {
	for slot, copied := range d.copies {
		a := d.asds[slot]
		if err := a.Kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(a.Dir()); err != nil {
			return err
		}
		if err := os.Rename(copied, a.Dir()); err != nil {
			return err
		}
		d.copies = map[int]string{}
		return a.Start(ctx)
	}
	return errors.New("there is no copy")
}

// wipe destroys an ASD, gives it up, and claims a new one in its place.
func (d *albaDrill) wipe(ctx context.Context, slot int) error {
	a, number := d.asds[slot], d.numbers[slot]
	if err := a.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(a.Dir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := d.n.CLI(ctx, "--yes", "osd", "purge", strconv.FormatInt(number, 10)); err != nil {
		return err
	}
	return d.add(ctx, slot)
}

// whole waits until the object store is complete: nothing to repair, every ASD works, and
// any two may be lost.
func (d *albaDrill) whole(ctx context.Context) (time.Duration, error) {
	const tolerates = 2
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, albaPatience)
	defer cancel()
	api, err := d.n.API()
	if err != nil {
		return 0, err
	}
	for {
		if err := client.Done(api.SurveyAlba(ctx)); err != nil {
			return 0, err
		}
		s, err := client.Get[client.Alba](api.GetAlba(ctx))
		if err != nil {
			return 0, err
		}
		fresh := s.SurveyedAt != nil && s.SurveyedAt.After(start)
		if fresh && s.Failed == 0 && s.Repair == 0 && s.Osds == len(d.asds) && s.Tolerates != nil && *s.Tolerates >= tolerates {
			return time.Since(start), nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return 0, fmt.Errorf("not complete after %v: %s: %d to repair, %d of %d devices do not work: %w", albaPatience, s.Safety, s.Repair, s.Failed, s.Osds, err)
		}
	}
}

// scrub gives back what the vDisks do not hold any more.
func (d *albaDrill) scrub(ctx context.Context) error {
	for _, t := range d.targets {
		if _, err := d.n.CLI(ctx, "vdisk", "scrub", t.name); err != nil {
			return err
		}
	}
	return nil
}

// verifyObjects has every object of the vDisks read and checked.
func (d *albaDrill) verifyObjects(ctx context.Context) error {
	for _, t := range d.targets {
		if _, err := d.n.CLI(ctx, "vdisk", "verify", t.name); err != nil {
			return err
		}
	}
	return nil
}
