package e2e

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// flowLimit bounds one test, also beside another one on a busy machine.
const flowLimit = 10 * time.Minute

// stepLimit bounds one step, so that a step that hangs leaves time for a picture of the page.
const stepLimit = 2 * time.Minute

// browserTries is how often a browser is started before a test fails: under load it may end
// before it is there.
const browserTries = 3

//go:embed testdata/axe.min.js
var axe string

// axeRules are the tags of WCAG 2.2 A and AA. 2.2 added no rule of level A that a program can check.
const axeRules = `["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa"]`

// page is one tab, with cookies and storage of its own.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	messages []string // console warnings, errors and exceptions
	audited  bool     // axe looked at all of a page
	english  string   // JSON, the texts that are to be in the other language (foreign)
	refusals []string // paths whose next refusal the flow provoked: the browser reports those too
	late     []asked  // what may be asked for once too often
}

// asked is an answer of the node: its status, and a part of the path.
type asked struct {
	status int
	path   string
}

// browsers is the browser of all tests of the package. A browser that ended is not started again under a test, only for the next.
var browsers struct {
	mu   sync.Mutex
	ctx  context.Context // nil before the first, done when it ended
	stop func()          // waits until it ended
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browsers.stop != nil {
		browsers.stop()
	}
	os.Exit(code)
}

// chromium finds the browser: the one without a window, which costs a fifth less, or a whole one. Without one the test fails where it must run (CI, or E2E=required)
// and is skipped elsewhere.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const remedy = "no chromium in PATH: run scripts/setup.sh, or apt-get install chromium"
	if os.Getenv("CI") != "" || os.Getenv("E2E") == "required" {
		t.Fatal(remedy)
	}
	t.Skip(remedy)
	return ""
}

// openPage opens a page in a browser that talks to nobody but the page's server.
func openPage(t *testing.T) *page {
	t.Helper()
	return openPageFor(t, flowLimit)
}

// openPageFor is openPage for a test with another limit.
func openPageFor(t *testing.T, limit time.Duration) *page {
	t.Helper()
	ctx, stopTab := chromedp.NewContext(theBrowser(t), chromedp.WithNewBrowserContext())
	ctx, stopTime := context.WithTimeout(ctx, limit)
	p := &page{t: t, ctx: ctx}
	stop := func() {
		stopTime()
		stopTab()
	}
	// Several pages may be open: each is to believe that it is the one in front.
	if _, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}); err != nil {
		stop()
		t.Fatalf("open a page: %v", err)
	}
	read := p.listen()
	t.Cleanup(func() {
		stop()
		<-read
	})
	return p
}

// theBrowser is the browser of the package, started when there is none.
func theBrowser(t *testing.T) context.Context {
	t.Helper()
	path := chromium(t)
	browsers.mu.Lock()
	defer browsers.mu.Unlock()
	if browsers.ctx != nil && browsers.ctx.Err() == nil {
		return browsers.ctx
	}
	if browsers.stop != nil {
		browsers.stop()
		browsers.stop = nil
	}
	for try := 1; ; try++ {
		ctx, stop, err := startBrowser(path)
		if err == nil {
			browsers.ctx, browsers.stop = ctx, stop
			return ctx
		}
		if try == browserTries {
			t.Fatal(err)
		}
		t.Log(err) // its own trouble, before it has seen anything of ours
	}
}

// startBrowser starts a browser. A context of chromedp does not outlive a browser that did not come up.
func startBrowser(path string) (context.Context, func(), error) {
	dir, err := os.MkdirTemp("", "ovgate-browser-")
	if err != nil {
		return nil, nil, err
	}
	var said bytes.Buffer
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.CombinedOutput(&said),
		chromedp.UserDataDir(dir),
		chromedp.Headless,
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.IgnoreCertErrors,
		chromedp.WindowSize(1440, 900),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("force-prefers-reduced-motion", true),
	)
	ctx, stopTab := chromedp.NewContext(alloc)
	stop := func() {
		stopTab()
		stopAlloc() // waits until it ended
		_ = os.RemoveAll(dir)
	}
	timer := time.AfterFunc(startLimit, stopTab)
	err = chromedp.Do(ctx)
	if !timer.Stop() || err != nil {
		stop()
		return nil, nil, fmt.Errorf("the browser did not start within %s: %w\n%s", startLimit, err, said.String())
	}
	return ctx, stop, nil
}

// listen collects what a user with an open console would see as trouble.
func (p *page) listen() <-chan struct{} {
	console, done := chromedp.Console(p.ctx), make(chan struct{})
	harmless := []chromedp.ConsoleType{chromedp.ConsoleLog, chromedp.ConsoleInfo, chromedp.ConsoleDebug}
	go func() {
		defer close(done)
		for m, err := range console {
			if err != nil {
				return
			}
			if !slices.Contains(harmless, m.Type) {
				p.mu.Lock()
				p.messages = append(p.messages, string(m.Type)+": "+m.Text+" "+m.URL)
				p.mu.Unlock()
			}
		}
	}()
	return done
}

// provokes says that the flow makes the node refuse one request to path.
func (p *page) provokes(path string) {
	p.refusals = append(p.refusals, path)
}

// mayAskLate says that the flow takes away what is at path, or the right to it, while the page shows it: until the page has heard
// of that, the node may answer it with status.
func (p *page) mayAskLate(status int, path string) {
	p.late = append(p.late, asked{status, path})
}

// noConsoleErrors fails for each message but the reports of provoked refusals.
func (p *page) noConsoleErrors() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		if slices.ContainsFunc(p.late, func(l asked) bool {
			return strings.Contains(m, fmt.Sprintf("status of %d ", l.status)) && strings.Contains(m, l.path)
		}) {
			continue
		}
		provoked := slices.IndexFunc(p.refusals, func(path string) bool {
			refused := strings.Contains(m, "status of 4") || strings.Contains(m, "status of 503")
			return refused && strings.HasSuffix(m, path)
		})
		if provoked < 0 {
			p.t.Errorf("console: %s", m)
			continue
		}
		p.refusals = slices.Delete(p.refusals, provoked, provoked+1)
	}
}

// nodeWasAway drops the browser's own reports of requests that reached nobody; exceptions stay.
func (p *page) nodeWasAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = slices.DeleteFunc(p.messages, func(m string) bool {
		return strings.HasPrefix(m, "error: Failed to load resource: net::ERR_")
	})
}

// do runs actions as one step; the first that fails ends the test with a picture of the page.
func (p *page) do(step string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.within(stepLimit, step, actions...)
}

// within is do for what takes longer than a page does.
func (p *page) within(limit time.Duration, step string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	start := time.Now()
	ctx, stop := context.WithTimeout(p.ctx, limit)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.shot(failedShot)
		p.noConsoleErrors()
		ctx, stop := context.WithTimeout(p.ctx, 5*time.Second)
		defer stop()
		at, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + ", the focus on " + document.activeElement?.outerHTML.slice(0, 400) +
			", open: " + [...document.querySelectorAll("dialog[open], :popover-open")].map((e) => e.outerHTML.slice(0, 400)).join(" and ")`))
		p.t.Fatalf("%s: %v, at %s", step, err, at)
	}
	p.t.Logf("%-44s %5d ms", step, time.Since(start).Milliseconds())
}

// text returns the text of the first element that matches.
func (p *page) text(selector string) string {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, stepLimit)
	defer stop()
	text, err := chromedp.Run(ctx, textOf(selector))
	if err != nil {
		p.shot(failedShot)
		p.t.Fatalf("text of %s: %v", selector, err)
	}
	return text
}

// audit fails for each violation of WCAG A and AA that axe finds in the present state of the page. Once for each page it
// looks at all of it, and then at what is open over it, or else at what is not the same on all pages. In the full matrix it
// always looks at all.
func (p *page) audit(state string) {
	p.t.Helper()
	p.axe(state, axeRules)
}

// contrast is audit for a page that was looked at in the other theme, from which its colours alone differ.
func (p *page) contrast(state string) {
	p.t.Helper()
	p.axe(state, `{type: "rule", values: ["color-contrast"]}`)
}

// axe runs rules of axe, which is sent to a document once.
func (p *page) axe(state, rules string) {
	p.t.Helper()
	start := time.Now()
	there, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`Boolean(window.axe)`))
	if err == nil && !there {
		err = chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](axe+`;0`))
	}
	if err != nil {
		p.t.Fatalf("%s: load axe: %v", state, err)
	}
	// From the top, and with the strip at the foot of the page: a button that is half below the bar or the strip is no
	// smaller than others.
	report, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(() => {
		scrollTo(0, 0);
		const dock = document.querySelector(".dock");
		dock?.style.setProperty("position", "static");
		const all = (selector) => [...document.querySelectorAll(selector)];
		const over = all("dialog[open], :popover-open:not(.toasts)"); // that one is open while it is empty, too
		const at = `+strconv.FormatBool(p.audited && !fullMatrix())+` ? {include: [...(over.length ? over : all("main")), ...all(".toast")]} : document;
		return axe.run(at.include?.length === 0 ? document : at, {resultTypes: ["violations"], runOnly: `+rules+`}).then((r) => {
			dock?.style.removeProperty("position");
			return JSON.stringify({passed: r.passes.length, at: (at.include ?? [document.body]).map((e) => e.outerHTML.slice(0, 2000)), violations: r.violations.map((v) =>
				({id: v.id, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " :: " + n.failureSummary)}))});
		});
	})()`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: run axe: %v", state, err)
	}
	var result struct {
		Passed     int
		At         []string // what it looked at
		Violations []struct {
			ID    string
			Nodes []string
		}
	}
	if err := json.Unmarshal([]byte(report), &result); err != nil {
		p.t.Fatal(err)
	}
	p.audited = true
	if result.Passed == 0 {
		p.t.Errorf("%s: axe checked nothing in %q", state, result.At)
	}
	for _, v := range result.Violations {
		p.t.Errorf("%s: axe rule %s: %q", state, v.ID, v.Nodes)
	}
	p.t.Logf("axe on %-37s %5d ms, %d rules passed", state, time.Since(start).Milliseconds(), result.Passed)
}

// failedShot is the picture of a page at which a test failed.
const failedShot = "failed"

// shot keeps a picture of the page in the folder SHOTS, or with the test's artifacts. Where neither is kept, only one of a
// failure is taken: a picture takes a tenth of a second and more.
func (p *page) shot(name string) {
	p.t.Helper()
	if kept := flag.Lookup("test.artifacts"); os.Getenv("SHOTS") == "" && name != failedShot && (kept == nil || kept.Value.String() != "true") {
		return
	}
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Logf("picture %s: %v", name, err)
		return
	}
	dir := os.Getenv("SHOTS")
	if dir == "" {
		dir = p.t.ArtifactDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		p.t.Errorf("picture %s: %v", name, err)
	}
}

// to goes to another address within the console, as a link does: the page is not loaded again.
func to(path string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`history.pushState(null, "", %q); dispatchEvent(new PopStateEvent("popstate"))`, path))
}

// signedIn gives a page the window of a desktop and the session of a user, as TestFirstHour gets them at the sign-in.
func signedIn(n *testNode, user string) chromedp.Action[chromedp.Void] {
	n.t.Helper()
	var cookies []*network.CookieParam
	for _, c := range n.session(user) {
		cookies = append(cookies, &network.CookieParam{Name: c.Name, Value: c.Value, URL: n.url + "/", HTTPOnly: c.HttpOnly, Secure: c.Secure, SameSite: network.CookieSameSiteStrict})
	}
	return chromedp.Steps(chromedp.EmulateViewport(1440, 900), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, network.SetCookies, network.SetCookiesParams{Cookies: cookies})
		return err
	}))
}

// saveTo has the browser save downloads in a folder.
func saveTo(dir string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
			Behavior: browser.SetDownloadBehaviorBehaviorAllow, BrowserContextID: chromedp.FromContext(ctx).BrowserContextID, DownloadPath: dir})
		return err
	})
}

// arrives waits for a download. The browser takes its name with an empty file, which the whole one replaces.
func arrives(dir, pattern string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(name string) bool { info, err := os.Stat(name); return err == nil && info.Size() > 0 }) {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("no %s in %s: %w", pattern, dir, ctx.Err())
			case <-again.C:
			}
		}
	})
}

// holds fails if a field does not hold what was typed into it. After Enter it may be gone.
func holds(selector, value string) chromedp.Action[chromedp.Void] {
	if strings.HasSuffix(value, "\r") {
		return chromedp.Steps()
	}
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		look := fmt.Sprintf("((e) => e ? e.value + (e === document.activeElement ? '' : ' (focus is at ' + document.activeElement?.outerHTML?.slice(0, 200) + ')') : 'not there')(document.querySelector(%q))", selector)
		got, err := chromedp.Evaluate[string](look)(ctx, t)
		if err == nil && got != value {
			err = fmt.Errorf("typed %q into %s, which has %q", value, selector, got)
		}
		return err
	})
}

// choose sets a choice, as a person's click on an option does, once it is offered.
func choose(selector, value string) chromedp.Action[chromedp.Void] {
	set := fmt.Sprintf("{const e = document.querySelector(%q); e.value = %q; e.dispatchEvent(new Event('change', {bubbles: true}))}", selector, value)
	offered := fmt.Sprintf("[...(document.querySelector(%q)?.options ?? [])].some((o) => o.value === %q)", selector, value)
	return chromedp.Steps(visible(selector), until(offered), chromedp.Evaluate[chromedp.Void](set))
}

// fromMenu does an action of the page that is in the menu More, once it may be done.
func fromMenu(action string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(click(`//button[@aria-label="More actions"]`), click(fmt.Sprintf(`//*[@role="menuitem"][.=%q][not(@aria-disabled)]`, action)))
}
