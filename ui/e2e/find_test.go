package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/chromedp"
)

// waiting is a promise for the first value of look, in JavaScript, that is not false. It looks when the document changes and,
// since the size of the window or the value of a field may be what is waited for, every 50 ms. chromedp's own queries search
// the whole document from outside, 200 times a second.
const waiting = `new Promise((done, failed) => {
	let watch, again;
	const step = () => {
		try {
			const value = (%s)();
			if (!value) { return }
			done(value);
		} catch (err) { failed(err) }
		watch?.disconnect();
		clearInterval(again);
		watch = null;
		return true;
	};
	if (step()) { return }
	watch = new MutationObserver(step);
	watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
	again = setInterval(step, 50);
})`

// matching are the elements that a selector finds: an XPath when it begins with a slash, otherwise CSS.
const matching = `const what = %q, all = [];
	if (what.startsWith("/")) {
		const found = document.evaluate(what, document, null, XPathResult.ORDERED_NODE_SNAPSHOT_TYPE, null);
		for (let i = 0; i < found.snapshotLength; i++) { all.push(found.snapshotItem(i)) }
	} else {
		all.push(...document.querySelectorAll(what));
	}`

// found promises the first element that a selector finds, once there are some and all have a place on the page.
func found(selector string) string {
	return fmt.Sprintf(waiting, finding(selector))
}

// finding is a function that returns what found promises, or false.
func finding(selector string) string {
	return `() => {` + fmt.Sprintf(matching, selector) + `
		return all.length > 0 && all.every((e) => e.offsetWidth || e.offsetHeight || e.getClientRects().length) && all[0];
	}`
}

// until waits for a JavaScript condition, and beyond the page that it was asked of: a page that is left takes its promises along.
func until(condition string) chromedp.Action[chromedp.Void] {
	return settled(fmt.Sprintf(waiting, `() => Boolean(`+condition+`)`))
}

// visible waits until a selector finds something and all that it finds is visible.
func visible(selector string) chromedp.Action[chromedp.Void] {
	return settled(found(selector) + `.then(() => true)`)
}

// absent waits until a selector finds nothing.
func absent(selector string) chromedp.Action[chromedp.Void] {
	return settled(fmt.Sprintf(waiting, `() => {`+fmt.Sprintf(matching, selector)+`
		return all.length === 0;
	}`))
}

// settled waits for a promise of true, made again when the page goes that made it.
func settled(promise string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		return settling(ctx, func() error {
			_, err := chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)(ctx, t)
			return err
		})
	})
}

// settling asks again when the page went that was asked: the browser refuses then, and a page that fails throws.
func settling(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if gone := (*cdproto.Error)(nil); !errors.As(err, &gone) || ctx.Err() != nil {
			return err
		}
	}
}

// aiming is a function that returns the middle of what is shown of the first element that a selector finds, and keeps the
// events of the mouse from all others until it was asked for missed: an answer that comes meanwhile may move the page.
func aiming(selector string) string {
	return `() => {
		const e = (` + finding(selector) + `)();
		e && e.scrollIntoViewIfNeeded();
		const r = e && e.getClientRects()[0];
		if (!r || !r.width || !r.height || e.ariaDisabled === "true") return false;
		const at = [r.left + r.width / 2, r.top + r.height / 2];
		const top = document.elementFromPoint(...at); // a message that covers it goes after a while
		if (top && top.closest(".toasts") && !e.closest(".toasts")) return false;
		const gone = new AbortController(), aim = {missed: false, gone};
		const meant = (to) => e.contains(to) || e.control === to || [...to.labels ?? []].includes(e);
		for (const what of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"]) {
			addEventListener(what, (event) => {
				if (!event.isTrusted || meant(event.target)) return;
				aim.missed = true;
				event.preventDefault();
				event.stopImmediatePropagation();
			}, {capture: true, signal: gone.signal});
		}
		window.aim = aim;
		return at;
	}`
}

// missed says whether the last click went beside what it was aimed at; a page that was left by it was hit.
const missed = `(() => {
	const aim = window.aim;
	aim?.gone.abort();
	delete window.aim;
	return Boolean(aim?.missed);
})()`

// click presses the first of what a selector finds, with the mouse, in the middle of what is shown of it, where that is when
// the mouse is there.
func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for {
			var at []float64
			err := settling(ctx, func() (err error) {
				at, err = chromedp.Evaluate[[]float64](fmt.Sprintf(waiting, aiming(selector)), chromedp.EvalAwaitPromise)(ctx, t)
				return err
			})
			if err != nil {
				return err
			}
			if _, err := chromedp.MouseClickXY(at[0], at[1])(ctx, t); err != nil {
				return err
			}
			var again bool
			err = settling(ctx, func() (err error) {
				again, err = chromedp.Evaluate[bool](missed)(ctx, t)
				return err
			})
			if err != nil || !again {
				return err
			}
		}
	})
}

// textOf is the text of the first of what a selector finds.
func textOf(selector string) chromedp.Action[string] {
	return chromedp.Evaluate[string](found(selector)+`.then((e) => e.textContent)`, chromedp.EvalAwaitPromise)
}

// fill types over what a field holds, as a user would.
func fill(selector, value string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		settled(found(selector)+`.then((e) => { e.select(); e.focus(); return true })`),
		chromedp.SendKeys(chromedp.JSPath(found(selector)), value),
		holds(selector, value),
	)
}

// TestClick clicks on what does not stay in its place.
func TestClick(t *testing.T) {
	t.Parallel()
	p := openPage(t)
	p.do("a page that moves", chromedp.Navigate(`data:text/html,<body style="margin:0"><p id="room"></p><button id="it">it</button><br><button id="other">other</button>`),
		chromedp.Evaluate[chromedp.Void](`{
			window.pressed = {it: 0, other: 0};
			document.addEventListener("click", (e) => { window.pressed[e.target.id]++ });
			const room = document.getElementById("room"), height = document.getElementById("it").offsetHeight;
			setInterval(() => { room.style.height = room.style.height ? "" : height + "px" }, 7);
		}`))
	for range 50 {
		p.do("click", click(`#it`))
	}
	p.do("hit each time", until(`window.pressed.it === 50 && window.pressed.other === 0`))
}
