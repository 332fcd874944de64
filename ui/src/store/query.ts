// Reads of the API with a cache: a page that had data keeps it while a newer answer is on its way,
// and keeps it, marked with its age, when the answer is an error.
import { signal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError } from "../api/client";
import { away, returned } from "./activity";
import { msg } from "../text";

/** One read as a page sees it. */
export type Query<T> = {
  data: T | undefined;
  error: ApiError | undefined;
  loading: boolean;
  /** Since when it is being read, ms since 1970; 0: it is not. */
  since: number;
  /** When data was answered, ms since 1970; 0 without data. */
  at: number;
  reload: () => void;
};

type State = Omit<Query<unknown>, "reload">;

type Entry = {
  state: Signal<State>;
  load: () => Promise<unknown>;
  users: number;
  /** The read under way. */
  reading: Promise<void> | undefined;
  again: boolean;
  /** The object is gone or about to go: it is not read any more. */
  gone: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
};

/** Answers kept for pages that are not shown; more would only hold memory. */
const idleEntriesMax = 40;

/** Least time between two reads that events ask for, so that a busy node is not asked more often. */
const refreshMsMin = 1000;

/** Wait before a read that an event asks for: what the event takes off the page needs no read. */
const settleMs = 50;

const entries = new Map<string, Entry>();

/** Actions that run now during which a read would be refused. */
let held = 0;

/**
 * Reads with load and keeps the answer under key. The key names everything load depends on. With
 * every, it reads again each so many ms while somebody is at the tab.
 */
export function useQuery<T>(key: string, load: () => Promise<T>, every?: number): Query<T> {
  const entry = obtain(key, load);
  useEffect(() => {
    entry.users++;
    entry.gone = false;
    void run(entry);
    // What is not there is not asked for again and again: the browser reports each time.
    const missing = () => entry.state.peek().error?.status === 404;
    const poll = every ? setInterval(() => away() || missing() || void run(entry), every) : undefined;
    return () => {
      entry.users--;
      clearInterval(poll);
      evict();
    };
  }, [key]);
  const state = entry.state.value as Omit<Query<T>, "reload">;
  return { ...state, reload: () => void run(entry) };
}

/** Why a form is not sent yet: what it offers to choose from, and its first choice, are still read, or cannot be. */
export function unread(...choices: Query<unknown>[]): string | undefined {
  const missing = choices.find((c) => c.data === undefined);
  if (!missing?.error) {
    return missing && msg`What there is to choose from is not read yet`;
  }
  return msg`What there is to choose from cannot be read: ${missing.error.message}`;
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
      const wait = Math.max(settleMs, entry.state.peek().at + refreshMsMin - Date.now());
      entry.timer = setTimeout(() => {
        entry.timer = undefined;
        if (entry.users > 0 && !away()) {
          void run(entry);
        }
      }, wait);
    }
  }
}

/** Says of the cached answers under prefix that isGone picks that their object is gone. */
export function markGone<T>(prefix: string, isGone: (data: T) => boolean): void {
  for (const [key, entry] of entries) {
    const state = entry.state.peek();
    if (key.startsWith(prefix) && state.data !== undefined && isGone(state.data as T)) {
      entry.gone = true;
      const error = new ApiError(404, { code: "not_found", message: msg`It was deleted meanwhile` });
      entry.state.value = { ...state, error, loading: false, since: 0 };
    }
  }
}

/**
 * Runs an action that ends the object under key; it is not read meanwhile, nor after a success. A
 * read under way is waited for: it might come behind the action.
 */
export async function ending(key: string, action: () => Promise<void>): Promise<void> {
  const entry = entries.get(key);
  if (entry) {
    entry.gone = true;
    await entry.reading;
  }
  try {
    await action();
  } catch (error) {
    if (entry) {
      entry.gone = false;
    }
    throw error;
  }
}

/** Runs an action that ends the session, without a read that would be refused meanwhile. */
export async function withoutReads(action: () => Promise<void>): Promise<void> {
  held++;
  try {
    await action();
  } finally {
    held--;
    refresh("");
  }
}

/** Reads again what is shown when somebody comes back to the tab. */
returned.subscribe(() => refresh(""));

/** Reads again at once what is shown under keys that start with prefix: after an action of the user. */
export function reload(...prefixes: string[]): void {
  for (const [key, entry] of entries) {
    if (entry.users > 0 && prefixes.some((p) => key.startsWith(p))) {
      void run(entry);
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
      state: signal<State>({ data: undefined, error: undefined, loading: true, since: 0, at: 0 }),
      load,
      users: 0,
      reading: undefined,
      again: false,
      gone: false,
      timer: undefined,
    };
    entries.set(key, entry);
  }
  entry.load = load;
  return entry;
}

async function run(entry: Entry): Promise<void> {
  while (!entry.gone && held === 0) {
    if (entry.reading) {
      entry.again = true;
      return;
    }
    entry.again = false;
    entry.reading = Promise.resolve().then(() => read(entry)); // set before pages hear of it
    await entry.reading;
    entry.reading = undefined;
    if (!entry.again) {
      return;
    }
  }
}

async function read(entry: Entry): Promise<void> {
  entry.state.value = { ...entry.state.peek(), loading: true, since: Date.now() };
  try {
    const data = await entry.load();
    entry.state.value = { data, error: undefined, loading: false, since: 0, at: Date.now() };
  } catch (error) {
    entry.state.value = { ...entry.state.peek(), error: asApiError(error), loading: false, since: 0 };
  }
}

/** What was answered last under a key, if anything was. */
export function answered<T>(key: string): T | undefined {
  return entries.get(key)?.state.peek().data as T | undefined;
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
