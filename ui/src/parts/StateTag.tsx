import type { DtlState, HealthState, JobState, VDiskState, VPoolState } from "../api/gen";
import { msg } from "../text";

export type Tone = "ok" | "warn" | "bad" | "info" | "idle";

export const glyphs: Record<Tone, string> = { ok: "●", warn: "▲", bad: "✕", info: "◐", idle: "○" };

export type Face = { tone: Tone; word: string };

const vdiskFaces: Record<VDiskState, Face> = {
  running: { tone: "ok", word: msg`Running` },
  opening: { tone: "info", word: msg`Opening` },
  stalled: { tone: "bad", word: msg`Stalled` },
  degraded: { tone: "warn", word: msg`Degraded` },
  fenced: { tone: "bad", word: msg`Fenced` },
  failed: { tone: "bad", word: msg`Failed` },
  lost_tail: { tone: "bad", word: msg`Lost tail` },
  corrupt: { tone: "bad", word: msg`Corrupt` },
  closed: { tone: "idle", word: msg`Closed` },
  deleting: { tone: "info", word: msg`Deleting` },
  template: { tone: "idle", word: msg`Template` },
  transferring: { tone: "info", word: msg`Transferring` },
  trashed: { tone: "idle", word: msg`In the trash` },
  elsewhere: { tone: "info", word: msg`On another node` },
  suspended: { tone: "bad", word: msg`Suspended` },
  waiting: { tone: "bad", word: msg`Waits for its node` },
};

const vpoolFaces: Record<VPoolState, Face> = {
  running: { tone: "ok", word: msg`Running` },
  degraded: { tone: "warn", word: msg`Degraded` },
  offline: { tone: "bad", word: msg`Offline` },
  elsewhere: { tone: "info", word: msg`On another node` },
};

const healthFaces: Record<HealthState, Face> = {
  ok: { tone: "ok", word: msg`Healthy` },
  warning: { tone: "warn", word: msg`Warning` },
  error: { tone: "bad", word: msg`Error` },
};

const copyFaces: Record<DtlState, Face> = {
  ok: { tone: "ok", word: msg`There` },
  catchup: { tone: "info", word: msg`Being made` },
  degraded: { tone: "warn", word: msg`Missing` },
  off: { tone: "idle", word: msg`Off` },
};

const jobFaces: Record<JobState, Face> = {
  queued: { tone: "idle", word: msg`Queued` },
  running: { tone: "info", word: msg`Running` },
  waiting: { tone: "warn", word: msg`Waiting` },
  done: { tone: "ok", word: msg`Done` },
  failed: { tone: "bad", word: msg`Failed` },
  cancelled: { tone: "idle", word: msg`Cancelled` },
};

/** States of a vDisk in the order a filter offers them. */
export const vdiskStates = Object.keys(vdiskFaces) as VDiskState[];

export function vdiskFace(state: VDiskState): Face {
  return vdiskFaces[state] ?? { tone: "idle", word: state };
}

/** States of the copy of a journal, the best first. */
export const copyStates = Object.keys(copyFaces) as DtlState[];

export function copyFace(state: DtlState): Face {
  return copyFaces[state] ?? { tone: "idle", word: state };
}

export function vpoolFace(state: VPoolState): Face {
  return vpoolFaces[state] ?? { tone: "idle", word: state };
}

export function jobFace(state: JobState): Face {
  return jobFaces[state] ?? { tone: "idle", word: state };
}

export function healthFace(state: HealthState): Face {
  return healthFaces[state] ?? { tone: "idle", word: state };
}

/** Glyph, word and colour of a state: never the colour alone. */
export function Tag({ tone, word, title }: Face & { title?: string }) {
  return (
    <span class={`state tone-${tone}`} title={title}>
      <span class="glyph" aria-hidden="true">
        {glyphs[tone]}
      </span>
      {word}
    </span>
  );
}

export function VDiskTag({ state, reason }: { state: VDiskState; reason?: string }) {
  return <Tag {...vdiskFace(state)} title={reason} />;
}

export function VPoolTag({ state, reason }: { state: VPoolState; reason?: string }) {
  return <Tag {...vpoolFace(state)} title={reason} />;
}
