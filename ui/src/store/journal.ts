// What the stream told since this tab was opened, in words, newest first. The node sends objects as they
// are now; what changed is told by comparing with what was known.
import { signal } from "@preact/signals";
import { liveSince, on } from "../api/events";
import type { Health, ISCSISession, NodeEvent, Target, VDisk, VPool } from "../api/gen";
import { bytes, capital } from "../format";
import { healthFace, vdiskFace, vpoolFace, type Tone } from "../parts/StateTag";

export type Kind = "vdisk" | "vpool" | "target" | "session" | "node" | "health";

export type Entry = { id: number; at: number; kind: Kind; object: string; tone: Tone; text: string };

/** Entries kept; the oldest go. */
const entriesMax = 2000;

/** Objects known; past it all are forgotten, and only what changes later is told. */
const knownMax = 20_000;

/** An object this young was made just now, and not by somebody who read it for the first time. */
const newMs = 15_000;

export const entries = signal<readonly Entry[]>([]);

/** What is told of an object when it changes: its name, its state, and parts in words. */
type View = { name: string; state?: { tone: Tone; word: string }; parts: Record<string, string> };

const known = new Map<string, View>();
let last = 0;

function note(kind: Kind, object: string, tone: Tone, text: string): void {
  entries.value = [{ id: ++last, at: Date.now(), kind, object, tone, text }, ...entries.value].slice(0, entriesMax);
}

function see(kind: Kind, id: string, view: View, created?: string): void {
  const key = kind + "/" + id;
  const before = known.get(key);
  if (known.size >= knownMax && !before) {
    known.clear();
  }
  known.set(key, view);
  const object = `${kind} ${view.name}`;
  if (!before) {
    if (created && Date.now() - Date.parse(created) < newMs) {
      note(kind, object, "ok", "Created");
    } else if (view.state && view.state.tone !== "ok" && view.state.tone !== "idle") {
      note(kind, object, view.state.tone, view.state.word);
    }
    return;
  }
  if (before.name !== view.name) {
    note(kind, object, "info", `Renamed from ${before.name}`);
  }
  if (view.state && before.state?.word !== view.state.word) {
    note(kind, object, view.state.tone, view.state.word);
  }
  for (const [part, text] of Object.entries(view.parts)) {
    if (before.parts[part] !== text) {
      note(kind, object, "info", text);
    }
  }
}

function gone(kind: Kind, id: string): void {
  const name = known.get(kind + "/" + id)?.name ?? id;
  known.delete(kind + "/" + id);
  note(kind, `${kind} ${name}`, "idle", "Deleted");
}

/** Sessions come and go; what they do in between is on the page of the target. */
const sessions = new Map<string, { object: string; initiator: string }>();

function signedIn(s: ISCSISession): void {
  if (sessions.size < knownMax && !sessions.has(s.id)) {
    const object = s.target ? `target ${s.target}` : "discovery";
    sessions.set(s.id, { object, initiator: s.initiator });
    if (Date.now() - Date.parse(s.since) < newMs) {
      note("session", object, "ok", `${s.initiator} signed in from ${s.address}`);
    }
  }
}

function signedOut(id: string): void {
  const s = sessions.get(id);
  sessions.delete(id);
  note("session", s?.object ?? "session", "idle", `${s?.initiator ?? "An initiator"} signed out`);
}

function vdiskView(v: VDisk): View {
  return {
    name: v.name,
    state: vdiskFace(v.state),
    parts: {
      size: `Has ${bytes(v.size)} now`,
      published: v.published ? `Published as LUN ${v.published.lun}` : "Not published any more",
      node: `On node ${v.node}`,
      dtl: v.dtl.state === "off" ? "Its journal has no copy on another node" : `Copy of its journal: ${v.dtl.state}`,
    },
  };
}

function health(before: Health | undefined, after: Health): void {
  const key = (c: Health["causes"][number]) => c.code + " " + c.object;
  for (const c of after.causes) {
    if (!before?.causes.some((b) => key(b) === key(c))) {
      note("health", c.object || "node", healthFace(c.state).tone, c.text);
    }
  }
  for (const c of before?.causes ?? []) {
    if (!after.causes.some((a) => key(a) === key(c))) {
      note("health", c.object || "node", "ok", `Over: ${c.text}`);
    }
  }
}

const livenessTones: Record<NodeEvent["liveness"], Tone> = { alive: "ok", suspect: "warn", dead: "bad", left: "idle", unknown: "idle" };

/** Starts to write down what the stream tells. Call once at start. */
export function keepJournal(): void {
  let lastHealth: Health | undefined;
  let wasLive = 0;
  on("vdisk", (v: VDisk) => see("vdisk", v.id, vdiskView(v), v.created));
  on("vpool", (p: VPool) => see("vpool", p.id, { name: p.name, state: vpoolFace(p.state), parts: {} }, p.created));
  on("target", (t: Target) => see("target", t.iqn, { name: t.iqn, parts: {} }, t.created));
  on("session", signedIn);
  on("node", (n: NodeEvent) => see("node", n.id, { name: n.name, state: { tone: livenessTones[n.liveness], word: capital(n.liveness) }, parts: {} }));
  on("vdisk.deleted", ({ id }) => gone("vdisk", id));
  on("vpool.deleted", ({ id }) => gone("vpool", id));
  on("target.deleted", ({ id }) => gone("target", id));
  on("session.deleted", ({ id }) => signedOut(id));
  on("node.deleted", ({ id }) => gone("node", id));
  on("health", (h: Health) => {
    health(lastHealth, h);
    lastHealth = h;
  });
  on("reset", () => {
    if (wasLive > 0) {
      note("node", "node", "warn", "The stream was away: what happened meanwhile is not here");
    }
    wasLive = liveSince.value;
  });
}

/** Forgets everything: another user may sign in. */
export function forgetJournal(): void {
  entries.value = [];
  known.clear();
  sessions.clear();
}
