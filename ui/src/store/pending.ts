// Rows of which something is on its way to the node, and not confirmed yet.
import { signal } from "@preact/signals";

/** How many changes of a row are on their way, by its key. */
export const pending = signal<ReadonlyMap<string, number>>(new Map());

/** Marks a row until a change of it has ended, however that ends. */
export async function whilePending<T>(key: string, act: () => Promise<T>): Promise<T> {
  count(key, 1);
  try {
    return await act();
  } finally {
    count(key, -1);
  }
}

function count(key: string, step: number): void {
  const next = new Map(pending.peek());
  const n = (next.get(key) ?? 0) + step;
  if (n > 0) {
    next.set(key, n);
  } else {
    next.delete(key);
  }
  pending.value = next;
}
