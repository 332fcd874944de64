// Reads of the API with a cache: a page that had data keeps it while a newer answer is on its way,
// and keeps it, marked with its age, when the answer is an error.
import { signal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError } from "../api/client";

/** One read as a page sees it. */
export type Query<T> = {
  data: T | undefined;
  error: ApiError | undefined;
  loading: boolean;
  /** When data was answered, ms since 1970; 0 without data. */
  at: number;
  reload: () => void;
};

type State = Omit<Query<unknown>, "reload">;

type Entry = {
  state: Signal<State>;
  load: () => Promise<unknown>;
  users: number;
  running: boolean;
  again: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
};

/** Answers kept for pages that are not shown; more would only hold memory. */
const idleEntriesMax = 40;

/** Least time between two reads that events ask for, so that a busy node is not asked more often. */
const refreshMsMin = 1000;

const entries = new Map<string, Entry>();

/**
 * Reads with load and keeps the answer under key. The key names everything load depends on. With
 * every, it reads again that many ms after an answer while the tab is visible.
 */
export function useQuery<T>(key: string, load: () => Promise<T>, every?: number): Query<T> {
  const entry = obtain(key, load);
  useEffect(() => {
    entry.users++;
    void run(entry);
    const poll = every ? setInterval(() => document.hidden || void run(entry), every) : undefined;
    return () => {
      entry.users--;
      clearInterval(poll);
      evict();
    };
  }, [key]);
  const state = entry.state.value as Omit<Query<T>, "reload">;
  return { ...state, reload: () => void run(entry) };
}

/** Changes cached answers in place; change gets each answer whose key starts with prefix. */
export function patch<T>(prefix: string, change: (data: T) => T): void {
  for (const [key, entry] of entries) {
    const state = entry.state.peek();
    if (key.startsWith(prefix) && state.data !== undefined) {
      const data = change(state.data as T);
      if (data !== state.data) {
        entry.state.value = { ...state, data };
      }
    }
  }
}

/** Reads again, soon, what is shown under keys that start with prefix; the rest when it is shown. */
export function refresh(...prefixes: string[]): void {
  for (const [key, entry] of entries) {
    if (entry.users > 0 && !entry.timer && prefixes.some((p) => key.startsWith(p))) {
      const wait = Math.max(0, entry.state.peek().at + refreshMsMin - Date.now());
      entry.timer = setTimeout(() => {
        entry.timer = undefined;
        void run(entry);
      }, wait);
    }
  }
}

/** Forgets every answer: another user may sign in. */
export function forgetAll(): void {
  for (const entry of entries.values()) {
    clearTimeout(entry.timer);
  }
  entries.clear();
}

function obtain(key: string, load: () => Promise<unknown>): Entry {
  let entry = entries.get(key);
  if (!entry) {
    entry = {
      state: signal<State>({ data: undefined, error: undefined, loading: true, at: 0 }),
      load,
      users: 0,
      running: false,
      again: false,
      timer: undefined,
    };
    entries.set(key, entry);
  }
  entry.load = load;
  return entry;
}

async function run(entry: Entry): Promise<void> {
  if (entry.running) {
    entry.again = true;
    return;
  }
  entry.running = true;
  entry.state.value = { ...entry.state.peek(), loading: true };
  try {
    const data = await entry.load();
    entry.state.value = { data, error: undefined, loading: false, at: Date.now() };
  } catch (error) {
    entry.state.value = { ...entry.state.peek(), error: asApiError(error), loading: false };
  }
  entry.running = false;
  if (entry.again) {
    entry.again = false;
    void run(entry);
  }
}

/** Any thrown value as an ApiError, so that pages show one kind of error. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) {
    return error;
  }
  return new ApiError(0, { code: "console", message: error instanceof Error ? error.message : String(error) });
}

function evict(): void {
  const idle = [...entries].filter(([, entry]) => entry.users === 0);
  for (const [key, entry] of idle.slice(0, Math.max(0, idle.length - idleEntriesMax))) {
    clearTimeout(entry.timer);
    entries.delete(key);
  }
}
