// What is open beside the page: it stays open from page to page.
import { signal } from "@preact/signals";

/** Whether tasks and events are shown above the strip at the foot. */
export const dockOpen = signal(false);

/** Whether what is wrong is shown beside the page. */
export const healthOpen = signal(false);
