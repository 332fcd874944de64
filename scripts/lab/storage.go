package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/openvstorage/ovgate/gateway/asdnode"
)

// firstDevicePort is that of a storage machine's first device; the others follow.
const firstDevicePort = 8500

// startStorage starts the devices of a storage machine that do not run, and waits until they
// are served.
func (l *Lab) startStorage(ctx context.Context, machine string) error {
	return l.Each(l.processes(machine), func(name string) error {
		if l.pid(name) != 0 {
			return nil
		}
		number := slices.Index(l.processes(machine), name)
		before, err := l.logBytes(name)
		if err != nil {
			return err
		}
		address := net.JoinHostPort(Address(machine), strconv.Itoa(firstDevicePort+number))
		if err := l.start(name, machine, l.bin(machine), "asd", "--dir", l.device(machine, number+1), "--listen", address, "--capacity", strconv.Itoa(deviceBytes)); err != nil {
			return err
		}
		return l.await(ctx, name, func() bool {
			_, ok := l.announced(name, before)
			return ok
		})
	})
}

// logBytes is how long a log is; one that is not there yet is empty.
func (l *Lab) logBytes(name string) (int64, error) {
	st, err := os.Stat(l.LogFile(name))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// announced returns what a device said of itself in its log, from so many bytes on; false: it
// is not served yet.
func (l *Lab) announced(name string, from int64) (asdnode.Announcement, bool) {
	b, err := os.ReadFile(l.LogFile(name))
	if err != nil || int64(len(b)) < from {
		return asdnode.Announcement{}, false
	}
	return asdnode.ParseAnnouncement(string(b[from:]))
}

// claim makes the devices of the storage machines part of the object store, each as one of its
// machine.
func (l *Lab) claim(ctx context.Context) error {
	for _, m := range l.Storage() {
		for _, name := range l.processes(m) {
			a, ok := l.announced(name, 0)
			if !ok {
				return fmt.Errorf("device %s is not served: %s", name, l.tail(name))
			}
			if _, err := l.CLI(ctx, l.Nodes()[0], "osd", "claim", a.Address, "--fingerprint", a.Fingerprint, "--key-file", a.KeyFile, "--node", m); err != nil {
				return err
			}
		}
	}
	return nil
}
