import { useEffect, useRef } from "preact/hooks";
import { closeToast, toasts } from "../store/toasts";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { glyphs } from "./StateTag";
import { msg } from "../text";

/** The messages at the bottom right: read out when they come. */
export function Toasts() {
  const ref = useRef<HTMLDivElement>(null);
  const shown = toasts.value;
  useEffect(() => {
    // Shown anew for each message, which puts it above a dialog that has been opened since.
    ref.current?.hidePopover();
    if (shown.length > 0) {
      ref.current?.showPopover();
      document.documentElement.style.setProperty("--toasts", `${ref.current?.offsetHeight ?? 0}px`);
    } else {
      document.documentElement.style.removeProperty("--toasts");
    }
  }, [shown]);
  return (
    <div class="toasts" aria-live="polite" popover="manual" ref={ref}>
      {shown.map((t) => (
        <div key={t.id} class="toast" role={t.tone === "bad" ? "alert" : "status"}>
          <span class={`glyph tone-${t.tone}`} aria-hidden="true">
            {t.tone === "info" ? "i" : glyphs[t.tone]}
          </span>
          <span>{t.text}</span>
          {t.undo && (
            <Button small onClick={t.undo}>
              {msg`Undo`}
            </Button>
          )}
          <Button kind="quiet" small icon label={msg`Close message`} onClick={() => closeToast(t.id)}>
            <Icon name="close" />
          </Button>
        </div>
      ))}
    </div>
  );
}
