import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";

/** Between the button and what it opens, and between that and the edge of the window, px. */
const gap = 4;
const edge = 12;

/** Least room below the button for which it opens there, px; above it, it takes what there is. */
const roomLeast = 240;

type Props = {
  /** Classes of the button, and its content. */
  class: string;
  text: ComponentChildren;
  label?: string;
  haspopup: "menu" | "dialog";
  /** Classes of the panel beside "menu". */
  panel?: string;
  /** Called with the button once the panel is there, and for arrow keys on the button that opened it. */
  opened?: (last: boolean) => void;
  /** The panel's content, made while it is open; close returns the focus to the button. */
  children: (close: () => void) => ComponentChildren;
  content: RefObject<HTMLDivElement | null>;
};

/** A button with a panel that stands at it, above all else; Escape and a click elsewhere close it (popover API). */
export function Anchored({ class: classes, text, label, haspopup, panel, opened, children, content }: Props) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  // Which opening it is, 0 while it is closed.
  const [open, setOpen] = useState(0);
  const openings = useRef(0);
  const last = useRef(false);
  const close = () => {
    content.current?.hidePopover();
    button.current?.focus();
  };
  useLayoutEffect(() => {
    if (open > 0) {
      place(button.current, content.current);
      opened?.(last.current);
      last.current = false;
    }
  }, [open]);
  useEffect(() => {
    if (open === 0) {
      return;
    }
    const again = () => place(button.current, content.current);
    addEventListener("scroll", again, true);
    addEventListener("resize", again);
    return () => {
      removeEventListener("scroll", again, true);
      removeEventListener("resize", again);
    };
  }, [open]);
  return (
    <>
      <button
        ref={button}
        type="button"
        class={classes}
        popovertarget={id}
        aria-label={label}
        aria-haspopup={haspopup}
        aria-expanded={open > 0}
        onClick={(event) => {
          // The browser would open it before there is something inside to be measured.
          event.preventDefault();
          content.current?.togglePopover();
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            event.preventDefault();
            last.current = event.key === "ArrowUp";
            content.current?.showPopover();
          }
        }}
      >
        {text}
      </button>
      {/* What is inside goes after the browser has given the focus back to the button: from inside, it gives it back. */}
      <div
        id={id}
        class={`menu anchored ${panel ?? ""}`}
        popover="auto"
        role={open > 0 && haspopup === "dialog" ? "dialog" : undefined}
        aria-label={open > 0 && haspopup === "dialog" ? label : undefined}
        ref={content}
        onBeforeToggle={(event) => event.newState === "open" && setOpen(++openings.current)}
        onToggle={(event) => event.newState === "closed" && setOpen(0)}
      >
        {open > 0 && children(close)}
      </div>
    </>
  );
}

/** Puts a panel at a button: below it where there is room, its right edge under the button's where it would not fit else. */
function place(button: HTMLElement | null, panel: HTMLElement | null): void {
  if (!button || !panel) {
    return;
  }
  const at = button.getBoundingClientRect();
  const below = innerHeight - at.bottom - gap - edge;
  const above = at.top - gap - edge;
  const up = below < roomLeast && above > below;
  const style = panel.style;
  style.setProperty("top", up ? "auto" : `${at.bottom + gap}px`);
  style.setProperty("bottom", up ? `${innerHeight - at.top + gap}px` : "auto");
  style.setProperty("max-height", `${Math.max(up ? above : below, 2 * edge)}px`);
  const width = panel.offsetWidth;
  const left = at.left + width + edge <= innerWidth ? at.left : at.right - width;
  style.setProperty("left", `${Math.max(edge, Math.min(left, innerWidth - width - edge))}px`);
}
