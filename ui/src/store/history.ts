// What a vDisk, a vPool, a node or a backend did: what the node remembers, then one sample a second out of the stream.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { ApiError } from "../api/client";
import type { PerformanceHistory } from "../api/gen";
import { away } from "./activity";
import { busy, idle, nodeSamples, push, windowSeconds, type Sample } from "./metrics";
import { asApiError } from "./query";
import { msg } from "../text";

export type Kind = "vdisk" | "vpool" | "node" | "backend";

/** A time that charts show, up to now. */
export type Range = { id: string; text: string; words: string; seconds: number; points: number };

const minute = 60;
const hour = 60 * minute;
const day = 24 * hour;

export const live: Range = { id: "live", text: msg`Live`, words: msg`two minutes`, seconds: windowSeconds, points: windowSeconds };

export const ranges: Range[] = [
  live,
  { id: "10m", text: msg`10 min`, words: msg`ten minutes`, seconds: 10 * minute, points: 10 * minute },
  { id: "1h", text: "1 h", words: "hour", seconds: hour, points: 360 },
  { id: "24h", text: msg`24 h`, words: msg`24 hours`, seconds: day, points: 480 },
  { id: "7d", text: msg`7 d`, words: msg`seven days`, seconds: 7 * day, points: 504 },
  { id: "90d", text: msg`90 d`, words: msg`90 days`, seconds: 90 * day, points: 540 },
];

/** Points more than a range has whole steps: it begins in one step, and ends in another. */
const begun = 2;

/** The longest range that is drawn on by the stream; longer ones are read again. */
const streamedSeconds = 10 * minute;

/** Between two reads of a range that is not streamed. */
const readAgainMs = 10_000;

/** The same of a short one that is not streamed. */
const readShortMs = 5_000;

/** An object with charts, of a vPool or a backend the part of a node; the stream has nothing of one that another node serves. */
export type Charted = { kind: Kind; id: string; node?: string | undefined; elsewhere?: boolean };

/** Which time a range is, and what is read of it. */
export type Window = {
  /** When it ends, s since 1970; without it, now. */
  until?: number | undefined;
  /** What was so many seconds earlier, shown at the time so many seconds later. */
  back?: number | undefined;
  /** With how many commands took how long. */
  latencies?: boolean | undefined;
};

/** What was read: oldest first, with gaps where nothing is known. */
export type Past = {
  samples: Sample[];
  /** Of the samples, s; undefined: nothing was answered yet. */
  step: number | undefined;
  /** Where buckets of latencies begin, µs. */
  buckets: number[];
  error: ApiError | undefined;
};

const nothing: Past = { samples: [], step: undefined, buckets: [], error: undefined };

/** Samples of an object in a range; of undefined there are none. */
export function useHistory(of: Charted | undefined, range: Range, { until, back = 0, latencies }: Window = {}): Past {
  const [past, setPast] = useState(nothing);
  const { kind, id, node, elsewhere } = of ?? {};
  useEffect(() => {
    let gone = false;
    setPast(nothing);
    if (!kind || !id) {
      return;
    }
    const moving = until === undefined;
    const streamed = moving && !back && !latencies && range.seconds <= streamedSeconds && !elsewhere && kind !== "backend";
    let failed = false;
    let missing = false;
    const load = async () => {
      try {
        const end = (until ?? now()) - back;
        const answer = await read({ kind, id, node }, { from: end - range.seconds, to: moving && !back ? undefined : end, points: range.points + begun, latencies });
        failed = false;
        const samples = samplesOf(answer, back);
        if (!gone) {
          setPast((shown) => ({
            samples: streamed ? shown.samples.reduce((all, s) => push(all, s, range.seconds), samples) : samples,
            step: answer.stepMs / 1000,
            buckets: answer.bucketsUs ?? [],
            error: undefined,
          }));
        }
      } catch (cause) {
        if (!gone) {
          const error = asApiError(cause);
          failed = true;
          missing = error.status === 404;
          setPast((shown) => ({ ...shown, error }));
        }
      }
    };
    void load();
    let newest = 0;
    const stop = nodeSamples.subscribe((all) => {
      const tick = all.at(-1);
      if (streamed && tick && tick.time > newest) {
        newest = tick.time;
        const sample = kind === "node" ? tick : { performance: idle, journalUsed: 0, ...busy.peek().get(id), time: tick.time };
        // What the stream lacks stays as it was.
        setPast((shown) => {
          const { stored, cpu, memory } = shown.samples.at(-1) ?? sample;
          return { ...shown, samples: push(shown.samples, { ...sample, stored, cpu, memory }, range.seconds) };
        });
      }
    });
    // What is over stays as it is, but for an answer that failed; what is not there is not asked for again.
    const due = () => !away() && !missing && (moving || failed);
    const again = streamed ? undefined : setInterval(() => due() && void load(), range.seconds <= streamedSeconds ? readShortMs : readAgainMs);
    return () => {
      gone = true;
      stop();
      clearInterval(again);
    };
  }, [kind, id, node, elsewhere, range, until, back, latencies]);
  return past;
}

/** By the clock of the node, as far as the stream has told it, s since 1970. */
export function now(): number {
  return nodeSamples.peek().at(-1)?.time ?? Date.now() / 1000;
}

type Asked = { from: number; to: number | undefined; points: number; latencies: boolean | undefined };

function read({ kind, id, node }: Charted, { from, to, points, latencies }: Asked): Promise<PerformanceHistory> {
  const iso = (at: number) => new Date(at * 1000).toISOString();
  const query = { from: iso(from), points, ...(to === undefined ? {} : { to: iso(to) }), ...(latencies ? { latencies } : {}) };
  switch (kind) {
    case "vdisk":
      return call("GET /vdisks/{vdisk}/performance", { path: { vdisk: id }, query });
    case "vpool":
      return call("GET /vpools/{vpool}/performance", { path: { vpool: id }, query: node ? { ...query, node } : query });
    case "node":
      return call("GET /nodes/{node}/performance", { path: { node: id }, query });
    case "backend":
      return call("GET /backends/{backend}/performance", { path: { backend: id }, query: node ? { ...query, node } : query });
  }
}

function samplesOf({ points, stepMs }: PerformanceHistory, later: number): Sample[] {
  const step = stepMs / 1000;
  const out: Sample[] = [];
  for (const p of points) {
    const time = Date.parse(p.time) / 1000 + later;
    const last = out.at(-1);
    if (last && time - last.time > 1.5 * step) {
      out.push({ time: last.time + step, performance: idle, journalUsed: 0, gap: true });
    }
    out.push({ time, performance: p.performance, journalUsed: p.journalUsed, stored: p.stored, cpu: p.cpu, memory: p.memory, latencies: p.latencies });
  }
  return out;
}
