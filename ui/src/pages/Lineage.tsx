import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk } from "../api/gen";
import { bytes, percent, time } from "../format";
import { query } from "../router";
import { reload } from "../store/query";
import { useVDisks } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Meter } from "../parts/Meter";
import { ErrorPanel } from "../parts/Notice";
import { Card, Empty, Facts } from "../parts/Page";
import { VDiskTag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { CloneDialog } from "./CloneDialog";
import { msg, noun, rich } from "../text";

/** What a vDisk comes from and what comes from it. */
export function LineageTab({ vdisk }: { vdisk: VDisk }) {
  const cursor = query.value.get("clones") ?? undefined;
  const clones = useVDisks({ parent: vdisk.id, cursor });
  const [open, setOpen] = useState(false);
  return (
    <>
      <ParentCard vdisk={vdisk} hasClones={(clones.data?.items.length ?? 0) > 0} />
      <Card
        title={msg`Clones`}
        aside={
          <span class="row">
            <Button small kind="primary" needs="write" onClick={() => setOpen(true)}>
              {rich`Clone ${vdisk.name}`}
            </Button>
            <TableTools table="vdisk.clones" noun={noun`clone`} columns={columns} read={(cursor, limit) => call("GET /vdisks", { query: { parent: vdisk.id, cursor, limit } })} />
          </span>
        }
      >
        <Load query={clones}>
          {(list) =>
            list.items.length === 0 && !cursor ? (
              <Empty
                title={msg`No clones`}
                text={msg`A clone starts with what this vDisk has at one moment, at once and without a copy.`}
                command={`ovgate vdisk clone ${vdisk.name} NAME`}
              />
            ) : (
              <DataTable label={msg`Clones`} table="vdisk.clones" columns={columns} rows={list.items} rowKey={(v) => v.id} next={list.next} cursor="clones" />
            )
          }
        </Load>
      </Card>
      <TemplateCard vdisk={vdisk} />
      {open && <CloneDialog vdisk={vdisk} onClose={() => setOpen(false)} />}
    </>
  );
}

const columns: Column<VDisk>[] = [
  { key: "name", csv: (v) => v.name, title: msg`Name`, cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link> },
  { key: "state", csv: (v) => v.state, title: msg`State`, cell: (v) => <VDiskTag state={v.state} reason={v.stateReason} /> },
  { key: "from", csv: startOf, title: msg`From`, cell: startOf },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (v) => v.size }, title: msg`Size`, right: true, cell: (v) => bytes(v.size) },
  { key: "stored", csv: { title: msg`Stored of its own (bytes)`, value: (v) => v.stored }, title: msg`Stored of its own`, right: true, cell: (v) => bytes(v.stored) },
  { key: "flatten", title: msg`Flatten`, cell: (v) => (v.flatten ? percent(v.flatten.copied, v.flatten.total) : "–") },
  { key: "created", csv: (v) => v.created, title: msg`Made`, right: true, cell: (v) => <Age at={v.created} /> },
];

/** The point that a clone starts from. */
function startOf(v: VDisk): string {
  const p = v.parent;
  if (p?.snapshot) {
    return msg`snapshot ${p.snapshot}`;
  }
  return p?.pointAt ? time(p.pointAt) : msg`when it was made`;
}

function ParentCard({ vdisk: v, hasClones }: { vdisk: VDisk; hasClones: boolean }) {
  const submit = useSubmit();
  const p = v.parent;
  if (!p) {
    return (
      <Card title={msg`Parent`}>
        <p class="muted">{msg`It is no clone: all that it holds is its own.`}</p>
      </Card>
    );
  }
  const flatten = async () => {
    await call("POST /vdisks/{vdisk}/flatten", { path: { vdisk: v.id } });
    reload("vdisk:", "vdisks?");
  };
  const stop = async () => {
    await call("DELETE /vdisks/{vdisk}/flatten", { path: { vdisk: v.id } });
    toast("ok", msg`Stopped. What was copied stays, and the next flatten goes on there`);
    reload("vdisk:", "vdisks?");
  };
  return (
    <Card title={msg`Parent`}>
      <div class="stack">
        <Facts
          rows={[
            [msg`Clone of`, p.name ? <Link to={`/vdisks/${encodeURIComponent(p.name)}?tab=lineage`}>{p.name}</Link> : msg`a vDisk that is deleted; what it needs of that is kept`],
            [msg`From`, startOf(v)],
          ]}
        />
        {v.flatten ? (
          <>
            <div class="row">
              <b>{msg`Flatten`}</b>
              <span class="spacer" />
              {v.flatten.total > 0 ? msg`${bytes(v.flatten.copied)} of ${bytes(v.flatten.total)} copied` : msg`about to begin`}
            </div>
            <Meter label={msg`Flatten ${percent(v.flatten.copied, v.flatten.total)} done`} parts={[{ share: v.flatten.copied / v.flatten.total }]} />
            <div class="row">
              <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(stop)}>
                {msg`Stop the flatten`}
              </Button>
            </div>
          </>
        ) : (
          <div class="row">
            <Button
              small
              needs="write"
              busy={submit.busy}
              reason={hasClones ? msg`It has clones of its own: flatten or delete those first` : v.state === "template" ? msg`A template does not change` : undefined}
              onClick={() => void submit.run(flatten)}
            >
              {msg`Flatten`}
            </Button>
            <span class="muted small">{msg`Copies what it inherits, in the background, so that it needs its parent no more.`}</span>
          </div>
        )}
        {submit.error && <ErrorPanel error={submit.error} />}
      </div>
    </Card>
  );
}

function TemplateCard({ vdisk: v }: { vdisk: VDisk }) {
  const [ask, setAsk] = useState(false);
  const submit = useSubmit();
  const template = v.state === "template";
  const thaw = async () => {
    await call("DELETE /vdisks/{vdisk}/template", { path: { vdisk: v.id } });
    toast("ok", msg`${v.name} is a vDisk again`);
    reload("vdisk:", "vdisks?", "status");
  };
  return (
    <Card title={msg`Template`}>
      <div class="stack">
        <div class="row">
          {template ? (
            <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(thaw)}>
              {msg`Make it a vDisk again`}
            </Button>
          ) : (
            <Button
              small
              needs="write"
              reason={v.published ? msg`Unpublish it first: a template is not served` : v.flatten ? msg`It is being flattened` : undefined}
              onClick={() => setAsk(true)}
            >
              {msg`Make it a template`}
            </Button>
          )}
          <span class="muted small">
            {template ? msg`It does not change and is not served; clones of it start at once.` : msg`A template is cloned, never written.`}
          </span>
        </div>
        {submit.error && <ErrorPanel error={submit.error} />}
      </div>
      {ask && (
        <Confirm
          title={msg`Make ${v.name} a template`}
          verb={msg`Make it a template`}
          consequences={[msg`It cannot be written or published from now on, until it is made a vDisk again.`, msg`Clones of it start at once and share its data.`]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("PUT /vdisks/{vdisk}/template", { path: { vdisk: v.id } });
            toast("ok", msg`${v.name} is a template`);
            reload("vdisk:", "vdisks?", "status");
          }}
        />
      )}
    </Card>
  );
}
