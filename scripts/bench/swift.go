package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// swiftPeer is Debian's Swift with its EC policy (scripts/peers/swift).
type swiftPeer struct {
	peer      *node.Peer
	members   []int // its processes
	http      *http.Client
	url       string // of the container
	token     string
	config    string
	kept, put swiftObjects
}

// errNoSwift: Swift cannot run here.
var errNoSwift = errors.New("the packages of Swift are not installed, or this is not root")

// swiftWorkers are the numbers of workers that are tried: more only get in each other's
// way on the machines that this is for.
var swiftWorkers = []int{1, 2}

// tuneSwift starts Swift with the number of workers that stores fastest, with the
// objects to read in it.
func tuneSwift(ctx context.Context, o options, dir string) (*swiftPeer, error) {
	if _, err := exec.LookPath("swift-proxy-server"); err != nil || os.Getuid() != 0 {
		return nil, errNoSwift
	}
	fmt.Println("bench: preparing Swift")
	best, bestRate := 0, 0.0
	var tried []string
	for _, n := range swiftWorkers {
		s, err := openSwift(ctx, dir, n)
		if err != nil {
			return nil, err
		}
		rate, _, err := s.work("tune", true).run(&s.put, objectSpace*largeObject, o.seconds, 1)
		if err := errors.Join(err, s.close()); err != nil {
			return nil, err
		}
		tried = append(tried, fmt.Sprintf("%d: %.0f MB/s", n, rate*largeObject/1e6))
		if rate > bestRate {
			best, bestRate = n, rate
		}
	}
	s, err := openSwift(ctx, dir, best)
	if err != nil {
		return nil, err
	}
	s.config = fmt.Sprintf("Debian's Swift, policy liberasurecode_rs_vand 4+2 with segments of 1 MiB, six directories on the same disk, tempauth, HTTP over loopback, replicators and auditors off, "+
		"%d workers of proxy and object server, best of {%s} at put; a put is answered when 5 of 6 fragments were synced", best, strings.Join(tried, ", "))
	if err := fill4(&s.kept, largeKept); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// fill4 puts the first n objects of 4 MiB.
func fill4(d disk, n int64) error {
	w := work{name: "fill", write: true, depth: largeDepth, block: largeObject, inOrder: true, minBytes: n * largeObject}
	_, _, err := w.run(d, n*largeObject, 5, 1)
	return err
}

// openSwift starts Swift and makes a container with the EC policy.
func openSwift(ctx context.Context, dir string, workers int) (_ *swiftPeer, err error) {
	p, err := startPeer(ctx, dir, "swift", "bench", "--data", filepath.Join(dir, "swift"), "--workers", strconv.Itoa(workers))
	if err != nil {
		return nil, err
	}
	s := &swiftPeer{peer: p, http: &http.Client{
		Timeout:   2 * time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: 2 * largeDepth, DisableCompression: true},
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.members, err = peerPIDs(p); err != nil {
		return nil, err
	}
	return s, s.login(ctx, p.Said["auth"], p.Said["user"], p.Said["key"])
}

func (s *swiftPeer) login(ctx context.Context, auth, user, key string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, auth, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-User", user)
	req.Header.Set("X-Auth-Key", key)
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	s.token = res.Header.Get("X-Auth-Token")
	s.url = res.Header.Get("X-Storage-Url") + "/bench"
	s.kept, s.put = swiftObjects{s, "kept"}, swiftObjects{s, "put"}
	return s.do(ctx, http.MethodPut, "", nil, nil)
}

// do sends a request; a GET fills into.
func (s *swiftPeer) do(ctx context.Context, method, name string, data, into []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.url+name, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", s.token)
	req.Header.Set("X-Storage-Policy", "ec42")
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	if res.StatusCode/100 == 2 && into != nil {
		_, err = io.ReadFull(res.Body, into)
	}
	_, drained := io.Copy(io.Discard, res.Body)
	err = errors.Join(err, drained, res.Body.Close())
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("swift: %s %s: %s", method, name, res.Status)
	}
	return err
}

// swiftObjects is a part of the container as a disk: each block is an object.
type swiftObjects struct {
	s      *swiftPeer
	prefix string
}

func (o *swiftObjects) name(off int64, size int) string {
	return fmt.Sprintf("/%s/%08d", o.prefix, off/int64(size))
}

// WriteAt implements disk.
func (o *swiftObjects) WriteAt(p []byte, off int64) (int, error) {
	return len(p), o.s.do(context.Background(), http.MethodPut, o.name(off, len(p)), p, nil)
}

// ReadAt implements disk.
func (o *swiftObjects) ReadAt(p []byte, off int64) (int, error) {
	return len(p), o.s.do(context.Background(), http.MethodGet, o.name(off, len(p)), nil, p)
}

func (s *swiftPeer) work(name string, write bool) work {
	return work{name: "swift " + name, write: write, depth: largeDepth, block: largeObject, inOrder: true}
}

func (s *swiftPeer) steps() []step {
	none := func(context.Context) error { return nil }
	const megabytes = float64(largeObject) / 1e6
	return []step{
		onDisk(albaPrefix+"swift-put", s.work("put", true), &s.put, objectSpace*largeObject, none).scaled(megabytes),
		onDisk(albaPrefix+"swift-get", s.work("get", false), &s.kept, largeKept*largeObject, none).scaled(megabytes),
	}
}

func (s *swiftPeer) close() error {
	s.http.CloseIdleConnections()
	return s.peer.Close()
}
