// Points of the past of a vDisk, as requests and people name them.
import { signal } from "@preact/signals";
import type { Moment, Snapshot } from "../api/gen";
import { time } from "../format";
import { msg } from "../text";

/** The moment that a snapshot is. */
export function momentOf(s: Snapshot): Moment {
  return { pointAt: s.created, seq: s.seq, snapshot: s.name };
}

/** How a request names a point; undefined is now. */
export function pointBody(to: Moment | undefined): { snapshot?: string; pointAt?: string } {
  if (!to) {
    return {};
  }
  return to.snapshot ? { snapshot: to.snapshot } : { pointAt: to.pointAt };
}

/** A point in a sentence. */
export function pointText(to: Moment): string {
  return to.snapshot ? msg`snapshot ${to.snapshot}` : time(to.pointAt);
}

/** The newest rollback of each vDisk that was made here, by id, so that it can be undone. */
export const rollbacks = signal<Record<string, { to: Moment; undoAt: string }>>({});

export function remember(id: string, made: { to: Moment; undoAt: string }): void {
  rollbacks.value = { ...rollbacks.value, [id]: made };
}

export function forget(id: string): void {
  const { [id]: _, ...others } = rollbacks.value;
  rollbacks.value = others;
}
