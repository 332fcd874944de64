// What is open beside the page: it stays open from page to page.
import { signal } from "@preact/signals";

/** Whether tasks and events are shown above the strip at the foot. */
export const dockOpen = signal(false);

const narrowPlace = "ovgate.navigation";

/** Whether the navigation has icons alone; remembered in this browser. */
export const narrow = signal(localStorage.getItem(narrowPlace) === "narrow");

export function setNarrow(on: boolean): void {
  narrow.value = on;
  localStorage.setItem(narrowPlace, on ? "narrow" : "wide");
}

/** Whether what is wrong is shown beside the page. */
export const healthOpen = signal(false);
