// Short messages about what was done. Successes leave by themselves, errors stay until closed.
import { signal } from "@preact/signals";

export type Toast = { id: number; tone: "ok" | "info" | "bad"; text: string };

/** Long enough to read two lines; the same text is on the page afterwards. */
const shownMs = 4000;

/** More would hide the page; the oldest goes. */
const toastsMax = 3;

export const toasts = signal<Toast[]>([]);
let last = 0;

export function toast(tone: Toast["tone"], text: string): void {
  const id = ++last;
  toasts.value = [...toasts.value, { id, tone, text }].slice(-toastsMax);
  if (tone !== "bad") {
    setTimeout(() => closeToast(id), shownMs);
  }
}

export function closeToast(id: number): void {
  toasts.value = toasts.value.filter((t) => t.id !== id);
}

/** Forgets all messages: another user may sign in. */
export function forgetToasts(): void {
  toasts.value = [];
}
