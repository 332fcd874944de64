package api

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Bounds of a support bundle.
const (
	bundleTime = 2 * time.Minute // below writeTimeout
	partTime   = 15 * time.Second
	listTime   = 20 * time.Second // of all pages of one list, so that a long one leaves time for the others
	maxPart    = 16 << 20         // bytes of one file in it
	maxPages   = 100              // of one list
)

// notInBundle are lists and objects of the API that a support bundle does without: what is the
// caller's own, and what is no object.
var notInBundle = []string{"/events", "/events/export", "/metadata/backup", "/openapi.yaml", "/session", "/setup", "/support-bundle"}

// machineFiles tell about the machine; those that it does not have are left out.
var machineFiles = []string{
	"/etc/os-release", "/proc/version", "/proc/loadavg", "/proc/meminfo", "/proc/swaps", "/proc/mounts", "/proc/diskstats", "/proc/net/dev",
	"/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/self/limits", "/proc/self/status",
}

const bundleReadme = `Support bundle of an ovgate node.

about.json      who made it when, of which node and version; what could not be had, and why
config.yaml     the node's configuration, with defaults
log.txt         the end of the node's log
metrics.txt     what Prometheus is told
api/            what the API answers to its maker: health, nodes, vPools, vDisks, targets, jobs, events, audit log, ...
machine/        files of the operating system
goroutines.txt, heap.pb.gz   what the process does, and where its memory is

No password, token, key or CHAP secret is in it: the API gives none, and the configuration names files.
Names, labels, addresses and users' names are.
`

// aboutBundle is about.json.
type aboutBundle struct {
	Node    string            `json:"node"`
	NodeID  string            `json:"nodeId"`
	Version Version           `json:"version"`
	Started time.Time         `json:"startedAt"`
	Made    time.Time         `json:"madeAt"`
	By      string            `json:"madeBy"`
	Go      string            `json:"go"`
	CPUs    int               `json:"cpus"`
	Missing map[string]string `json:"missing"`
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// getSupportBundle answers with a tar.gz of what helps to find out what is wrong with the
// node. One is made at a time.
func (s *Server) getSupportBundle(c echo.Context) error {
	if !s.bundling.TryLock() {
		return refuse(http.StatusConflict, "busy", "", "wait until it is there", "another support bundle is being made")
	}
	defer s.bundling.Unlock()
	r, now := c.Request(), s.clock.Now().UTC()
	ctx, cancel := context.WithTimeout(r.Context(), bundleTime)
	defer cancel()
	h := c.Response().Header()
	h.Set("Content-Type", "application/gzip")
	name := fmt.Sprintf("ovgate-support-%s-%s", notInNames.ReplaceAllString(s.opt.NodeName, "_"), now.Format("20060102T150405Z"))
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name+".tar.gz"))
	c.Response().WriteHeader(http.StatusOK)
	z := gzip.NewWriter(c.Response())
	b := &bundle{s: s, r: r, name: name, made: now, tar: tar.NewWriter(z), missing: map[string]string{}}
	if err := cmp.Or(b.write(ctx), b.tar.Close(), z.Close()); err != nil {
		s.log.Warn("a support bundle was cut off", "requestId", requestID(c), "err", err)
		panic(http.ErrAbortHandler) // else a part would look like the whole
	}
	return nil
}

// bundle is a support bundle that is being written.
type bundle struct {
	s       *Server
	r       *http.Request // for whom
	name    string        // the folder that all is in
	made    time.Time
	tar     *tar.Writer
	missing map[string]string // name -> why
}

// write writes all files; an error is one of the connection.
func (b *bundle) write(ctx context.Context) error {
	s := b.s
	if err := b.put("README.txt", []byte(bundleReadme)); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		data func() ([]byte, error)
	}{
		{"config.yaml", func() ([]byte, error) { return s.opt.Config, nil }},
		{"log.txt", func() ([]byte, error) { return s.opt.Logged(), nil }},
		{"goroutines.txt", func() ([]byte, error) { return profile("goroutine", 1) }},
		{"heap.pb.gz", func() ([]byte, error) { return profile("heap", 0) }},
		{"metrics.txt", func() ([]byte, error) { return b.metrics(ctx) }},
	} {
		if err := b.part(p.name, p.data); err != nil {
			return err
		}
	}
	for _, f := range machineFiles {
		err := b.part("machine"+f, func() ([]byte, error) { return readMost(f) })
		if err != nil {
			return err
		}
	}
	for _, path := range b.paths() {
		if err := b.list(ctx, path); err != nil {
			return err
		}
	}
	about, err := json.MarshalIndent(aboutBundle{
		Node: s.opt.NodeName, NodeID: s.opt.NodeID, Version: s.opt.Version, Started: s.opt.Started.UTC(), Made: b.made, By: callerOf(b.r.Context()).label(),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Missing: b.missing,
	}, "", "  ")
	if err != nil {
		return err
	}
	return b.put("about.json", append(about, '\n'))
}

// part puts a file in, or remembers why it is not there.
func (b *bundle) part(name string, data func() ([]byte, error)) error {
	d, err := data()
	if err != nil {
		b.missing[name] = err.Error()
		return nil
	}
	return b.put(name, d)
}

func (b *bundle) put(name string, data []byte) error {
	h := &tar.Header{Name: b.name + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.made, Typeflag: tar.TypeReg}
	if err := b.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

// paths are the operations that read and take no parameter of the path, relative to BasePath.
func (b *bundle) paths() []string {
	var out []string
	for _, r := range b.s.echo.Routes() {
		path, ok := strings.CutPrefix(r.Path, BasePath)
		if ok && r.Method == http.MethodGet && !strings.Contains(path, ":") && !slices.Contains(notInBundle, path) {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// list puts in what the API answers, all pages of a list.
func (b *bundle) list(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	cursor := ""
	for page := 1; page <= maxPages; page++ {
		name := "api" + path
		if page > 1 {
			name += fmt.Sprintf("-%d", page)
		}
		body, err := b.ask(ctx, path, cursor)
		if err := b.part(name+".json", func() ([]byte, error) { return body, err }); err != nil {
			return err
		}
		var l struct {
			Next string `json:"next"`
		}
		if err != nil || json.Unmarshal(body, &l) != nil || l.Next == "" {
			return nil
		}
		cursor = l.Next
	}
	b.missing["api"+path] = fmt.Sprintf("it has more than %d pages", maxPages)
	return nil
}

// ask has the server answer a request of the same caller.
func (b *bundle) ask(ctx context.Context, path, cursor string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	target := BasePath + path
	if cursor != "" {
		// A page of a log costs a file of it, however many of its entries are asked for.
		target += fmt.Sprintf("?cursor=%s&limit=%d", url.QueryEscape(cursor), model.MaxPage)
	}
	return b.s.within(ctx, b.r, target, maxPart)
}

func (b *bundle) metrics(ctx context.Context) ([]byte, error) {
	if b.s.opt.Metrics == nil {
		return nil, errors.New("the node has none")
	}
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	return answered(b.s.opt.Metrics, req, maxPart)
}

func profile(name string, debug int) ([]byte, error) {
	var w bytes.Buffer
	err := pprof.Lookup(name).WriteTo(&w, debug)
	return w.Bytes(), err
}

// readMost reads the begin of a file.
func readMost(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPart))
}
