import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { closePeek, peekOn } from "../store/peek";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { Link } from "./Link";
import { msg } from "../text";

/** Where the panel has no room beside the list and covers it, as the shell's phone layout begins. */
const narrow = matchMedia("(max-width: 820px)");

type Props = { id: string; title: string; /** Its page, where it has one. */ to?: string; state?: ComponentChildren; children: ComponentChildren };

/** One row of a list beside it: what it is, without leaving the list. On a phone it covers the page. */
export function Peek({ id, title, to, state, children }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const row = useRef(id);
  row.current = id;
  const [covers, setCovers] = useState(narrow.matches);
  useEffect(() => {
    const change = () => setCovers(narrow.matches);
    narrow.addEventListener("change", change);
    return () => narrow.removeEventListener("change", change);
  }, []);
  const before = useRef(document.activeElement);
  useLayoutEffect(() => {
    const element = ref.current;
    if (covers) {
      element?.showModal();
    } else {
      element?.show();
    }
    element?.focus({ preventScroll: true });
    return () => {
      const inside = !document.activeElement || document.activeElement === document.body || element?.contains(document.activeElement);
      element?.close();
      if (inside) {
        back(row.current, before.current);
      }
    };
  }, [covers]);
  useEffect(() => {
    // Also where single keys are turned off; what lies above it is closed first.
    const escape = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
      if (event.key === "Escape" && !typing && !document.querySelector("dialog[open]:not(.peek), .menu:popover-open")) {
        event.preventDefault();
        closePeek();
      }
    };
    addEventListener("keydown", escape);
    return () => removeEventListener("keydown", escape);
  }, []);
  return (
    <dialog ref={ref} class="peek" aria-labelledby="peek-title" tabIndex={-1} onCancel={(event) => event.preventDefault()}>
      <div class="peek-head">
        <h2 id="peek-title" aria-live="polite">
          {title}
        </h2>
        <Button kind="quiet" small icon label={msg`Row before`} onClick={() => peekOn(-1)}>
          ↑
        </Button>
        <Button kind="quiet" small icon label={msg`Next row`} onClick={() => peekOn(1)}>
          ↓
        </Button>
        <Button kind="quiet" small icon label={msg`Close`} onClick={closePeek}>
          <Icon name="close" />
        </Button>
        <div class="peek-state">
          {state}
          <span class="spacer" />
          {to && (
            <Link class="btn small" to={to}>
              {msg`Open`}
            </Link>
          )}
        </div>
      </div>
      <div class="peek-body stack-wide">{children}</div>
    </dialog>
  );
}

/** Gives the focus back to where it was, if that is in the row that was shown last, or to that row. */
function back(id: string, before: Element | null): void {
  const row = [...document.querySelectorAll<HTMLElement>("main tr[data-peek]")].find((r) => r.dataset.peek === id);
  const to = before instanceof HTMLElement && row?.contains(before) ? before : row?.querySelector<HTMLElement>("td a");
  to?.focus();
}
