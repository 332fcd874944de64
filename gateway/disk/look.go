package disk

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/blkprobe"
)

// View is a disk with what it holds.
type View struct {
	Disk
	Holds  string // in words
	Usable bool   // it can be made the disk of an ASD as it is
	UUID   string // of the ASD on it; empty: it is none of ovgate
}

// lookTimeout is how long a disk may take to be looked at: longer than the retries of
// one with bad sectors usually take.
const lookTimeout = 10 * time.Second

// Looker looks at the disks of a machine. A disk that does not answer is looked at by
// one goroutine, however often it is asked for. Safe for concurrent use.
type Looker struct {
	System System

	mu   sync.Mutex
	busy map[string]*looking // by name
}

// looking is a look at a disk that goes on.
type looking struct {
	done chan struct{}
	view View
}

// Look lists the disks that are wanted, with what they hold.
func (l *Looker) Look(ctx context.Context, want func(Disk) bool) ([]View, error) {
	disks, err := l.System.List()
	if err != nil {
		return nil, err
	}
	disks = slices.DeleteFunc(disks, func(d Disk) bool { return !want(d) })
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	out := make([]View, len(disks))
	var wg sync.WaitGroup
	for i, d := range disks {
		wg.Go(func() { out[i] = l.one(ctx, d) })
	}
	wg.Wait()
	return out, nil
}

func (l *Looker) one(ctx context.Context, d Disk) View {
	l.mu.Lock()
	at := l.busy[d.Name]
	if at == nil {
		at = &looking{done: make(chan struct{})}
		if l.busy == nil {
			l.busy = map[string]*looking{}
		}
		l.busy[d.Name] = at
		go func() {
			at.view = look(d)
			l.mu.Lock()
			delete(l.busy, d.Name)
			l.mu.Unlock()
			close(at.done)
		}()
	}
	l.mu.Unlock()
	select {
	case <-at.done:
		return at.view
	case <-ctx.Done():
		return View{Disk: d, Holds: "it does not answer"}
	}
}

// look tells what a disk holds.
func look(d Disk) View {
	v := View{Disk: d}
	var use []string
	if len(d.Mounts) > 0 {
		use = append(use, "mounted on "+d.Mounts[0].Dir)
	}
	if len(d.Holders) > 0 {
		use = append(use, "part of "+strings.Join(d.Holders, ", "))
	}
	f, err := os.Open(d.Path)
	if err != nil {
		v.Holds = fmt.Sprintf("it cannot be looked at: %v", err)
		return v
	}
	defer f.Close()
	l, err := readLabel(f, d.Size)
	if err != nil {
		v.Holds = err.Error()
		return v
	}
	if l != nil {
		v.UUID = l.uuid
		what := "ASD " + l.uuid
		if l.state != ready {
			what += ", being made"
		}
		if err := l.of(d); err != nil {
			what = "copy of ASD " + l.uuid
		}
		v.Holds = strings.Join(append([]string{what}, use...), ", ")
		return v
	}
	found, err := blkprobe.Probe(f, d.Size)
	if err != nil {
		v.Holds = fmt.Sprintf("it cannot be read: %v", err)
		return v
	}
	blank := len(found) == 0 && len(d.Partitions) == 0 && len(use) == 0
	v.Usable = blank && !d.ReadOnly && d.Size >= MinSize
	if v.Holds = strings.Join(append([]string{inWords(found, d.Partitions)}, use...), ", "); blank {
		switch v.Holds = "nothing"; {
		case d.ReadOnly:
			v.Holds += ", read-only"
		case d.Size < MinSize:
			v.Holds += ", too small"
		}
	}
	return v
}
