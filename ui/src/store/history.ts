// What a vDisk, a vPool or the node did: what the node remembers, then one sample a second out of the stream.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { ApiError } from "../api/client";
import type { PerformanceHistory } from "../api/gen";
import { away } from "./activity";
import { busy, idle, nodeSamples, push, windowSeconds, type Sample } from "./metrics";
import { asApiError } from "./query";

export type Kind = "vdisk" | "vpool" | "node";

/** A time that charts show, up to now. */
export type Range = { id: string; text: string; words: string; seconds: number; points: number };

const minute = 60;
const hour = 60 * minute;
const day = 24 * hour;

export const live: Range = { id: "live", text: "Live", words: "two minutes", seconds: windowSeconds, points: windowSeconds };

export const ranges: Range[] = [
  live,
  { id: "10m", text: "10 min", words: "ten minutes", seconds: 10 * minute, points: 10 * minute },
  { id: "1h", text: "1 h", words: "hour", seconds: hour, points: 360 },
  { id: "24h", text: "24 h", words: "24 hours", seconds: day, points: 480 },
  { id: "7d", text: "7 d", words: "seven days", seconds: 7 * day, points: 504 },
  { id: "90d", text: "90 d", words: "90 days", seconds: 90 * day, points: 540 },
];

/** The longest range that is drawn on by the stream; longer ones are read again. */
const streamedSeconds = 10 * minute;

/** Between two reads of a range that is not streamed. */
const readAgainMs = 10_000;

/** An object with charts; the stream has nothing of one that another node serves. */
export type Charted = { kind: Kind; id: string; elsewhere?: boolean };

/** Samples of an object in a range, oldest first, with gaps where nothing is known. */
export function useHistory({ kind, id, elsewhere }: Charted, range: Range): { samples: Sample[]; error: ApiError | undefined } {
  const [samples, setSamples] = useState<Sample[]>([]);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  useEffect(() => {
    let gone = false;
    setSamples([]);
    const streamed = range.seconds <= streamedSeconds && !elsewhere;
    const load = async () => {
      try {
        const past = samplesOf(await read(kind, id, range));
        if (!gone) {
          setSamples((shown) => (streamed ? shown.reduce((all, s) => push(all, s, range.seconds), past) : past));
          setError(undefined);
        }
      } catch (cause) {
        if (!gone) {
          setError(asApiError(cause));
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
        setSamples((shown) => {
          const { stored, cpu, memory } = shown.at(-1) ?? sample;
          return push(shown, { ...sample, stored, cpu, memory }, range.seconds);
        });
      }
    });
    const again = streamed ? undefined : setInterval(() => away() || void load(), readAgainMs);
    return () => {
      gone = true;
      stop();
      clearInterval(again);
    };
  }, [kind, id, elsewhere, range]);
  return { samples, error };
}

function read(kind: Kind, id: string, { seconds, points }: Range): Promise<PerformanceHistory> {
  // By the clock of the node, as far as the stream has told it.
  const now = nodeSamples.peek().at(-1)?.time ?? Date.now() / 1000;
  const query = { from: new Date((now - seconds) * 1000).toISOString(), points };
  switch (kind) {
    case "vdisk":
      return call("GET /vdisks/{vdisk}/performance", { path: { vdisk: id }, query });
    case "vpool":
      return call("GET /vpools/{vpool}/performance", { path: { vpool: id }, query });
    case "node":
      return call("GET /nodes/{node}/performance", { path: { node: id }, query });
  }
}

function samplesOf({ points, stepMs }: PerformanceHistory): Sample[] {
  const step = stepMs / 1000;
  const out: Sample[] = [];
  for (const p of points) {
    const time = Date.parse(p.time) / 1000;
    const last = out.at(-1);
    if (last && time - last.time > 1.5 * step) {
      out.push({ time: last.time + step, performance: idle, journalUsed: 0, gap: true });
    }
    out.push({ time, performance: p.performance, journalUsed: p.journalUsed, stored: p.stored, cpu: p.cpu, memory: p.memory });
  }
  return out;
}
