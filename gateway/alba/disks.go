package alba

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/gateway/disk"
)

// disksEvery is how often it is looked which disks the devices are on; the disks are
// asked less often (disk.Monitor).
const disksEvery = time.Minute

// ErrNoDisk: a device is on no disk of this node that is known.
var ErrNoDisk = errors.New("it is on no disk of this node")

// OSDDisk is the disk of this node that a device is on.
type OSDDisk struct {
	disk.Disk
	disk.Health
}

// Disks lists the disks of this node with what they hold.
func (s *Service) Disks(ctx context.Context) ([]disk.View, error) {
	return s.looker.Look(ctx, func(disk.Disk) bool { return true })
}

// watchDisks keeps what is known of the devices' disks, until the Alba ends.
func (s *Service) watchDisks(r *running) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-r.stop
		cancel()
	}()
	tick := time.NewTicker(cmp.Or(s.o.Probe, disksEvery))
	defer tick.Stop()
	told := ""
	for {
		err := s.findDisks(ctx, r)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); err != nil && text != told {
			told = text
			s.o.Log.Warn("the disks of the devices are not known", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.claimed:
		case <-tick.C:
		}
	}
}

// findDisks finds the disk of each device on this node, and asks it for its health.
func (s *Service) findDisks(ctx context.Context, r *running) error {
	osds, err := r.manager.OSDs(ctx)
	if err != nil {
		return err
	}
	views, err := s.looker.Look(ctx, func(d disk.Disk) bool { return len(d.Mounts) > 0 })
	if err != nil {
		return err
	}
	var all []disk.Disk
	byUUID := map[string]disk.Disk{}
	for _, v := range views {
		all = append(all, v.Disk)
		if v.UUID != "" {
			byUUID[v.UUID] = v.Disk
		}
	}
	found := map[uint32]disk.Disk{}
	var ask []disk.Disk
	for _, o := range osds {
		d, ok := byUUID[o.UUID]
		if !ok && o.Kind == kindLocal && o.Node == s.o.Node {
			d, ok = s.looker.System.Under(all, o.Directory)
		}
		if ok {
			found[o.Number] = d
			ask = append(ask, d)
		}
	}
	s.smart.Ask(ctx, ask, s.o.Now())
	r.diskMu.Lock()
	r.disks = found
	r.diskMu.Unlock()
	return nil
}

// diskOf returns the disk that a device is on; nil when none is known.
func (s *Service) diskOf(r *running, o manager.OSD) *OSDDisk {
	r.diskMu.Lock()
	d, ok := r.disks[o.Number]
	r.diskMu.Unlock()
	if !ok {
		return nil
	}
	h, _ := s.smart.Health(d)
	return &OSDDisk{d, h}
}

// Locate switches the light of the disk that a device is on.
func (s *Service) Locate(ctx context.Context, number uint32, on bool) error {
	o, err := s.OSD(ctx, number)
	if err != nil {
		return err
	}
	if o.Disk == nil {
		return fmt.Errorf("device %d: %w: find it by its place, %s", number, ErrNoDisk, o.Directory+o.Address)
	}
	return s.looker.System.Locate(ctx, o.Disk.Disk, on)
}
