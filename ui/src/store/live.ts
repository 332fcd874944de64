// Applies the stream to what is cached: an object is replaced where it is shown, and lists whose
// membership or order may have changed are read again.
import { on } from "../api/events";
import type { Health, Status, Target, VDisk, VPool } from "../api/gen";
import { markGone, patch, refresh } from "./query";

type List<T> = { items: T[]; next: string | null };

function replaceIn<T extends { id: string }>(item: T): (list: List<T>) => List<T> {
  return (list) =>
    list.items.some((x) => x.id === item.id)
      ? { ...list, items: list.items.map((x) => (x.id === item.id ? item : x)) }
      : list;
}

function removeFrom<T extends { id: string }>(id: string): (list: List<T>) => List<T> {
  return (list) =>
    list.items.some((x) => x.id === id) ? { ...list, items: list.items.filter((x) => x.id !== id) } : list;
}

/** Starts to follow the stream. Call once at start. */
export function follow(): void {
  on("vdisk", (v) => {
    patch<List<VDisk>>("vdisks?", replaceIn(v));
    patch<VDisk>("vdisk:", (shown) => (shown.id === v.id ? v : shown));
    refresh("vdisks?", "status", "targets?", "target:");
  });
  on("vdisk.deleted", ({ id }) => {
    patch<List<VDisk>>("vdisks?", removeFrom(id));
    markGone<VDisk>("vdisk:", (v) => v.id === id);
    refresh("vdisks?", "vpools?", "vpool:", "status", "targets?");
  });
  on("vpool", (p) => {
    patch<List<VPool>>("vpools?", replaceIn(p));
    patch<VPool>("vpool:", (shown) => (shown.id === p.id ? p : shown));
    refresh("vpools?", "status");
  });
  on("vpool.deleted", ({ id }) => {
    patch<List<VPool>>("vpools?", removeFrom(id));
    markGone<VPool>("vpool:", (p) => p.id === id);
    refresh("vpools?", "status");
  });
  on("target", (t) => {
    patch<Target>("target:", (shown) => (shown.iqn === t.iqn ? t : shown));
    refresh("targets?");
  });
  on("target.deleted", ({ id }) => {
    markGone<Target>("target:", (t) => t.iqn === id);
    refresh("targets?");
  });
  on("session", () => refresh("sessions?", "targets?", "target:", "status", "vdisks?", "vdisk:"));
  on("session.deleted", () => refresh("sessions?", "targets?", "target:", "status", "vdisks?", "vdisk:"));
  on("node", () => refresh("nodes?", "node:", "cluster"));
  on("node.deleted", () => refresh("nodes?", "node:", "cluster"));
  on("event", () => refresh("events?"));
  on("health", (health: Health) => {
    patch<Status>("status", (status) => ({ ...status, health }));
  });
  on("reset", () => refresh(""));
}
