package esxsim

import (
	"context"
	"errors"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// patience is how long I/O of a virtual machine goes on without a path: what guests wait
// for a disk.
const patience = 60 * time.Second

// io does one piece of I/O, and again as long as only paths are missing.
func (h *Host) io(datastore string, off int64, do func(s *initiator.Session, number uint16, at int64) error) error {
	end := time.Now().Add(patience)
	for {
		err := h.once(datastore, "", off, do)
		var scsi *initiator.SCSIError
		if err == nil || errors.Is(err, errNoVolume) || errors.As(err, &scsi) && !transient(scsi) || time.Now().After(end) {
			return err
		}
		select {
		case <-h.f.ctx.Done():
			return h.f.ctx.Err()
		case <-time.After(relogin):
		}
	}
}

// transient are answers after which a host tries again, on another path if there is one.
func transient(e *initiator.SCSIError) bool {
	return e.Status == initiator.CheckCondition && (e.Sense.Key == initiator.NotReady || e.Sense.Key == initiator.AbortedCommand)
}

// once does one piece of I/O on one path: through a portal, "" is any.
func (h *Host) once(datastore, portal string, off int64, do func(s *initiator.Session, number uint16, at int64) error) error {
	h.f.mu.Lock()
	l, err := h.volumeAt(datastore)
	var s *initiator.Session
	var number uint16
	if err == nil && portal == "" {
		s, number, err = l.live()
	} else if err == nil {
		s, number, err = l.at(portal)
	}
	h.f.mu.Unlock()
	if err != nil {
		return err
	}
	return do(s, number, dataAt+off)
}

func reportLUNs(s *initiator.Session) (numbers []uint16, err error) {
	err = again(func(ctx context.Context) error {
		numbers, err = s.ReportLUNs(ctx)
		return err
	})
	return numbers, err
}
