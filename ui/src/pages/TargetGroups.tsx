import type { LUNStats, Qos, Reservation, Target, TargetGroup } from "../api/gen";
import { bytes, count, duration, latency, plural } from "../format";
import { useState } from "preact/hooks";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Card } from "../parts/Page";
import { DeleteGroupDialog, MembersDialog, NewGroupDialog, RotateDialog } from "./GroupDialogs";
import { msg, noun } from "../text";

const columns = (iqn: string): Column<TargetGroup>[] => [
  { key: "name", title: msg`Group`, cell: (g) => g.name },
  {
    key: "members",
    title: msg`Initiators`,
    wrap: true,
    cell: (g) => (
      <>
        {g.any && <div>{msg`any with the secret`}</div>}
        {g.initiators.map((name) => (
          <div key={name} class="mono">
            {name}
          </div>
        ))}
      </>
    ),
  },
  { key: "proof", title: msg`Proof`, cell: (g) => (g.chapUser ? (g.mutualUser ? msg`CHAP, mutual` : msg`CHAP`) : "none") },
  { key: "access", title: msg`Access`, cell: (g) => (g.readOnly ? "read-only" : msg`read and write`) },
  { key: "luns", title: msg`LUNs`, cell: seen },
  { key: "sessions", title: msg`Sessions`, right: true, cell: (g) => g.sessions },
  { key: "actions", title: msg`Action`, right: true, cell: (g) => <GroupActions iqn={iqn} group={g} /> },
];

function GroupActions({ iqn, group }: { iqn: string; group: TargetGroup }) {
  const [open, setOpen] = useState<"members" | "secret" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <span class="row">
      <Button small needs="write" label={msg`Change members of ${group.name}`} onClick={() => setOpen("members")}>
        {msg`Members`}
      </Button>
      <Button small needs="write" label={msg`New secret for ${group.name}`} onClick={() => setOpen("secret")}>
        {msg`New secret`}
      </Button>
      <Button small needs="write" label={msg`Delete group ${group.name}`} onClick={() => setOpen("delete")}>
        {msg`Delete`}
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
    return msg`all`;
  }
  return g.luns.map((m) => msg`${m.lun} as ${m.number}${m.readOnly ? msg`, read-only` : ""}`).join("; ") || msg`none`;
}

/** The groups of a target: who is in them, what they prove and see. */
export function TargetGroups({ target: t }: { target: Target }) {
  const [create, setCreate] = useState(false);
  return (
    <Card
      title={msg`Groups`}
      aside={
        <Button small needs="write" onClick={() => setCreate(true)}>
          {msg`New group`}
        </Button>
      }
    >
      {create && <NewGroupDialog iqn={t.iqn} onClose={() => setCreate(false)} />}
      {t.groups.length > 0 ? (
        <DataTable label={msg`Groups`} columns={columns(t.iqn)} rows={t.groups} rowKey={(g) => g.name} />
      ) : (
        <p class="muted">{msg`Nobody may sign in: the target has no group.`}</p>
      )}
      <p class="muted small">{msg`ovgate target group map chooses the LUNs that a group sees.`}</p>
    </Card>
  );
}

/** Limits of a vDisk, in words. */
export function limits(q: Qos | null): string {
  if (!q) {
    return msg`none`;
  }
  const all = [];
  if (q.iops > 0) {
    all.push(msg`${count(q.iops)} IOPS`);
  }
  if (q.bytesPerSecond > 0) {
    all.push(`${bytes(q.bytesPerSecond)}/s`);
  }
  if (q.burstMs > 0) {
    all.push(msg`burst ${duration(q.burstMs)}`);
  }
  return all.join(", ");
}

/** Persistent reservations of a LUN, in one line. */
export function reservation(r: Reservation): string {
  const registered = plural(r.registrations, noun`registration`) + (r.persistent ? msg`, persistent` : "");
  return r.type ? msg`${r.type}, held by ${r.holder}; ${registered}` : registered;
}

/** What initiators did on a LUN, in one line. */
export function activity(s: LUNStats): string {
  const errors = s.read.errors + s.write.errors + s.other.errors;
  return (
    msg`${count(s.read.commands)} reads (p99 ${latency(s.read.p99Us)}), ${count(s.write.commands)} writes ` +
    msg`(p99 ${latency(s.write.p99Us)}), ${plural(errors, noun`error`)}, ${s.depth} queued`
  );
}
