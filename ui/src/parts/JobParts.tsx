import type { Job } from "../api/gen";
import { bytes, count, duration, percent, rate } from "../format";
import { Meter } from "./Meter";
import { jobFace, Tag } from "./StateTag";
import { msg } from "../text";

export function JobTag({ job: j }: { job: Job }) {
  return <Tag {...jobFace(j.state)} title={j.error ?? undefined} />;
}

/** How far a job is: "120 of 400 fragments"; without a total what is done; empty when nothing is known. */
export function progress(j: Job): string {
  if (!j.unit || (j.total === 0 && j.done === 0)) {
    return "";
  }
  if (j.unit === "bytes") {
    return j.total > 0 ? msg`${bytes(j.done)} of ${bytes(j.total)}` : bytes(j.done);
  }
  const unit = Math.max(j.done, j.total) === 1 ? j.unit.replace(/s$/, "") : j.unit;
  return j.total > 0 ? msg`${count(j.done)} of ${count(j.total)} ${unit}` : `${count(j.done)} ${unit}`;
}

/** How fast a job goes and how long it still takes, in one line. */
export function pace(j: Job): string {
  if (!j.startedAt) {
    return "";
  }
  if (j.endedAt) {
    const took = duration(Date.parse(j.endedAt) - Date.parse(j.startedAt));
    return j.bytes > 0 ? msg`${bytes(j.bytes)} in ${took}` : msg`took ${took}`;
  }
  const left = j.leftMs === null ? msg`time left not known yet` : msg`about ${duration(j.leftMs)} left`;
  const moved = j.bytes > 0 ? `${rate(j.bytesPerSecond)}, ` : "";
  const units = j.unit && j.unit !== "bytes" ? `${count(j.perSecond)} ${j.unit}/s, ` : "";
  return `${moved}${units}${left}`;
}

export function JobMeter({ job: j }: { job: Job }) {
  const share = j.progress ?? 0;
  return <Meter label={j.progress === null ? progress(j) || msg`Progress not known` : percent(share, 1)} parts={[{ share }]} />;
}
