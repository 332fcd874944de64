// Keys of one letter: off while somebody types or a dialog is open, and off for good where they are not wanted.
import { signal } from "@preact/signals";
import { navigate, query } from "../router";
import { closePeek, peekAt, peekOn } from "./peek";
import { reload } from "./query";
import { msg } from "../text";

const place = "ovgate.keys";

/** Whether single keys do something; remembered in this browser. */
export const keysOn = signal(localStorage.getItem(place) !== "off");

export function setKeys(on: boolean): void {
  keysOn.value = on;
  localStorage.setItem(place, on ? "on" : "off");
}

/** Where g and another key lead. */
export const places: Record<string, [to: string, text: string]> = {
  o: ["/", msg`Overview`],
  v: ["/vdisks", msg`vDisks`],
  p: ["/vpools", msg`vPools`],
  i: ["/iscsi", msg`iSCSI`],
  b: ["/backends", msg`Backends`],
  d: ["/disks", msg`Disks`],
  n: ["/nodes", msg`Nodes`],
  t: ["/tasks", msg`Tasks`],
  e: ["/events", msg`Events`],
};

/** g was pressed, and the next key says where to. */
let pair = false;

/** Does what a key stands for, and says whether it stands for something; help shows what there is. */
export function pressed(event: KeyboardEvent, help: () => void): boolean {
  const second = pair ? places[event.key] : undefined;
  pair = false;
  const at = event.target instanceof Element ? event.target : document.body;
  const typing = at.matches("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  if (!keysOn.value || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]:not(.peek), .menu:popover-open")) {
    return false;
  }
  if (second) {
    navigate(second[0]);
    return true;
  }
  switch (event.key) {
    case "g":
      pair = true;
      return true;
    case "/":
      return focus(document.querySelector<HTMLElement>("main input[type=search]"));
    case "j":
      return go(1);
    case "k":
      return go(-1);
    case "x":
      return press(at.closest("main tbody tr")?.querySelector<HTMLElement>("input[type=checkbox]"));
    case " ":
      return look(at);
    case "c":
      return press(document.querySelector<HTMLElement>("main .page-head .btn.primary"));
    case "r":
      reload("");
      return true;
    case "?":
      help();
      return true;
    default:
      return false;
  }
}

/** To another row, or to a look at it while one is looked at. */
function go(step: number): boolean {
  if (!query.peek().has("peek")) {
    return focus(row(step));
  }
  peekOn(step);
  return true;
}

/** Looks at the row that has the focus, or no more. Whatever the space bar presses is left to the browser. */
function look(at: Element): boolean {
  if (at.matches("dialog.peek")) {
    closePeek();
    return true;
  }
  const id = at.matches("a") ? at.closest<HTMLElement>("main tr[data-peek]")?.dataset.peek : undefined;
  if (id) {
    peekAt(id);
  }
  return Boolean(id);
}

/** What takes the focus in the row after or before the one that has it; without one, in the first. */
function row(step: number): HTMLElement | null | undefined {
  const rows = [...document.querySelectorAll("main tbody tr")];
  const now = rows.findIndex((r) => r.contains(document.activeElement));
  const next = rows[now < 0 ? 0 : Math.min(Math.max(now + step, 0), rows.length - 1)];
  return next?.querySelector<HTMLElement>("td a") ?? next?.querySelector<HTMLElement>("button, input");
}

function focus(element: HTMLElement | null | undefined): boolean {
  element?.focus();
  return Boolean(element);
}

function press(element: HTMLElement | null | undefined): boolean {
  element?.click();
  return Boolean(element);
}
