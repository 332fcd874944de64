import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Moment, Snapshot, VDisk } from "../api/gen";
import { duration, plural, time } from "../format";
import { asApiError, reload } from "../store/query";
import { forget, pointBody, pointText, remember } from "../store/points";
import { useAllSnapshots, useVDisks } from "../store/reads";
import { toast } from "../store/toasts";
import { Confirm } from "../parts/Dialog";
import { CheckField } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { msg, noun, rich } from "../text";

/** Most names that a sentence lists. */
const namesMax = 5;

function listed(names: string[]): string {
  const more = names.length - namesMax;
  return names.slice(0, namesMax).join(", ") + (more > 0 ? msg` and ${more} more` : "");
}

type Props = { vdisk: VDisk; to: Moment; undo?: boolean; onClose: () => void };

/** Takes a vDisk back: says what goes, who is in the way, and keeps what is there now on request. */
export function RollbackDialog({ vdisk, to, undo = false, onClose }: Props) {
  const snapshots = useAllSnapshots(vdisk.id);
  const clones = useVDisks({ parent: vdisk.id });
  const sessions = vdisk.published?.sessions ?? 0;
  const history = vdisk.history.keepMs;
  const [keep, setKeep] = useState<boolean | undefined>(undefined);
  const [drop, setDrop] = useState(false);
  // A history that a scrub may cut at any time is no way back.
  const keeps = keep ?? (!undo && history === 0);
  const newer = snapshots.data?.items.filter((s) => s.seq > to.seq) ?? [];
  const sticky = newer.filter((s) => s.sticky);
  const blocked = sticky.length > 0 ? msg`Delete the sticky snapshots that are newer first` : undefined;
  return (
    <Confirm
      title={undo ? msg`Undo the rollback of ${vdisk.name}` : msg`Roll back ${vdisk.name}`}
      verb={sessions > 0 ? msg`Drop ${plural(sessions, noun`session`)} and roll back` : msg`Roll back`}
      danger
      typeName={vdisk.name}
      reason={snapshots.data === undefined ? msg`The snapshots are being read` : (blocked ?? (sessions > 0 && !drop ? msg`Hosts are signed in: detach it there first` : undefined))}
      consequences={[
        <>
          {rich`It will be what it was at ${<b>{pointText(to)}</b>}${to.snapshot && `, ${time(to.pointAt)}`}.`}
        </>,
        undo ? msg`What was written since the rollback is taken off.` : lost(vdisk, to),
        <Newer key="newer" newer={newer} sticky={sticky} />,
        (clones.data?.items.length ?? 0) > 0 &&
          msg`It has clones: ${listed(clones.data?.items.map((c) => c.name) ?? [])}. Those of a newer point stand in the way until they are flattened or deleted.`,
        history > 0
          ? msg`What is there now can be had back for ${duration(history)}, with Undo or from its history.`
          : msg`It keeps no history: without a vDisk that keeps it, the next scrub may take what is there now.`,
      ].filter(Boolean)}
      onClose={onClose}
      act={async () => {
        const path = { vdisk: vdisk.id };
        const done = await call("POST /vdisks/{vdisk}/rollback", { path, body: { ...pointBody(to), force: drop } });
        if (undo) {
          forget(vdisk.id);
        } else {
          remember(vdisk.id, { to: done.to, undoAt: done.undoAt });
        }
        reload("vdisk:", "vdisks?", "snapshots:" + vdisk.id, "history:" + vdisk.id, "status");
        if (keeps) {
          await keepAs(vdisk, done.undoAt);
        } else {
          toast("ok", msg`${vdisk.name} is rolled back to ${pointText(done.to)}`);
        }
      }}
    >
      <CheckField name="keep" checked={keeps} onValue={setKeep}>
        {msg`Keep what is there now as a vDisk of its own. It takes no space at first.`}
      </CheckField>
      {sessions > 0 && (
        <Notice tone="warn">
          <b>{rich`${plural(sessions, noun`session`)} of hosts ${sessions === 1 ? msg`is` : msg`are`} open`}</b>
          <span>{msg`A host that has it mounted would go on with what it remembers of it, and spoil it. Unmount and log out there first.`}</span>
          <CheckField name="drop" checked={drop} onValue={setDrop}>
            {msg`No host has it mounted: drop the sessions`}
          </CheckField>
        </Notice>
      )}
    </Confirm>
  );
}

/** Makes a clone of what a vDisk was. That this fails does not undo the rollback, which is done by now. */
async function keepAs(vdisk: VDisk, at: string): Promise<void> {
  const name = keptName(vdisk.name, at);
  try {
    await call("POST /vdisks/{vdisk}/clone", { path: { vdisk: vdisk.id }, body: { name, pointAt: at } });
    toast("ok", msg`${vdisk.name} is rolled back; what it was is vDisk ${name}`);
    reload("vdisks?", "status");
  } catch (error) {
    toast("bad", msg`${vdisk.name} is rolled back, but what it was is not kept as a vDisk: ${asApiError(error).message}`);
  }
}

/** A free name is likely, and the length is bounded. */
function keptName(name: string, at: string): string {
  return `${name.slice(0, 40)}-before-${at.slice(0, 19).replace(/[-:]/g, "")}`;
}

function lost(v: VDisk, to: Moment): string {
  if (v.lastSeq <= to.seq) {
    return msg`Nothing was written since.`;
  }
  const span = Date.parse(v.observedAt) - Date.parse(to.pointAt);
  return msg`What was written in the ${duration(span)} since then is taken off. The size stays.`;
}

function Newer({ newer, sticky }: { newer: Snapshot[]; sticky: Snapshot[] }) {
  if (newer.length === 0) {
    return <>{msg`No snapshot is newer.`}</>;
  }
  return (
    <>
      {rich`${plural(newer.length, noun`newer snapshot`)} will be deleted, for good:`}{" "}{listed(newer.map((s) => s.name))}.
      {sticky.length > 0 && <>{" "}{msg`Sticky, and so in the way:`}{" "}{listed(sticky.map((s) => s.name))}.</>}
    </>
  );
}
