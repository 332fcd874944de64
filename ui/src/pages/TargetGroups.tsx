import type { LUNStats, Qos, Target, TargetGroup } from "../api/gen";
import { bytes, count, duration, latency, plural } from "../format";
import { DataTable, type Column } from "../parts/DataTable";
import { Card } from "../parts/Page";

const columns: Column<TargetGroup>[] = [
  { key: "name", title: "Group", cell: (g) => g.name },
  {
    key: "members",
    title: "Initiators",
    wrap: true,
    cell: (g) => (
      <>
        {g.any && <div>any with the secret</div>}
        {g.initiators.map((name) => (
          <div key={name} class="mono">
            {name}
          </div>
        ))}
      </>
    ),
  },
  { key: "proof", title: "Proof", cell: (g) => (g.chapUser ? (g.mutualUser ? "CHAP, mutual" : "CHAP") : "none") },
  { key: "access", title: "Access", cell: (g) => (g.readOnly ? "read-only" : "read and write") },
  { key: "luns", title: "LUNs", cell: seen },
  { key: "sessions", title: "Sessions", right: true, cell: (g) => g.sessions },
];

/** What members of a group see: LUNs of the target, and their own numbers of them. */
function seen(g: TargetGroup): string {
  if (!g.masked) {
    return "all";
  }
  return g.luns.map((m) => `${m.lun} as ${m.number}${m.readOnly ? ", read-only" : ""}`).join("; ") || "none";
}

/** The groups of a target: who is in them, what they prove and see. */
export function TargetGroups({ target: t }: { target: Target }) {
  return (
    <Card title="Groups">
      {t.groups.length > 0 ? (
        <DataTable label="Groups" columns={columns} rows={t.groups} rowKey={(g) => g.name} />
      ) : (
        <p class="muted">Nobody may sign in: the target has no group.</p>
      )}
      <p class="muted small">ovgate target group changes them.</p>
    </Card>
  );
}

/** Limits of a vDisk, in words. */
export function limits(q: Qos | null): string {
  if (!q) {
    return "none";
  }
  const all = [];
  if (q.iops > 0) {
    all.push(`${count(q.iops)} IOPS`);
  }
  if (q.bytesPerSecond > 0) {
    all.push(`${bytes(q.bytesPerSecond)}/s`);
  }
  if (q.burstMs > 0) {
    all.push(`burst ${duration(q.burstMs)}`);
  }
  return all.join(", ");
}

/** What initiators did on a LUN, in one line. */
export function activity(s: LUNStats): string {
  const errors = s.read.errors + s.write.errors + s.other.errors;
  return (
    `${count(s.read.commands)} reads (p99 ${latency(s.read.p99Us)}), ${count(s.write.commands)} writes ` +
    `(p99 ${latency(s.write.p99Us)}), ${plural(errors, "error")}, ${s.depth} queued`
  );
}
