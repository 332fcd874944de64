import type { LUNStats, Qos, Reservation, Target, TargetGroup } from "../api/gen";
import { bytes, count, duration, latency, plural } from "../format";
import { useState } from "preact/hooks";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Card } from "../parts/Page";
import { DeleteGroupDialog, MembersDialog, NewGroupDialog, RotateDialog } from "./GroupDialogs";

const columns = (iqn: string): Column<TargetGroup>[] => [
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
  { key: "actions", title: "Action", right: true, cell: (g) => <GroupActions iqn={iqn} group={g} /> },
];

function GroupActions({ iqn, group }: { iqn: string; group: TargetGroup }) {
  const [open, setOpen] = useState<"members" | "secret" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <span class="row">
      <Button small needs="write" label={`Change members of ${group.name}`} onClick={() => setOpen("members")}>
        Members
      </Button>
      <Button small needs="write" label={`New secret for ${group.name}`} onClick={() => setOpen("secret")}>
        New secret
      </Button>
      <Button small needs="write" label={`Delete group ${group.name}`} onClick={() => setOpen("delete")}>
        Delete
      </Button>
      {open === "members" && <MembersDialog iqn={iqn} group={group} onClose={close} />}
      {open === "secret" && <RotateDialog iqn={iqn} group={group} onClose={close} />}
      {open === "delete" && <DeleteGroupDialog iqn={iqn} group={group} onClose={close} />}
    </span>
  );
}

/** What members of a group see: LUNs of the target, and their own numbers of them. */
function seen(g: TargetGroup): string {
  if (!g.masked) {
    return "all";
  }
  return g.luns.map((m) => `${m.lun} as ${m.number}${m.readOnly ? ", read-only" : ""}`).join("; ") || "none";
}

/** The groups of a target: who is in them, what they prove and see. */
export function TargetGroups({ target: t }: { target: Target }) {
  const [create, setCreate] = useState(false);
  return (
    <Card
      title="Groups"
      aside={
        <Button small needs="write" onClick={() => setCreate(true)}>
          New group
        </Button>
      }
    >
      {create && <NewGroupDialog iqn={t.iqn} onClose={() => setCreate(false)} />}
      {t.groups.length > 0 ? (
        <DataTable label="Groups" columns={columns(t.iqn)} rows={t.groups} rowKey={(g) => g.name} />
      ) : (
        <p class="muted">Nobody may sign in: the target has no group.</p>
      )}
      <p class="muted small">ovgate target group map chooses the LUNs that a group sees.</p>
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

/** Persistent reservations of a LUN, in one line. */
export function reservation(r: Reservation): string {
  const registered = plural(r.registrations, "registration") + (r.persistent ? ", persistent" : "");
  return r.type ? `${r.type}, held by ${r.holder}; ${registered}` : registered;
}

/** What initiators did on a LUN, in one line. */
export function activity(s: LUNStats): string {
  const errors = s.read.errors + s.write.errors + s.other.errors;
  return (
    `${count(s.read.commands)} reads (p99 ${latency(s.read.p99Us)}), ${count(s.write.commands)} writes ` +
    `(p99 ${latency(s.write.p99Us)}), ${plural(errors, "error")}, ${s.depth} queued`
  );
}
