import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { capital } from "../format";
import { dockOpen } from "../store/drawers";
import { useRunning } from "../store/reads";
import { Icon } from "./Icon";
import { JobMeter, pace, progress } from "./JobParts";
import { Lazy } from "./Lazy";
import { msg, rich } from "../text";

const load = () => import("../pages/DockLists");

/** The strip at the foot, with what runs, and tasks and events above it while they are wanted. */
export function Dock() {
  const ref = useRef<HTMLElement>(null);
  const open = dockOpen.value;
  useEffect(() => {
    // What is fixed to the lower edge stands above it.
    const resized = new ResizeObserver(() => document.documentElement.style.setProperty("--dock", `${ref.current?.offsetHeight ?? 0}px`));
    if (ref.current) {
      resized.observe(ref.current);
    }
    return () => {
      resized.disconnect();
      document.documentElement.style.removeProperty("--dock");
    };
  }, []);
  // As it is drawn: what is in it takes the focus before effects of this run.
  const before = useRef<Element | null>(null);
  const was = useRef(open);
  if (open && !was.current) {
    before.current = document.activeElement;
  }
  was.current = open;
  useLayoutEffect(() => {
    // What had the focus in it is gone by now.
    const inside = !document.activeElement || document.activeElement === document.body || ref.current?.contains(document.activeElement);
    if (!open && inside && before.current instanceof HTMLElement) {
      before.current.focus();
      before.current = null;
    }
  }, [open]);
  const escape = (event: KeyboardEvent) => {
    const inside = event.target instanceof Element && !event.target.closest("dialog");
    if (event.key === "Escape" && open && inside) {
      event.preventDefault();
      event.stopPropagation();
      dockOpen.value = false;
    }
  };
  return (
    <section id="dock" class="dock" aria-label={msg`Tasks and events`} ref={ref} onKeyDown={escape}>
      {open && (
        <div class="dock-panel">
          <Lazy load={load}>{(m) => <m.DockLists />}</Lazy>
        </div>
      )}
      <Strip />
    </section>
  );
}

/** One task that runs, and how many others do. */
function Strip() {
  const running = useRunning();
  const open = dockOpen.value;
  const { job: j, count } = running.data ?? { job: undefined, count: 0 };
  return (
    <button type="button" class={`strip${j || open ? "" : " hide-phone"}`} aria-expanded={open} aria-controls="dock" onClick={() => (dockOpen.value = !open)}>
      <Icon name="tasks" />
      {running.error ? (
        <span>{msg`Tasks are not known now`}</span>
      ) : j && count > 0 ? (
        <>
          <span class="strip-what">
            <b>{j.object}</b> {capital(j.what)}
          </span>
          <span class="strip-meter">
            <JobMeter job={j} />
          </span>
          <span class="num small hide-phone">{[progress(j), pace(j)].filter(Boolean).join(", ")}</span>
          {count > 1 && <span class="small">{rich`and ${count - 1} more`}</span>}
        </>
      ) : (
        <span>{msg`No task runs`}</span>
      )}
      <span class="spacer" />
      <span aria-hidden="true">{open ? "▾" : "▴"}</span>
    </button>
  );
}
