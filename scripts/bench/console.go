package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// needConsole is the free space that the set console asks for.
	needConsole = 8 << 30
	// streams are event streams at a time, and streamed the vDisks that change each second: each
	// stream has their events, now and then one less as they are at least a second apart, and one
	// of the node's metrics. They have to be streamRate in a second at least.
	streams, streamed, streamRate = 500, 4, 4
	// streamSettle is how long what was begun is left alone before it is measured, streamWatch how
	// long that takes.
	streamSettle, streamWatch = 10 * time.Second, 30 * time.Second
	// listCalls is how often each list is asked for, and pageLoads how often a page is opened.
	listCalls, pageLoads = 50, 7
	// consolePassword is that of the user who signs in to the console.
	consolePassword = "correct horse"
)

// consoleRows are the rows of the set console.
var consoleRows = []goRow{
	{name: "500 event streams of 4 events/s, CPU", metric: "%core-streams", unit: "1/1000 %", scale: 1000, limit: 30_000, goal: 1, config: streamConfig},
	{name: "500 event streams of 4 events/s, memory", metric: "MiB-streams", unit: "KiB", scale: 1024, limit: 64 << 10, goal: 1, config: streamConfig},
	{name: "first page of 10000 vdisks, p99", metric: "ms-page", unit: "us", scale: 1000, limit: 500_000, goal: 1, config: listConfig},
	{name: "filtered page of 10000 vdisks, p99", metric: "ms-filter", unit: "us", scale: 1000, limit: 500_000, goal: 1, config: listConfig},
	{name: "page of 10000 vdisks by size, p99", metric: "ms-sort", unit: "us", scale: 1000, limit: 500_000, goal: 1, config: listConfig},
	{name: "first page of 10000 vdisks, size", metric: "KiB-page", unit: "KiB", scale: 1, limit: 256, goal: 1, config: listConfig},
	{name: "browser, first table row of 10000 vdisks", metric: "ms-row", unit: "ms", scale: 1, limit: 500, goal: 1, config: browserConfig},
	{name: "browser, overview interactive", metric: "ms-overview", unit: "ms", scale: 1, limit: 1000, goal: 1, config: browserConfig},
	{name: "browser, scripts and styles of the first load", metric: "B-first", unit: "B", scale: 1, limit: 90_000, goal: 1, config: firstConfig},
}

const (
	streamConfig  = "ovgate serve, clients of this process with a TLS connection and HTTP/2 each, four vDisks that change each second and the node's metrics, together above 4 events/s, all delivered; CPU time and resident memory of the server above those with the same changes and no stream"
	listConfig    = "ovgate serve, 10,000 vDisks of 1 GiB that nobody uses, TLS, pages of 100, 50 requests one after the other"
	browserConfig = "the node with 10,000 vDisks, chromium without a window, from the begin of the navigation, signed in, caches filled, median of 7"
	firstConfig   = "chromium without a window, with an empty cache, signed in, the overview drawn with its charts: the scripts and style sheets that it asked for, compressed as they were sent, without fonts"
)

// measureConsole measures what the console costs, and how fast it is with many vDisks.
func measureConsole(ctx context.Context, dir string, r *results) (err error) {
	r.console = map[string]float64{}
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return err
	}
	n, err := node.New(node.Options{Bin: bin, Data: filepath.Join(dir, "console")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := n.CreateVPool(ctx, "idle", filepath.Join(dir, "console-backend")); err != nil {
		return err
	}
	opts, err := client.Discover(client.System(), n.Data())
	if err != nil {
		return err
	}
	fmt.Printf("bench: %d event streams\n", streams)
	if err := measureStreams(ctx, n, opts, r.console); err != nil {
		return err
	}
	fmt.Printf("bench: the console with %d vDisks\n", idleDisks)
	if err := makeIdle(ctx, n); err != nil {
		return err
	}
	if err := measureLists(ctx, opts, r.console); err != nil {
		return err
	}
	return measureBrowser(ctx, n, opts, r.console)
}

// measureStreams compares the server with streams to the same without any.
func measureStreams(ctx context.Context, n *node.Node, opts client.Options, out map[string]float64) error {
	api, err := n.API()
	if err != nil {
		return err
	}
	for i := range streamed {
		if err := client.Done(api.CreateVDisk(ctx, nil, client.VDiskInput{Name: fmt.Sprint("changing", i), VPool: "idle", Size: 1 << 30})); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	failed := make(chan error, streams+1)
	wg.Go(func() { failed <- keepChanging(ctx, api) })
	without, before, err := load(ctx, n.PID())
	if err != nil {
		return err
	}
	var events atomic.Int64
	open := make(chan struct{}, streams)
	for range streams {
		wg.Go(func() { failed <- listen(ctx, opts, open, &events) })
	}
	for range streams {
		select {
		case <-open:
		case err := <-failed:
			return err
		}
	}
	if err := pause(ctx, streamSettle); err != nil {
		return err
	}
	first, began := events.Load(), time.Now()
	with, after, err := load(ctx, n.PID())
	if err != nil {
		return err
	}
	rate := float64(events.Load()-first) / time.Since(began).Seconds() / streams
	select {
	case err := <-failed:
		return fmt.Errorf("a stream ended: %w", err)
	default:
	}
	fmt.Printf("  %.2f events/s on each stream; CPU %.2f %% without and %.2f %% with them, %.1f and %.1f MiB\n", rate, without, with, before, after)
	if rate < streamRate {
		return fmt.Errorf("a stream has %.2f events/s, not %d: the machine is too busy", rate, streamRate)
	}
	out["%core-streams"], out["MiB-streams"] = with-without, after-before
	return nil
}

// load returns the CPU time that a process takes for a while, in percent of a core, and its resident
// memory at the end of it, in MiB.
func load(ctx context.Context, pid int) (cpu, memory float64, err error) {
	if err := pause(ctx, streamSettle); err != nil {
		return 0, 0, err
	}
	used, err := processTime(pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := pause(ctx, streamWatch); err != nil {
		return 0, 0, err
	}
	now, err := processTime(pid)
	if err != nil {
		return 0, 0, err
	}
	memory, err = resident(pid)
	return 100 * (now - used) / time.Since(began).Seconds(), memory, err
}

// keepChanging changes each vDisk once a second until ctx ends.
func keepChanging(ctx context.Context, api *client.Client) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		for i := range streamed {
			labels := client.Labels{"n": fmt.Sprint(n)}
			if err := client.Done(api.UpdateVDisk(ctx, fmt.Sprint("changing", i), client.VDiskPatch{Labels: &labels})); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// listen is one client: it has a connection of its own, and reads until ctx ends.
func listen(ctx context.Context, opts client.Options, open chan<- struct{}, events *atomic.Int64) error {
	tr := transport(opts)
	defer tr.CloseIdleConnections()
	res, err := get(ctx, &http.Client{Transport: tr}, opts, "/events?topics=vdisk,metrics")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	open <- struct{}{}
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		case bytes.HasPrefix(line, []byte("event: ")):
			if bytes.HasPrefix(line, []byte("event: reset")) {
				return errors.New("events were lost")
			}
			events.Add(1)
		}
	}
}

func transport(opts client.Options) *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(opts.CA)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
}

// get asks for a path of the API and takes nothing but a success.
func get(ctx context.Context, c *http.Client, opts client.Options, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(opts.URL, "/")+"/api/v1"+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+opts.Token)
	res, err := c.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", path, res.Status), res.Body.Close())
	}
	return res, err
}

// measureLists asks for pages of the vDisks.
func measureLists(ctx context.Context, opts client.Options, out map[string]float64) error {
	tr := transport(opts)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	for metric, query := range map[string]string{"ms-page": "", "ms-filter": "?q=idle99&vpool=idle", "ms-sort": "?sort=-size"} {
		var took []float64
		for range listCalls {
			began := time.Now()
			res, err := get(ctx, c, opts, "/vdisks"+query)
			if err != nil {
				return err
			}
			var text bytes.Buffer
			_, err = text.ReadFrom(res.Body)
			took = append(took, float64(time.Since(began).Microseconds())/1000)
			var l client.VDiskList
			if err := errors.Join(err, res.Body.Close(), json.Unmarshal(text.Bytes(), &l)); err != nil {
				return err
			}
			if len(l.Items) != 100 || l.Next == nil {
				return fmt.Errorf("vdisks%s: %d of them", query, len(l.Items))
			}
			if metric == "ms-page" {
				out["KiB-page"] = float64(text.Len()) / 1024
			}
		}
		slices.Sort(took)
		out[metric] = took[len(took)*99/100]
		fmt.Printf("  vdisks%s: p50 %.1f ms, p99 %.1f ms\n", query, took[len(took)/2], out[metric])
	}
	return nil
}

// there answers the ms since the navigation began as soon as something is on the page; what is there
// already when it is asked counts with the time of asking, which is later.
const there = `new Promise(done => {
	const look = () => document.querySelector(%q) && done(performance.now());
	look();
	new MutationObserver(look).observe(document, {childList: true, subtree: true});
})`

// openings opens a page some times and returns how long it took until something was there, sorted.
func openings(tab context.Context, url, selector string) ([]float64, error) {
	var took []float64
	for i := range pageLoads + 1 {
		if err := chromedp.Do(tab, chromedp.Navigate(url)); err != nil {
			return nil, err
		}
		ms, err := chromedp.Run(tab, chromedp.Evaluate[float64](fmt.Sprintf(there, selector), chromedp.EvalAwaitPromise))
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first fills the caches
			took = append(took, ms)
		}
	}
	slices.Sort(took)
	return took, nil
}

// measureBrowser opens pages in chromium, where it is installed.
func measureBrowser(ctx context.Context, n *node.Node, opts client.Options, out map[string]float64) error {
	path, err := exec.LookPath("chromium-headless-shell") // without a window, as in the tests
	if err != nil {
		fmt.Println("bench: no chromium-headless-shell in PATH, no rows of the browser: scripts/setup.sh installs it")
		return nil
	}
	api, err := n.API()
	if err != nil {
		return err
	}
	if err := client.Done(api.CreateUser(ctx, nil, client.UserInput{Name: "anna", Role: client.RoleOrNoneManage, Password: consolePassword})); err != nil {
		return err
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(ctx, chromedp.ExecPath(path), chromedp.UserDataDir(n.Data()+".browser"), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.IgnoreCertErrors, chromedp.WindowSize(1440, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true))
	defer stopAlloc()
	tab, stopTab := chromedp.NewContext(alloc)
	defer stopTab()
	base := strings.TrimSuffix(opts.URL, "/")
	signIn := fmt.Sprintf(`fetch("/api/v1/session", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"user":"anna","password":%q}'}).then(r => r.status)`, consolePassword)
	if err := chromedp.Do(tab, chromedp.Navigate(base+"/")); err != nil {
		return err
	}
	if status, err := chromedp.Run(tab, chromedp.Evaluate[int](signIn, chromedp.EvalAwaitPromise)); err != nil || status != http.StatusOK {
		return fmt.Errorf("sign-in: %d: %w", status, err)
	}
	if out["B-first"], err = firstLoad(tab, base+"/"); err != nil {
		return fmt.Errorf("first load: %w", err)
	}
	fmt.Printf("  first load: %.0f bytes of scripts and styles\n", out["B-first"])
	for _, p := range []struct{ metric, path, there string }{
		{"ms-row", "/vdisks", "tbody tr a"},
		{"ms-overview", "/", "[data-testid=iops]"},
	} {
		took, err := openings(tab, base+p.path, p.there)
		if err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
		out[p.metric] = took[len(took)/2]
		fmt.Printf("  %s in the browser: %.0f ms, %.0f to %.0f\n", p.path, out[p.metric], took[0], took[len(took)-1])
	}
	return nil
}

// firstLoad opens the overview past the browser's cache and returns the bytes of its scripts and styles, as they were sent.
func firstLoad(tab context.Context, url string) (float64, error) {
	cache := func(off bool) error {
		_, err := chromedp.Call(tab, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: off})
		return err
	}
	if err := cache(true); err != nil {
		return 0, err
	}
	const sent = `performance.getEntriesByType("resource").filter((e) => /\.(js|css)$/.test(new URL(e.name).pathname)).reduce((sum, e) => sum + e.encodedBodySize, 0)`
	if err := chromedp.Do(tab, chromedp.Navigate(url), chromedp.WaitVisible(".uplot")); err != nil {
		return 0, err
	}
	bytes, err := chromedp.Run(tab, chromedp.Evaluate[float64](sent))
	if err == nil && bytes == 0 {
		err = errors.New("no script and no style was loaded")
	}
	return bytes, errors.Join(err, cache(false))
}
