package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ErrNoLED: nothing lights the place of a disk.
var ErrNoLED = errors.New("the disk has no light that can be switched")

// ledTimeout bounds a run of ledctl.
const ledTimeout = 30 * time.Second

// Locate switches the locate light of a disk's place: by the enclosure that the kernel
// knows (SES), else with ledctl.
func (s System) Locate(ctx context.Context, d Disk, on bool) error {
	slots, err := filepath.Glob(s.sys("class", "enclosure", "*", "*", "device", "block", d.Name))
	if err != nil {
		return err
	}
	value, word := "0", "locate_off="
	if on {
		value, word = "1", "locate="
	}
	if len(slots) > 0 {
		light := filepath.Join(slots[0], "..", "..", "..", "locate") // of the slot, by its name
		if err := os.WriteFile(light, []byte(value), 0o600); err != nil {
			return fmt.Errorf("disk %s: light of its enclosure: %w", d.Path, err)
		}
		return nil
	}
	ledctl, err := exec.LookPath("ledctl")
	if err != nil {
		return fmt.Errorf("disk %s: %w: it is in no enclosure that the kernel knows, and ledctl is not installed (package ledmon): find it by its serial %q", d.Path, ErrNoLED, d.Serial)
	}
	ctx, cancel := context.WithTimeout(ctx, ledTimeout)
	defer cancel()
	if b, err := exec.CommandContext(ctx, ledctl, word+d.Path).CombinedOutput(); err != nil {
		return fmt.Errorf("disk %s: %w: ledctl: %w: %s: find it by its serial %q", d.Path, ErrNoLED, err, bytes.TrimSpace(b[:min(len(b), maxOutput)]), d.Serial)
	}
	return nil
}
