// Live performance, one sample a second out of the stream.
import { signal } from "@preact/signals";
import { liveSince, on, stream } from "../api/events";
import type { Latencies, MetricsEvent, Performance, VDisk } from "../api/gen";

/** One moment of a chart. */
export type Sample = {
  time: number;
  performance: Performance;
  journalUsed: number;
  /** Bytes on the backend, of a vPool. */
  stored?: number | undefined;
  /** Percent of the machine's, of a node. */
  cpu?: number | undefined;
  memory?: number | undefined;
  /** How many commands took how long; null or undefined: not asked for, or not known. */
  latencies?: Latencies | null | undefined;
  /** Nothing is known from then until the next one. */
  gap?: boolean;
};

/** Seconds a live chart shows: long enough to see a trend, short enough to see each second. */
export const windowSeconds = 120;

/** A vDisk without an event for this long does nothing: the node only sends those that do. */
const silentMs = 2500;

export const idle: Performance = {
  readIops: 0,
  writeIops: 0,
  readBytesPerSecond: 0,
  writeBytesPerSecond: 0,
  readP50Us: 0,
  readP99Us: 0,
  writeP50Us: 0,
  writeP99Us: 0,
  cacheHitsPerSecond: 0,
  cacheMissesPerSecond: 0,
};

/** The percentage of what reads had from the read cache; null: they had nothing from it or past it. */
export function cacheHits({ cacheHitsPerSecond: hits, cacheMissesPerSecond: misses }: Performance): number | null {
  return hits + misses > 0 ? (100 * hits) / (hits + misses) : null;
}

/** The node's last windowSeconds samples, oldest first. */
export const nodeSamples = signal<Sample[]>([]);

/** The newest sample of each busy vDisk and vPool by its id; replaced once a second. */
export const busy = signal<ReadonlyMap<string, Sample>>(new Map());

const collected = new Map<string, { sample: Sample; arrived: number }>();

/** Adds a sample and drops what has left the window of so many seconds. */
export function push(samples: Sample[], sample: Sample, seconds = windowSeconds): Sample[] {
  const oldest = sample.time - seconds;
  return [...samples.filter((s) => s.time > oldest && s.time < sample.time), sample];
}

/** What a vDisk does now: live when the stream is, else as the last read said. */
export function performanceOf(v: VDisk): Performance {
  const sample = busy.value.get(v.id);
  if (sample) {
    return sample.performance;
  }
  const settled = stream.value === "live" && Date.now() - Math.max(liveSince.value, Date.parse(v.observedAt)) > silentMs;
  return settled ? idle : v.performance;
}

/** Forgets all samples: another user may sign in. */
export function forgetMetrics(): void {
  collected.clear();
  nodeSamples.value = [];
  busy.value = new Map();
}

on("metrics", (event: MetricsEvent) => {
  const sample = { time: Date.parse(event.time) / 1000, performance: event.performance, journalUsed: event.journalUsed };
  if (event.object !== "node") {
    collected.set(event.object, { sample, arrived: Date.now() });
    return;
  }
  const fresh = Date.now() - silentMs;
  for (const [id, entry] of collected) {
    if (entry.arrived < fresh) {
      collected.delete(id);
    }
  }
  busy.value = new Map([...collected].map(([id, entry]) => [id, entry.sample]));
  nodeSamples.value = push(nodeSamples.value, sample);
});
