// Package asdnode runs devices on directories of this machine. The verb
// `ovgate asd` calls Run, which serves one over the network; a node that has
// devices of its own opens them with Open. Either may open what the other made.
//
// # Directory (mode 0700)
//
//	DIR/lock         held while a process has the device; its process id
//	DIR/asd/         the device: alba/asd
//	DIR/tls.pem      certificate and private key of the server, 0600
//	DIR/access.key   access key: 32 bytes as hexadecimal digits, 0600
//
// The last two are made by the first Run. Who registers the device needs the
// fingerprint of the certificate, which Run prints, and the access key, which it
// does not.
//
// # Start and stop
//
//	(disk → mount →) foreign? → lock → store → certificate, key → listen → announce → serve
//	stop: listener and requests (drain) → store → lock (→ unmount)
//
// # Invariants
//
//	D1  Nothing changes in a directory that holds something else, nor, but for a
//	    probe that leaves nothing, before its lock is held. A device is made
//	    where none was served before: an empty store is a disk not mounted.
//	D2  Certificate and access key are made once and stay: clients know them.
//	D3  The access key goes to its file only, never to output or log.
//	D4  A device whose disk failed, such as one that others filled, is opened anew, again and
//	    again, until its disk works, and is the same device then; the lock is held all the
//	    time, and a disk that is gone from its directory leaves that as it is.
package asdnode

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/sdnotify"
)

// DefaultListen is where an ASD listens unless it is told.
const DefaultListen = "127.0.0.1:8500"

// secretLimit bounds what is read of the certificate's and the key's file.
const secretLimit = 64 << 10

// RunOptions are what Run is started with. Only Dir or Disk is needed.
type RunOptions struct {
	Dir  string
	Disk string // path of a disk to mount on Dir; Dir may be empty then (package disk)
	// ForceSerial allows to erase a disk that holds something, if that is its serial.
	ForceSerial string
	System      disk.System // where the disk is known
	Listen      string      // HOST:PORT; port 0 takes a free one; empty: DefaultListen
	Capacity    int64       // bytes that the device may take of its disk; 0: all
	Clear       bool        // leaves TLS after its handshake with clients that want that too
	LogFormat   string      // text or json; empty: text
	JSON        bool        // announce as a JSON object
	Version     string      // of the program
	Stdout      io.Writer   // the announcement; nil: standard output
	Stderr      io.Writer   // log; nil: standard error
}

// Announcement is what Run prints once the device is served, as lines of key=value
// in this order, or as a JSON object.
type Announcement struct {
	ID          string `json:"id"`
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint"`
	KeyFile     string `json:"keyFile"`
}

func (a Announcement) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(a)
	}
	_, err := fmt.Fprintf(w, "id=%s\naddress=%s\nfingerprint=%s\nkey-file=%s\n", a.ID, a.Address, a.Fingerprint, a.KeyFile)
	return err
}

// ParseAnnouncement reads the lines that Run printed; ok is false before all of
// them are there.
func ParseAnnouncement(text string) (a Announcement, ok bool) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case "id":
			a.ID = value
		case "address":
			a.Address = value
		case "fingerprint":
			a.Fingerprint = value
		case "key-file":
			a.KeyFile = value
			ok = strings.HasSuffix(line, "\n")
		}
	}
	return a, ok
}

// Run serves the device of a directory or disk until ctx ends.
func Run(ctx context.Context, o RunOptions) (runErr error) {
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	log := slog.New(slog.NewTextHandler(o.Stderr, nil))
	if o.LogFormat == "json" {
		log = slog.New(slog.NewJSONHandler(o.Stderr, nil))
	}
	opts := Options{Capacity: o.Capacity, Version: o.Version, Log: log}
	made := func() error { return nil }
	if o.Disk != "" {
		d, err := disk.New(ctx, disk.Options{Path: o.Disk, Dir: o.Dir, ForceSerial: o.ForceSerial, System: o.System, Log: log})
		if err != nil {
			return err
		}
		defer func() { runErr = errors.Join(runErr, d.Close()) }()
		o.Dir, opts.ID, opts.Existing, made = d.Dir, d.UUID, d.Made, d.SetMade
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("asd directory: %w", err)
	}
	dev, err := Open(dir, opts)
	if err != nil {
		return err
	}
	defer func() { runErr = errors.Join(runErr, dev.Close()) }()
	if err := made(); err != nil {
		return err
	}
	fsys, err := blockfs.OS(dir)
	if err != nil {
		return err
	}
	cert, err := certificate(fsys, dir, log)
	if err != nil {
		return err
	}
	key, err := accessKey(fsys, dir, log)
	if err != nil {
		return err
	}
	server, err := remote.NewServer(ctx, dev, remote.ServerOptions{Key: key, Certificate: cert, Clear: o.Clear, Clock: clock.Real{}, Rand: rand.Reader})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("asd cannot listen on %s: %w: stop what uses it, or choose another address with --listen", o.Listen, err)
	}
	a := Announcement{ID: dev.ID(), Address: l.Addr().String(), Fingerprint: remote.Fingerprint(cert.Certificate[0]), KeyFile: filepath.Join(dir, keyName)}
	watched, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	return serve(ctx, server, l, log, func() error {
		log.Info("ready", "osd", a.ID, "listen", a.Address, "dir", dir)
		sdnotify.Send("READY=1")
		go sdnotify.Watchdog(watched, func() { _, _ = dev.Info(watched) }) // that it answers is all
		return a.print(o.Stdout, o.JSON)
	})
}

// serve serves until ctx ends or the listener fails, and ends in order.
func serve(ctx context.Context, server *remote.Server, l net.Listener, log *slog.Logger, announce func() error) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	err := announce()
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-served:
			served <- nil
		}
	}
	sdnotify.Send("STOPPING=1")
	log.Info("stopping")
	err = errors.Join(err, server.Close(), <-served)
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// secret reads a file of the directory, or makes it (D2).
func secret(fsys blockfs.FS, name, dir string, log *slog.Logger, draw func() ([]byte, error)) ([]byte, error) {
	b, err := blockfs.ReadFile(fsys, name, secretLimit)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if b, err = draw(); err != nil {
		return nil, err
	}
	log.Info("made", "file", name, "dir", dir) // who registered the device with another one learns it by an error
	return b, blockfs.WriteFile(fsys, name, b)
}

// certificate returns the server's certificate.
func certificate(fsys blockfs.FS, dir string, log *slog.Logger) (tls.Certificate, error) {
	b, err := secret(fsys, tlsName, dir, log, func() ([]byte, error) {
		cert, key, _, err := remote.NewCertificate(rand.Reader, clock.Real{}.Now())
		return append(cert, key...), err
	})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("asd directory %s: certificate: %w", dir, err)
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return pair, fmt.Errorf("asd directory %s: %s is damaged: %w: bring it back from a copy, or remove it to make a new one and register the device again", dir, tlsName, err)
	}
	return pair, nil
}

// accessKey returns the key that clients have to prove.
func accessKey(fsys blockfs.FS, dir string, log *slog.Logger) ([]byte, error) {
	b, err := secret(fsys, keyName, dir, log, func() ([]byte, error) {
		b := make([]byte, remote.KeyBytes)
		_, err := io.ReadFull(rand.Reader, b)
		return append(hex.AppendEncode(nil, b), '\n'), err
	})
	if err != nil {
		return nil, fmt.Errorf("asd directory %s: access key: %w", dir, err)
	}
	key, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("asd directory %s: %s: %w: bring it back from a copy, or remove it to make a new one and register the device again", dir, keyName, err)
	}
	return key, nil
}

// ReadKey reads the access key in a file that Run announced.
func ReadKey(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}
	key, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("access key %s: %w", name, err)
	}
	return key, nil
}

func parseKey(b []byte) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != remote.KeyBytes {
		return nil, fmt.Errorf("it does not hold %d bytes as hexadecimal digits", remote.KeyBytes) // says nothing of what it holds
	}
	return key, nil
}
