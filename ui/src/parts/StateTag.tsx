import type { DtlState, HealthState, JobState, VDiskState, VPoolState } from "../api/gen";

export type Tone = "ok" | "warn" | "bad" | "info" | "idle";

export const glyphs: Record<Tone, string> = { ok: "●", warn: "▲", bad: "✕", info: "◐", idle: "○" };

export type Face = { tone: Tone; word: string };

const vdiskFaces: Record<VDiskState, Face> = {
  running: { tone: "ok", word: "Running" },
  opening: { tone: "info", word: "Opening" },
  stalled: { tone: "bad", word: "Stalled" },
  degraded: { tone: "warn", word: "Degraded" },
  fenced: { tone: "bad", word: "Fenced" },
  failed: { tone: "bad", word: "Failed" },
  lost_tail: { tone: "bad", word: "Lost tail" },
  corrupt: { tone: "bad", word: "Corrupt" },
  closed: { tone: "idle", word: "Closed" },
  deleting: { tone: "info", word: "Deleting" },
  template: { tone: "idle", word: "Template" },
  transferring: { tone: "info", word: "Transferring" },
  trashed: { tone: "idle", word: "In the trash" },
  elsewhere: { tone: "info", word: "On another node" },
  suspended: { tone: "bad", word: "Suspended" },
  waiting: { tone: "bad", word: "Waits for its node" },
};

const vpoolFaces: Record<VPoolState, Face> = {
  running: { tone: "ok", word: "Running" },
  degraded: { tone: "warn", word: "Degraded" },
  offline: { tone: "bad", word: "Offline" },
  elsewhere: { tone: "info", word: "On another node" },
};

const healthFaces: Record<HealthState, Face> = {
  ok: { tone: "ok", word: "Healthy" },
  warning: { tone: "warn", word: "Warning" },
  error: { tone: "bad", word: "Error" },
};

const copyFaces: Record<DtlState, Face> = {
  ok: { tone: "ok", word: "There" },
  catchup: { tone: "info", word: "Being made" },
  degraded: { tone: "warn", word: "Missing" },
  off: { tone: "idle", word: "Off" },
};

const jobFaces: Record<JobState, Face> = {
  queued: { tone: "idle", word: "Queued" },
  running: { tone: "info", word: "Running" },
  waiting: { tone: "warn", word: "Waiting" },
  done: { tone: "ok", word: "Done" },
  failed: { tone: "bad", word: "Failed" },
  cancelled: { tone: "idle", word: "Cancelled" },
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
