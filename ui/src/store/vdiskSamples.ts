// The live series of one vDisk: what the node remembers, then one sample a second.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import { busy, idle, nodeSamples, push, windowSeconds, type Sample } from "./metrics";

/** Samples of the last windowSeconds of a vDisk, oldest first. */
export function useVDiskSamples(vdisk: string): Sample[] {
  const [samples, setSamples] = useState<Sample[]>([]);
  useEffect(() => {
    let gone = false;
    setSamples([]);
    const load = async () => {
      const series = await call("GET /vdisks/{vdisk}/stats", { path: { vdisk }, query: { seconds: windowSeconds } });
      const past = series.points.map((p) => ({ ...p, time: Date.parse(p.time) / 1000 }));
      if (!gone) {
        setSamples((live) => live.reduce(push, past));
      }
    };
    // Without the past the chart starts empty and fills; the page's own read shows what is wrong.
    load().catch(() => {});
    const stop = nodeSamples.subscribe((all) => {
      const tick = all.at(-1);
      if (tick) {
        const own = busy.peek().get(vdisk);
        const sample = own ? { ...own, time: tick.time } : { time: tick.time, performance: idle, journalUsed: 0 };
        setSamples((shown) => push(shown, sample));
      }
    });
    return () => {
      gone = true;
      stop();
    };
  }, [vdisk]);
  return samples;
}
