package e2e

import (
	"context"
	"errors"
	"fmt"

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

// click presses the first of what a selector finds, with the mouse, in the middle of what is shown of it.
func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		var at []float64
		err := settling(ctx, func() (err error) {
			at, err = chromedp.Evaluate[[]float64](fmt.Sprintf(waiting, `() => {
				const e = (`+finding(selector)+`)();
				e && e.scrollIntoViewIfNeeded();
				const r = e && e.getClientRects()[0];
				if (!r || !r.width || !r.height) return false;
				const at = [r.left + r.width / 2, r.top + r.height / 2];
				const top = document.elementFromPoint(...at); // a message that covers it goes after a while
				return (!top || !top.closest(".toasts") || e.closest(".toasts")) && at;
			}`), chromedp.EvalAwaitPromise)(ctx, t)
			return err
		})
		if err == nil {
			_, err = chromedp.MouseClickXY(at[0], at[1])(ctx, t)
		}
		return err
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
