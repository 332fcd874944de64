// Short messages about what was done. Successes leave by themselves, errors stay until closed.
import { signal } from "@preact/signals";

/** What a message offers: undo is called on its button, otherwise done when the message goes. */
type Undo = { undo: () => void; done: () => void };

export type Toast = { id: number; tone: "ok" | "info" | "warn" | "bad"; text: string; undo?: () => void };

/** Long enough to read two lines; the same text is on the page afterwards. */
const shownMs = 4000;

/** Time to think better of it. */
const undoMs = 8000;

/** More would hide the page; the oldest goes. */
const toastsMax = 3;

export const toasts = signal<Toast[]>([]);
let last = 0;

export function toast(tone: Toast["tone"], text: string): void {
  const id = ++last;
  add({ id, tone, text });
  if (tone !== "bad") {
    setTimeout(() => closeToast(id), shownMs);
  }
}

/** What happens when a message goes, by its id. */
const endings = new Map<number, () => void>();

/** Says what is about to be done, and lets the user undo it until the message goes. */
export function undoable(text: string, act: Undo): void {
  const id = ++last;
  const undo = () => {
    endings.delete(id);
    closeToast(id);
    act.undo();
  };
  endings.set(id, act.done);
  add({ id, tone: "info", text, undo });
  setTimeout(() => closeToast(id), undoMs);
}

function add(t: Toast): void {
  const all = [...toasts.value, t];
  toasts.value = all.slice(-toastsMax);
  all.slice(0, -toastsMax).forEach((gone) => end(gone.id));
}

function end(id: number): void {
  const act = endings.get(id);
  endings.delete(id);
  act?.();
}

export function closeToast(id: number): void {
  toasts.value = toasts.value.filter((t) => t.id !== id);
  end(id);
}

/** Forgets all messages, and does not do what could still be undone: another user may sign in. */
export function forgetToasts(): void {
  endings.clear();
  toasts.value = [];
}
