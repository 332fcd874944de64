// The stream of changes: one EventSource per tab, handed on as typed events.
import { signal } from "@preact/signals";
import type { DeletedEvent, Event, Health, ISCSISession, MetricsEvent, NodeEvent, Target, VDisk, VPool } from "./gen";

/** What the node sends, by event name. */
export type StreamEvents = {
  metrics: MetricsEvent;
  vdisk: VDisk;
  vpool: VPool;
  target: Target;
  session: ISCSISession;
  health: Health;
  node: NodeEvent;
  event: Event;
  "vdisk.deleted": DeletedEvent;
  "vpool.deleted": DeletedEvent;
  "target.deleted": DeletedEvent;
  "session.deleted": DeletedEvent;
  "node.deleted": DeletedEvent;
  reset: Record<string, never>;
};

type Handler<K extends keyof StreamEvents> = (data: StreamEvents[K]) => void;

/** Waits between attempts after the browser has given up on a stream: 1 s, 2 s, ... 15 s. */
const retryMsMax = 15_000;

/** Whether values on the page follow the node. */
export const stream = signal<"connecting" | "live" | "lost">("connecting");

/** When the stream last became live, in ms since 1970; 0 before. */
export const liveSince = signal(0);

const handlers = new Map<string, Set<(data: never) => void>>();
let source: EventSource | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let reopen: (() => void) | undefined;
let attempts = 0;

/** Calls handler for each event of that name; returns what ends it. */
export function on<K extends keyof StreamEvents>(name: K, handler: Handler<K>): () => void {
  const set = handlers.get(name) ?? new Set();
  handlers.set(name, set);
  set.add(handler as (data: never) => void);
  return () => set.delete(handler as (data: never) => void);
}

/** Opens the stream. check is asked before a new attempt and answers whether somebody is signed in. */
export function openStream(check: () => Promise<boolean>): void {
  closeStream();
  reopen = () => openStream(check);
  source = new EventSource("/api/v1/events");
  source.onopen = () => {
    attempts = 0;
    stream.value = "live";
    liveSince.value = Date.now();
    // What happened while there was no stream is unknown; readers fetch again.
    emit("reset", {});
  };
  source.onerror = () => {
    stream.value = "lost";
    if (source?.readyState === EventSource.CLOSED) {
      retryLater(check);
    }
  };
  for (const name of eventNames) {
    source.addEventListener(name, (event) => emit(name, JSON.parse((event as MessageEvent<string>).data)));
  }
}

/** Closes the stream and forgets a pending attempt. */
export function closeStream(): void {
  clearTimeout(timer);
  source?.close();
  source = undefined;
  reopen = undefined;
  stream.value = "connecting";
}

// A page that the browser keeps for the back button must not hold one of its few connections.
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => {
  if (event.persisted) {
    reopen?.();
  }
});

const eventNames: (keyof StreamEvents)[] = [
  "metrics",
  "vdisk",
  "vpool",
  "target",
  "session",
  "health",
  "node",
  "event",
  "vdisk.deleted",
  "vpool.deleted",
  "target.deleted",
  "session.deleted",
  "node.deleted",
  "reset",
];

function emit<K extends keyof StreamEvents>(name: K, data: StreamEvents[K]): void {
  for (const handler of handlers.get(name) ?? []) {
    (handler as Handler<K>)(data);
  }
}

function retryLater(check: () => Promise<boolean>): void {
  attempts++;
  timer = setTimeout(
    async () => {
      if (await check()) {
        openStream(check);
      }
    },
    Math.min(1000 * attempts, retryMsMax),
  );
}
