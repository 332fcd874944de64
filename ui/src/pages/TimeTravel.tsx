import { useEffect, useState } from "preact/hooks";
import type { History, Moment, VDisk } from "../api/gen";
import { duration, plural, time } from "../format";
import { useHistory } from "../store/reads";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { Load } from "../parts/Load";
import { Card, Empty, Facts } from "../parts/Page";
import { CloneDialog } from "./CloneDialog";
import { RollbackDialog } from "./RollbackDialog";
import { msg, noun } from "../text";

/** How far around the slider moments are read, when there are more than one answer has. */
const windowMs = 10 * 60_000;

/** Wait after the slider moved before moments around it are read. */
const settleMs = 250;

/** Units of the drawing; its width follows the page. */
const width = 1000;

/** The past of a vDisk on a line: pick a moment, then clone it or go back to it. */
export function TimeTravel({ vdisk, why }: { vdisk: VDisk; why: string | undefined }) {
  const history = useHistory(vdisk.id);
  return (
    <Card title={msg`Time travel`}>
      <Load query={history}>
        {(h) =>
          h.moments.length === 0 ? (
            <Empty
              title={msg`No moment to go back to yet`}
              text={msg`Moments are there once the backend has them, with each commit.`}
              command={`ovgate vdisk history ${vdisk.name}`}
            />
          ) : (
            <Line vdisk={vdisk} history={h} why={why} />
          )
        }
      </Load>
    </Card>
  );
}

function Line({ vdisk, history, why }: { vdisk: VDisk; history: History; why: string | undefined }) {
  const since = Math.floor(Date.parse(history.since));
  const until = Math.max(since + 1, Math.ceil(Date.parse(history.untilAt)));
  // Where the slider stands, ms since 1970; undefined: it was not touched, and stays at the newest moment.
  const [at, setAt] = useState<number | undefined>(undefined);
  const [open, setOpen] = useState<"clone" | "rollback" | undefined>(undefined);
  const shown = Math.min(until, Math.max(since, at ?? until));
  const moments = useMoments(vdisk, history, shown);
  const here = indexAt(moments, shown);
  const picked = moments[here];
  const close = () => setOpen(undefined);
  const go = (m: Moment | undefined) => m && setAt(Math.ceil(Date.parse(m.pointAt)));
  const text = picked ? time(picked.pointAt) : time(new Date(shown).toISOString());
  return (
    <div class="stack">
      <div class="timeline">
        <Ticks moments={moments} since={since} until={until} />
        <input
          type="range"
          name="moment"
          aria-label={msg`Moment`}
          aria-valuetext={text}
          min={since}
          max={until}
          step={Math.max(1, Math.round((until - since) / 1000))}
          value={shown}
          onInput={(event) => setAt(Number(event.currentTarget.value))}
        />
        <div class="row small muted">
          <span class="num">{time(history.since)}</span>
          <span class="spacer" />
          <span class="num">{time(history.untilAt)}</span>
        </div>
      </div>
      {picked && (
        <Facts
          rows={[
            [
              msg`Moment`,
              <>
                <b class="num">{time(picked.pointAt)}</b>, <Age at={picked.pointAt} />
              </>,
            ],
            [msg`What it is`, meaning(vdisk, picked)],
            [msg`Since then`, since === until ? "nothing" : after(vdisk, moments, here)],
          ]}
        />
      )}
      <div class="row">
        <Button small reason={here > 0 ? undefined : msg`It is the oldest moment here`} onClick={() => go(moments[here - 1])}>
          {msg`Earlier`}
        </Button>
        <Button
          small
          reason={here >= 0 && here < moments.length - 1 ? undefined : msg`It is the newest moment here`}
          onClick={() => go(moments[here + 1])}
        >
          {msg`Later`}
        </Button>
        <span class="spacer" />
        <Button small needs="write" reason={picked ? undefined : msg`Pick a moment`} onClick={() => setOpen("clone")}>
          {msg`Clone this moment`}
        </Button>
        <Button small kind="danger" needs="write" reason={why ?? (picked ? undefined : msg`Pick a moment`)} onClick={() => setOpen("rollback")}>
          {msg`Roll back to it`}
        </Button>
      </div>
      {open === "clone" && picked && <CloneDialog vdisk={vdisk} from={picked} onClose={close} />}
      {open === "rollback" && picked && <RollbackDialog vdisk={vdisk} to={picked} onClose={close} />}
    </div>
  );
}

/** The moments that are known: all, or those around the slider when there are more than one answer has. */
function useMoments(vdisk: VDisk, history: History, at: number): Moment[] {
  const [center, setCenter] = useState(at);
  useEffect(() => {
    const timer = setTimeout(() => setCenter(at), settleMs);
    return () => clearTimeout(timer);
  }, [at]);
  const iso = (ms: number) => new Date(ms).toISOString();
  const near = useHistory(
    vdisk.id,
    history.more ? iso(center - windowMs) : undefined,
    history.more ? iso(center + windowMs) : undefined,
  );
  return history.more ? (near.data?.moments ?? []) : history.moments;
}

/** Index of the newest moment at or before a time; -1: there is none. */
function indexAt(moments: Moment[], at: number): number {
  let found = -1;
  moments.forEach((m, i) => {
    if (Math.floor(Date.parse(m.pointAt)) <= at) {
      found = i;
    }
  });
  return found;
}

function meaning(v: VDisk, m: Moment): string {
  if (m.snapshot) {
    return msg`Snapshot ${m.snapshot}`;
  }
  return m.seq === 0 ? msg`${v.name} as it was made, empty or as its parent was` : msg`Everything up to write ${m.seq}, and nothing after it`;
}

function after(v: VDisk, moments: Moment[], here: number): string {
  const m = moments[here];
  if (!m || m.seq >= v.lastSeq) {
    return msg`nothing was written`;
  }
  const snapshots = moments.slice(here + 1).filter((x) => x.snapshot).length;
  const span = duration(Date.parse(v.observedAt) - Date.parse(m.pointAt));
  return msg`${span} of writes${snapshots > 0 ? msg`, and ${plural(snapshots, noun`snapshot`)}` : ""}`;
}

/** Moments as short lines, snapshots as long ones. */
function Ticks({ moments, since, until }: { moments: Moment[]; since: number; until: number }) {
  const x = (m: Moment) => (width * (Date.parse(m.pointAt) - since)) / (until - since);
  const snapshots = moments.filter((m) => m.snapshot);
  const label = msg`${plural(moments.length, noun`moment`)}, ${plural(snapshots.length, noun`snapshot`)} among them`;
  return (
    <svg class="ticks" viewBox={`0 0 ${width} 28`} preserveAspectRatio="none" role="img" aria-label={label}>
      {moments.map((m) => (
        <line key={`${m.seq} ${m.pointAt}`} class={m.snapshot ? "snapshot" : ""} x1={x(m)} x2={x(m)} y1={m.snapshot ? 2 : 16} y2={28} />
      ))}
    </svg>
  );
}
