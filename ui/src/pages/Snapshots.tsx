import { useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { call } from "../api/client";
import type { Moment, Snapshot, VDisk } from "../api/gen";
import { bytes, plural, time } from "../format";
import { query } from "../router";
import { asApiError, reload } from "../store/query";
import { forget, momentOf, pointText, rollbacks } from "../store/points";
import { useSnapshots } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast, undoable } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, useChoice, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card, Empty } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { Tag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { CloneDialog } from "./CloneDialog";
import { RollbackDialog } from "./RollbackDialog";
import { TimeTravel } from "./TimeTravel";
import { msg, noun, rich } from "../text";

/** Ids of snapshots whose deletion can still be undone. */
const doomed = signal<ReadonlySet<string>>(new Set());

/** The snapshots of a vDisk: made, deleted, cloned, and gone back to. */
export function SnapshotsTab({ vdisk }: { vdisk: VDisk }) {
  const cursor = query.value.get("snapshots") ?? undefined;
  const list = useSnapshots(vdisk.id, cursor);
  const [chosen, choose] = useChoice(cursor ?? "");
  const [create, setCreate] = useState(false);
  const items = list.data?.items ?? [];
  const picked = items.filter((s) => chosen.has(s.id) && !doomed.value.has(s.id));
  return (
    <>
      <RolledBack vdisk={vdisk} />
      <TimeTravel vdisk={vdisk} why={noRollback(vdisk)} />
      <Card
        title={msg`Snapshots`}
        aside={
          <div class="row">
            {picked.length > 0 && <DeleteButton vdisk={vdisk} snapshots={picked} done={() => choose(new Set())} />}
            <Link class="btn small" to={`/schedules?vdisk=${encodeURIComponent(vdisk.name)}`}>
              {msg`Schedule`}
            </Link>
            <TableTools
              table="vdisk.snapshots"
              noun={noun`snapshot`}
              columns={columns(vdisk)}
              read={(cursor, limit) => call("GET /vdisks/{vdisk}/snapshots", { path: { vdisk: vdisk.id }, query: { sort: "-seq", cursor, limit } })}
            />
            <Button small kind="primary" needs="write" reason={noSnapshot(vdisk)} onClick={() => setCreate(true)}>
              {msg`Create snapshot`}
            </Button>
          </div>
        }
      >
        <Load query={list}>
          {(page) =>
            page.items.length === 0 && !cursor ? (
              <Empty
                title={msg`No snapshots yet`}
                text={msg`A snapshot keeps what the vDisk holds at one moment. It takes no time, and space only for what is overwritten later.`}
                command={`ovgate snapshot create ${vdisk.name} NAME`}
              />
            ) : (
              <DataTable
                label={msg`Snapshots`}
                table="vdisk.snapshots"
                columns={columns(vdisk)}
                rows={page.items}
                rowKey={(s) => s.id}
                next={page.next}
                cursor="snapshots"
                choice={{ chosen, choose, name: (s) => s.name }}
                peek={{ id: (s) => s.id, name: (s) => s.name }}
              />
            )
          }
        </Load>
      </Card>
      <PeekOf>{(m, id) => <m.PeekSnapshot id={id} snapshot={items.find((s) => s.id === id)} />}</PeekOf>
      {create && <CreateSnapshotDialog vdisk={vdisk} onClose={() => setCreate(false)} />}
    </>
  );
}

/** Why no snapshot of a vDisk can be made now. */
export function noSnapshot(v: VDisk): string | undefined {
  return v.state === "template" ? msg`A template does not change` : undefined;
}

function columns(vdisk: VDisk): Column<Snapshot>[] {
  const dim = (s: Snapshot) => (doomed.value.has(s.id) ? "muted" : undefined);
  return [
    {
      key: "name",
      csv: (s) => s.name,
      title: msg`Name`,
      wrap: true,
      cell: (s) => (
        <span class={dim(s)}>
          {s.name} {s.sticky && <span class="chip">{msg`sticky`}</span>} {s.group > 1 && <span class="chip">{rich`group of ${s.group}`}</span>}
          {Object.entries(s.labels).map(([k, v]) => (
            <span key={k} class="chip">
              {v ? `${k}=${v}` : k}
            </span>
          ))}
        </span>
      ),
    },
    { key: "created", csv: (s) => s.created, title: msg`Made`, cell: (s) => <span class="num">{time(s.created)}</span> },
    { key: "age", title: msg`Age`, cell: (s) => <Age at={s.created} /> },
    { key: "size", csv: { title: msg`Size (bytes)`, value: (s) => s.size }, title: msg`Size`, right: true, cell: (s) => bytes(s.size) },
    { key: "automatic", csv: (s) => (s.automatic ? "schedule" : "hand"), title: msg`By`, cell: (s) => (s.automatic ? "schedule" : "hand") },
    { key: "consistent", csv: (s) => (s.consistent ? "applications" : "crash"), title: msg`Consistent`, cell: (s) => (s.consistent ? "applications" : "crash") },
    {
      key: "backend",
      csv: (s) => (s.inBackend ? "yes" : msg`not yet`),
      title: msg`In backend`,
      cell: (s) =>
        s.inBackend ? <Tag tone="ok" word={msg`Yes`} /> : <Tag tone="info" word={msg`Not yet`} title={msg`Durable on this node; the next commit takes it there`} />,
    },
    { key: "actions", title: msg`Actions`, right: true, cell: (s) => <RowActions vdisk={vdisk} snapshot={s} /> },
  ];
}

function RowActions({ vdisk, snapshot: s }: { vdisk: VDisk; snapshot: Snapshot }) {
  const [open, setOpen] = useState<"clone" | "rollback" | undefined>(undefined);
  if (doomed.value.has(s.id)) {
    return <Tag tone="info" word={msg`Being deleted`} />;
  }
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="write" label={msg`Roll back to ${s.name}`} reason={noRollback(vdisk)} onClick={() => setOpen("rollback")}>
        {msg`Roll back`}
      </Button>{" "}
      <Button small needs="write" label={msg`Clone ${s.name}`} onClick={() => setOpen("clone")}>
        {msg`Clone`}
      </Button>{" "}
      <DeleteButton vdisk={vdisk} snapshots={[s]} done={() => {}} />
      {open === "clone" && <CloneDialog vdisk={vdisk} from={momentOf(s)} onClose={close} />}
      {open === "rollback" && <RollbackDialog vdisk={vdisk} to={momentOf(s)} onClose={close} />}
    </>
  );
}

/** Why a vDisk cannot be taken back now. */
export function noRollback(v: VDisk): string | undefined {
  return v.state === "template" ? msg`A template does not change: clone it` : undefined;
}

/** Deletes at once and lets that be undone, unless a snapshot is sticky: that is asked for. */
function DeleteButton({ vdisk, snapshots, done }: { vdisk: VDisk; snapshots: Snapshot[]; done: () => void }) {
  const [ask, setAsk] = useState(false);
  const only = snapshots.length === 1 ? snapshots[0] : undefined;
  const sticky = snapshots.filter((s) => s.sticky);
  const bulk = only === undefined;
  const what = only ? msg`Snapshot ${only.name}` : plural(snapshots.length, noun`snapshot`);
  const start = () => {
    if (sticky.length > 0) {
      setAsk(true);
      return;
    }
    const ids = snapshots.map((s) => s.id);
    const restore = () => {
      doomed.value = new Set([...doomed.value].filter((id) => !ids.includes(id)));
    };
    doomed.value = new Set([...doomed.value, ...ids]);
    done();
    undoable(msg`${what} will be deleted`, { undo: restore, done: () => void remove(vdisk, snapshots, false).finally(restore) });
  };
  return (
    <>
      <Button small kind="danger" needs="write" label={only ? msg`Delete ${only.name}` : undefined} onClick={start}>
        {bulk ? msg`Delete ${snapshots.length}` : msg`Delete`}
      </Button>
      {ask && (
        <Confirm
          title={only ? msg`Delete sticky snapshot ${only.name}` : msg`Delete ${plural(snapshots.length, noun`snapshot`)}`}
          verb={msg`Delete`}
          danger
          typeName={only ? only.name : msg`delete ${snapshots.length}`}
          consequences={[
            msg`Sticky, kept on purpose: ${sticky.map((s) => s.name).join(", ")}.`,
            msg`What only they hold is gone with the next scrub, unless the history still has it. Clones live on.`,
          ]}
          onClose={() => setAsk(false)}
          act={async () => {
            await remove(vdisk, snapshots, true);
            done();
          }}
        />
      )}
    </>
  );
}

/** Deletes one after the other and tells of each that was refused. */
async function remove(vdisk: VDisk, snapshots: Snapshot[], force: boolean): Promise<void> {
  let gone = 0;
  for (const s of snapshots) {
    try {
      await call("DELETE /vdisks/{vdisk}/snapshots/{snapshot}", { path: { vdisk: vdisk.id, snapshot: s.id }, query: force ? { force } : {} });
      gone++;
    } catch (error) {
      toast("bad", `${s.name}: ${asApiError(error).message}`);
    }
  }
  if (gone > 0) {
    toast("ok", msg`${plural(gone, noun`snapshot`)} of ${vdisk.name} deleted`);
  }
  reload("snapshots:" + vdisk.id, "history:" + vdisk.id);
}

export function CreateSnapshotDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [sticky, setSticky] = useState(false);
  const [consistent, setConsistent] = useState(false);
  const save = async (key: string) => {
    const s = await call("POST /vdisks/{vdisk}/snapshots", {
      key,
      path: { vdisk: vdisk.id },
      body: { name: name.trim(), sticky, consistent },
    });
    toast("ok", msg`Snapshot ${s.name} is made`);
    reload("snapshots:" + vdisk.id, "history:" + vdisk.id);
    onClose();
  };
  return (
    <FormDialog title={msg`Snapshot of ${vdisk.name}`} verb={msg`Create`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <SnapshotFields
        name={name}
        setName={setName}
        sticky={sticky}
        setSticky={setSticky}
        consistent={consistent}
        setConsistent={setConsistent}
        error={submit.at("name")}
      />
    </FormDialog>
  );
}

type FieldsProps = {
  name: string;
  setName: (name: string) => void;
  sticky: boolean;
  setSticky: (sticky: boolean) => void;
  consistent: boolean;
  setConsistent: (consistent: boolean) => void;
  error: string | undefined;
};

/** What is asked for a snapshot of one vDisk or of several. */
export function SnapshotFields(p: FieldsProps) {
  return (
    <>
      <TextField
        label={msg`Name`}
        name="name"
        value={p.name}
        onValue={p.setName}
        hint={msg`It holds every write that was acknowledged before, however large the vDisk is.`}
        error={p.error}
        input={{ autofocus: true }}
      />
      <CheckField name="sticky" checked={p.sticky} onValue={p.setSticky}>
        {msg`Sticky: it is deleted only when somebody insists, and no rollback goes past it`}
      </CheckField>
      <CheckField name="consistent" checked={p.consistent} onValue={p.setConsistent}>
        {msg`Applications are at rest now: note it as consistent`}
      </CheckField>
    </>
  );
}

/** After a rollback, the way back. */
function RolledBack({ vdisk }: { vdisk: VDisk }) {
  const [undo, setUndo] = useState(false);
  const made = rollbacks.value[vdisk.id];
  if (!made) {
    return null;
  }
  const before: Moment = { pointAt: made.undoAt, seq: made.to.seq, snapshot: "" };
  return (
    <Notice tone="ok">
      <span>
        {rich`Rolled back to ${<b>{pointText(made.to)}</b>} ${<Age at={made.undoAt} />}. Undo takes it to what it was before; the snapshots that were newer do not come back.`}
      </span>
      <span class="row">
        <Button small needs="write" onClick={() => setUndo(true)}>
          {msg`Undo the rollback`}
        </Button>
        <Button small kind="quiet" onClick={() => forget(vdisk.id)}>
          {msg`Dismiss`}
        </Button>
      </span>
      {undo && <RollbackDialog vdisk={vdisk} to={before} undo onClose={() => setUndo(false)} />}
    </Notice>
  );
}
