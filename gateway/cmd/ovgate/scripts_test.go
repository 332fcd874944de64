package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openvstorage/ovgate/internal/client"
)

// pattern is the script command of that name. Every fourth run of 64 KiB is data, some
// with zeros in them; one ends at the end.
func pattern(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: pattern FILE SIZE SEED")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(size))
	r := rand.New(rand.NewPCG(seed, 1))
	put := func(off, n int64) {
		p := make([]byte, n)
		for i := range p {
			if i/5000%3 != 1 {
				p[i] = byte(r.Uint32())
			}
		}
		_, err := f.WriteAt(p, off)
		ts.Check(err)
	}
	const run = 64 << 10
	for off := int64(0); off+run <= size; off += run * 4 {
		put(off, run)
	}
	put(max(0, size-700), min(size, 700))
}

// flip is the script command of that name.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: flip DIR FILE OFFSET")
	}
	off, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	found := ""
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && found == "" && strings.Contains(path, args[1]) {
			found = path
		}
		return err
	}))
	b, err := os.ReadFile(found)
	ts.Check(err)
	b[off] ^= 1
	ts.Check(os.WriteFile(found, b, 0o600))
}

// cut is the script command of that name.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cut FILE SIZE")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// begin is the script command of that name.
func begin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: begin NAME VPOOL SIZE")
	}
	size, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	o, err := client.Discover(client.System(), ts.Getenv("OVGATE_DATA"))
	ts.Check(err)
	api, err := client.New(o)
	ts.Check(err)
	ctx := context.Background()
	t, err := client.Get[client.Transfer](api.BeginImport(ctx, nil, client.VDiskInput{Name: args[0], VPool: args[1], Size: size}))
	ts.Check(err)
	write := func(n int) error {
		return client.Done(api.WriteImportWithBody(ctx, t.ID, &client.WriteImportParams{}, "application/octet-stream", strings.NewReader(strings.Repeat("x", n))))
	}
	ts.Check(write(4096))
	var refused *client.APIError
	for n, want := range map[int]int{0: 400, 100: 400, rangeBytes + 512: 413} {
		if err := write(n); !errors.As(err, &refused) || refused.Status != want {
			ts.Fatalf("a range of %d bytes: %v", n, err)
		}
	}
}

// asdUp is the script command asdup.
func asdUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: asdup")
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		c, err := net.Dial("tcp", ts.Getenv("ASD"))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		select {
		case <-limit:
			ts.Fatalf("no device after %s: %v", startLimit, err)
		case <-again.C:
		}
	}
}

// left is the script command of that name: it waits until a device has left the object
// store, having it surveyed meanwhile.
func left(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: left NUMBER")
	}
	n, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	o, err := client.Discover(client.System(), ts.Getenv("NODE"))
	ts.Check(err)
	o.Timeout = startLimit
	api, err := client.New(o)
	ts.Check(err)
	ctx := context.Background()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		_, err := client.Get[client.OSD](api.GetOSD(ctx, n))
		var e *client.APIError
		if errors.As(err, &e) && e.Code == "not_found" {
			return
		}
		ts.Check(err)
		ts.Check(client.Done(api.SurveyAlba(ctx)))
		select {
		case <-limit:
			ts.Fatalf("device %d has not left after %s", n, startLimit)
		case <-again.C:
		}
	}
}

// recovered is the script command of that name: it waits until so many recoveries of
// namespaces ended, none of them with an error.
func recovered(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: recovered COUNT")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	o, err := client.Discover(client.System(), ts.Getenv("NODE"))
	ts.Check(err)
	o.Timeout = startLimit
	api, err := client.New(o)
	ts.Check(err)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		l, err := client.Get[client.JobList](api.ListJobs(context.Background(), &client.ListJobsParams{Q: new("recover-")}))
		ts.Check(err)
		ended := 0
		for _, j := range l.Items {
			if j.Error != nil {
				ts.Fatalf("%s: %s", j.ID, *j.Error)
			}
			if j.EndedAt != nil {
				ended++
			}
		}
		if ended >= want {
			return
		}
		select {
		case <-limit:
			ts.Fatalf("%d recoveries ended after %s, not %d", ended, startLimit, want)
		case <-again.C:
		}
	}
}
