import type { Job } from "../api/gen";
import { bytes, count, duration, percent, rate } from "../format";
import { Meter } from "./Meter";
import { Tag } from "./StateTag";

export function JobTag({ job: j }: { job: Job }) {
  if (j.error) {
    return <Tag tone="bad" word="Failed" title={j.error} />;
  }
  return j.endedAt ? <Tag tone="ok" word="Done" /> : <Tag tone="info" word="Running" />;
}

/** How far a job is: "120 of 400 fragments"; without a total what is done. */
export function progress(j: Job): string {
  const unit = Math.max(j.done, j.total) === 1 ? j.unit.replace(/s$/, "") : j.unit;
  return j.total > 0 ? `${count(j.done)} of ${count(j.total)} ${unit}` : `${count(j.done)} ${unit}`;
}

/** How fast a job goes and how long it still takes, in one line. */
export function pace(j: Job): string {
  if (j.endedAt) {
    const took = duration(Date.parse(j.endedAt) - Date.parse(j.startedAt));
    return j.bytes > 0 ? `${bytes(j.bytes)} in ${took}` : `took ${took}`;
  }
  const left = j.leftMs === null ? "time left not known yet" : `about ${duration(j.leftMs)} left`;
  const moved = j.bytes > 0 ? `${rate(j.bytesPerSecond)}, ` : "";
  return `${moved}${count(j.perSecond)} ${j.unit}/s, ${left}`;
}

export function JobMeter({ job: j }: { job: Job }) {
  const share = j.total > 0 ? j.done / j.total : j.endedAt ? 1 : 0;
  return <Meter label={j.total > 0 ? percent(j.done, j.total) : progress(j)} parts={[{ share }]} />;
}
