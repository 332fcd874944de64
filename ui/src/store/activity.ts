// Whether somebody is at the tab. The node ends sessions that idle, and a tab left open must not keep
// one alive by reading again and again; what the stream brings is shown meanwhile.
import { signal } from "@preact/signals";

/** Somebody who neither moved nor typed for this long may be away. */
const awayMs = 5 * 60_000;

let last = Date.now();

/** Counts returns after an absence, also to a hidden tab. */
export const returned = signal(0);

/** Whether the tab is hidden or nobody has used it for a while. */
export function away(): boolean {
  return document.hidden || Date.now() - last > awayMs;
}

function used(): void {
  const back = Date.now() - last > awayMs;
  last = Date.now();
  if (back) {
    returned.value++;
  }
}

for (const name of ["pointermove", "pointerdown", "keydown", "wheel", "touchstart"]) {
  addEventListener(name, used, { passive: true, capture: true });
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    returned.value++;
  }
});
