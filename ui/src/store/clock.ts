// The time that ages on the page are counted from, so that all of them move together.
import { signal } from "@preact/signals";

/** Now in ms since 1970, renewed every second while the tab is visible. */
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) {
    now.value = Date.now();
  }
}, 1000);
