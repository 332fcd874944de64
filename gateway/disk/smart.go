package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Health is what a disk says of itself (SMART).
type Health struct {
	Healthy     *bool // nil: it does not tell
	Temperature *int  // degrees Celsius; nil: it does not tell
	Problem     string
	At          time.Time
}

const (
	// smartEvery is how long what a disk said is kept: it changes slowly, and asking
	// takes the disk's time.
	smartEvery = 5 * time.Minute
	// smartTimeout bounds a run of smartctl.
	smartTimeout = 30 * time.Second
	// maxSMART bounds what is read of smartctl, in bytes.
	maxSMART = 1 << 20
	// A sensor that tells less or more is broken, degrees Celsius.
	minTemperature, maxTemperature = -60, 150
)

// smartJSON is what is read of smartctl's JSON (format 1): the same for ATA, NVMe and
// SCSI.
type smartJSON struct {
	Version []int `json:"json_format_version"`
	Program struct {
		Messages []struct {
			Text     string `json:"string"`
			Severity string `json:"severity"`
		} `json:"messages"`
	} `json:"smartctl"`
	Status *struct {
		Passed *bool `json:"passed"`
	} `json:"smart_status"`
	Temperature *struct {
		Current *int `json:"current"`
	} `json:"temperature"`
	NVMe *struct {
		Warning int `json:"critical_warning"`
	} `json:"nvme_smart_health_information_log"`
}

// ParseSMART reads the output of smartctl --json. The error is of output that is not
// that, or of a device that could not be asked.
func ParseSMART(b []byte) (Health, error) {
	var j smartJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Health{}, fmt.Errorf("smartctl: %w", err)
	}
	if len(j.Version) == 0 || j.Version[0] != 1 {
		return Health{}, fmt.Errorf("smartctl: it writes format %v, version 1 is known: use smartmontools 7", j.Version)
	}
	var h Health
	if j.Status != nil {
		h.Healthy = j.Status.Passed
	}
	if t := j.Temperature; t != nil && t.Current != nil && *t.Current >= minTemperature && *t.Current <= maxTemperature {
		h.Temperature = t.Current
	}
	if j.NVMe != nil && j.NVMe.Warning != 0 {
		h.Healthy = new(false)
		h.Problem = fmt.Sprintf("it warns: critical warning %#02x", j.NVMe.Warning)
	}
	if h.Healthy != nil && !*h.Healthy && h.Problem == "" {
		h.Problem = "it says that it fails"
	}
	if h.Healthy == nil && h.Temperature == nil {
		for _, m := range j.Program.Messages {
			if m.Severity == "error" || h.Problem == "" {
				h.Problem = printable(m.Text)
			}
		}
		if h.Problem == "" {
			h.Problem = "it does not tell its health"
		}
	}
	return h, nil
}

// Monitor asks disks for their health, seldom, and keeps what they said. Safe for
// concurrent use.
type Monitor struct {
	// Program is smartctl; empty: the one that is installed.
	Program string

	mu   sync.Mutex
	said map[string]Health // by device
}

// Health returns what a disk said lately.
func (m *Monitor) Health(d Disk) (Health, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.said[d.Path]
	return h, ok
}

// Ask asks the disks that were not asked lately, one after the other, and forgets
// all others.
func (m *Monitor) Ask(ctx context.Context, disks []Disk, now time.Time) {
	said := map[string]Health{}
	for _, d := range disks {
		h, ok := m.Health(d)
		if !ok || now.Sub(h.At) >= smartEvery {
			h = m.ask(ctx, d.Path)
			h.At = now
		}
		said[d.Path] = h
	}
	m.mu.Lock()
	m.said = said
	m.mu.Unlock()
}

func (m *Monitor) ask(ctx context.Context, device string) Health {
	program := m.Program
	if program == "" {
		for _, name := range []string{"smartctl", "/usr/sbin/smartctl"} {
			if path, err := exec.LookPath(name); err == nil {
				program = path
				break
			}
		}
	}
	if program == "" {
		return Health{Problem: "smartctl is not installed: install the package smartmontools"}
	}
	ctx, cancel := context.WithTimeout(ctx, smartTimeout)
	defer cancel()
	// A disk that sleeps is left asleep.
	cmd := exec.CommandContext(ctx, program, "--json", "--nocheck=standby", "--info", "--health", "--attributes", device)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return Health{Problem: fmt.Sprintf("smartctl: %v", err)}
	}
	b, readErr := io.ReadAll(io.LimitReader(out, maxSMART+1))
	if len(b) > maxSMART {
		readErr = fmt.Errorf("smartctl wrote more than %d bytes", maxSMART)
		cancel()
	}
	// Its exit status is a set of bits about the disk, which the JSON tells as well.
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		readErr = errors.Join(readErr, err, ctx.Err())
	}
	h, err := ParseSMART(b)
	if err := errors.Join(readErr, err); err != nil {
		return Health{Problem: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return h
}

// Under returns the disk that a directory's file system is on; false where it is on
// none alone.
func (s System) Under(disks []Disk, dir string) (Disk, bool) {
	mounts, err := s.mounts()
	if err != nil {
		return Disk{}, false
	}
	var best Mount
	for _, m := range mounts {
		if within(dir, m.Dir) && len(m.Dir) >= len(best.Dir) {
			best = m
		}
	}
	for _, d := range disks {
		for _, m := range d.Mounts {
			if m == best {
				return d, true
			}
		}
	}
	return Disk{}, false
}

// within tells whether a path is a directory or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
