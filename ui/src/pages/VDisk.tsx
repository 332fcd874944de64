import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Connection, Handover, MoveProgress, VDisk } from "../api/gen";
import { bytes, interval, percent, plural } from "../format";
import { navigate } from "../router";
import { asApiError, ending, reload } from "../store/query";
import { targetKey, useVDisk, vdiskKey } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age, Seen } from "../parts/Age";
import { Button } from "../parts/Button";
import { ConnectPanel } from "../parts/ConnectPanel";
import { Confirm, Dialog } from "../parts/Dialog";
import { LabelChips } from "../parts/LabelChips";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Menu, type MenuGroup, type MenuItem } from "../parts/Menu";
import { ErrorPanel, Notice } from "../parts/Notice";
import { EventsOf } from "../parts/ObjectLink";
import { Card, Facts, Page } from "../parts/Page";
import { Charts } from "../parts/Charts";
import { Tabs } from "../parts/Tabs";
import { CloneDialog } from "./CloneDialog";
import { ExportDialog } from "./Images";
import { LineageTab } from "./Lineage";
import { MaintenanceTab } from "./Maintenance";
import { CreateSnapshotDialog, noSnapshot, SnapshotsTab } from "./Snapshots";
import { VDiskTag, vdiskFace } from "../parts/StateTag";
import { Within } from "../parts/Within";
import { CancelHandoverDialog, CancelMoveDialog, JournalCopyDialog, mirrored, MoveToNodeDialog, MoveToVPoolDialog, StealDialog } from "./VDiskNode";
import { CacheDialog, GrowDialog, HistoryDialog, LabelsDialog, LimitsDialog, PublishDialog, RenameVDiskDialog } from "./VDiskDialogs";
import { limits } from "./TargetGroups";
import { TargetAccess, TargetSessions } from "./TargetParts";
import { msg, noun, rich } from "../text";

/** One vDisk: what it is, how it does, who uses it, and everything that can be done with it. */
export function VDiskPage({ name }: { name: string }) {
  const vdisk = useVDisk(name);
  const v = vdisk.data;
  useEffect(() => {
    if (v && v.name !== name && v.id !== name) {
      navigate(`/vdisks/${encodeURIComponent(v.name)}`, { replace: true });
    }
  }, [v?.name]);
  return (
    <Within on={v && `vpool:${v.vpool}`}>
      <Page
        title={name}
        crumbs={[{ to: "/vdisks", text: msg`vDisks` }]}
        state={
          v && (
            <>
              <VDiskTag state={v.state} reason={v.stateReason} /> <EventsOf object={"vdisk " + v.name} />
            </>
          )
        }
        actions={v && <Actions vdisk={v} />}
      >
        <Load query={vdisk} lines={8}>
          {(shown) => (
            <Tabs
              label={msg`Parts of the vDisk`}
              param="tab"
              tabs={[
                { id: "overview", title: msg`Overview`, content: <OverviewTab vdisk={shown} /> },
                { id: "snapshots", title: msg`Snapshots`, content: <SnapshotsTab vdisk={shown} /> },
                { id: "lineage", title: msg`Lineage`, content: <LineageTab vdisk={shown} /> },
                { id: "maintenance", title: msg`Maintenance`, content: <MaintenanceTab vdisk={shown} /> },
              ]}
            />
          )}
        </Load>
      </Page>
    </Within>
  );
}

function OverviewTab({ vdisk }: { vdisk: VDisk }) {
  return (
    <div class="grid">
      <Trouble vdisk={vdisk} />
      <FactsCard vdisk={vdisk} />
      <SpaceCard vdisk={vdisk} />
      <PublicationCard vdisk={vdisk} />
      <Charts kind="vdisk" id={vdisk.id} name={vdisk.name} at={vdisk.node} />
    </div>
  );
}

type DialogName =
  | "snapshot"
  | "clone"
  | "grow"
  | "rename"
  | "labels"
  | "limits"
  | "cache"
  | "history"
  | "publish"
  | "node"
  | "journal"
  | "vpool"
  | "export"
  | "unpublish"
  | "delete"
  | undefined;

/** What is done most as buttons, the rest in a menu. */
function Actions({ vdisk }: { vdisk: VDisk }) {
  const [open, setOpen] = useState<DialogName>(undefined);
  const close = () => setOpen(undefined);
  const template = vdisk.state === "template";
  const item = (text: string, name: DialogName, reason?: string): MenuItem => ({ text, needs: "write", reason, act: () => setOpen(name) });
  const groups: MenuGroup[] = [
    {
      title: msg`Settings`,
      items: [item(msg`Rename`, "rename"), item(msg`Labels`, "labels"), item(msg`Limits`, "limits"), item(msg`Read cache`, "cache"), item(msg`History`, "history")],
    },
    {
      title: msg`Place`,
      items: [
        item(msg`Change node`, "node", vdisk.handover && !vdisk.handover.failed ? msg`It is being handed over` : undefined),
        item(msg`Change vPool`, "vpool", vdisk.move && !vdisk.move.failed ? msg`It is being moved` : undefined),
        item(msg`Journal copy`, "journal"),
      ],
    },
    { title: msg`Content`, items: [item(msg`Export`, "export"), { text: msg`Commit now`, needs: "write", act: () => void commit(vdisk) }] },
    {
      items: [
        ...(vdisk.published ? [{ ...item(msg`Unpublish`, "unpublish"), danger: true }] : []),
        { ...item(msg`Delete`, "delete", vdisk.published ? msg`Unpublish it first: hosts may be using it` : undefined), danger: true },
      ],
    },
  ];
  return (
    <>
      <Button needs="write" reason={noSnapshot(vdisk)} onClick={() => setOpen("snapshot")}>
        {msg`Snapshot`}
      </Button>
      <Button needs="write" onClick={() => setOpen("clone")}>
        {msg`Clone`}
      </Button>
      <Button needs="write" onClick={() => setOpen("grow")}>
        {msg`Grow`}
      </Button>
      {vdisk.published ? (
        <ConnectButton vdisk={vdisk} />
      ) : (
        <Button kind="primary" needs="write" reason={template ? msg`A template is not served: clone it` : undefined} onClick={() => setOpen("publish")}>
          {msg`Publish`}
        </Button>
      )}
      <Menu groups={groups} label={msg`More actions`} />
      {open === "snapshot" && <CreateSnapshotDialog vdisk={vdisk} onClose={close} />}
      {open === "clone" && <CloneDialog vdisk={vdisk} onClose={close} />}
      {open === "grow" && <GrowDialog vdisk={vdisk} onClose={close} />}
      {open === "rename" && <RenameVDiskDialog vdisk={vdisk} onClose={close} />}
      {open === "labels" && <LabelsDialog vdisk={vdisk} onClose={close} />}
      {open === "limits" && <LimitsDialog vdisk={vdisk} onClose={close} />}
      {open === "cache" && <CacheDialog vdisk={vdisk} onClose={close} />}
      {open === "history" && <HistoryDialog vdisk={vdisk} onClose={close} />}
      {open === "node" && <MoveToNodeDialog vdisk={vdisk} onClose={close} />}
      {open === "journal" && <JournalCopyDialog vdisk={vdisk} onClose={close} />}
      {open === "vpool" && <MoveToVPoolDialog vdisk={vdisk} onClose={close} />}
      {open === "export" && <ExportDialog vdisk={vdisk} onClose={close} />}
      {open === "publish" && <PublishDialog vdisk={vdisk} onClose={close} />}
      {open === "unpublish" && <UnpublishDialog vdisk={vdisk} onClose={close} />}
      {open === "delete" && <DeleteDialog vdisk={vdisk} onClose={close} />}
    </>
  );
}

/** Takes what the journal holds to the backend now. */
async function commit(vdisk: VDisk): Promise<void> {
  try {
    const done = await call("POST /vdisks/{vdisk}/commit", { path: { vdisk: vdisk.name } });
    toast("ok", msg`The backend holds everything up to write ${done.committedSeq}`);
    reload("vdisk:", "vdisks?");
  } catch (error) {
    toast("bad", asApiError(error).message);
  }
}

/** Shows how a published vDisk is reached. The commands hold the secret, so they are asked for, not shown at once. */
function ConnectButton({ vdisk }: { vdisk: VDisk }) {
  const [busy, setBusy] = useState(false);
  const [connection, setConnection] = useState<Connection | undefined>(undefined);
  const ask = async () => {
    setBusy(true);
    try {
      setConnection(await connect(vdisk));
    } catch (error) {
      toast("bad", asApiError(error).message);
    }
    setBusy(false);
  };
  return (
    <>
      <Button kind="primary" needs="write" busy={busy} onClick={() => void ask()}>
        {msg`Connect`}
      </Button>
      {connection && <ConnectDialog vdisk={vdisk} connection={connection} onClose={() => setConnection(undefined)} />}
    </>
  );
}

/** How a published vDisk is reached. */
function connect(vdisk: VDisk): Promise<Connection> {
  return call("POST /vdisks/{vdisk}/publish", { path: { vdisk: vdisk.name }, body: {} });
}

function ConnectDialog({ vdisk, connection, onClose }: { vdisk: VDisk; connection: Connection; onClose: () => void }) {
  return (
    <Dialog title={msg`Connect to ${vdisk.name}`} onClose={onClose}>
      <ConnectPanel connection={connection} />
    </Dialog>
  );
}

function UnpublishDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const sessions = vdisk.published?.sessions ?? 0;
  return (
    <Confirm
      title={msg`Unpublish ${vdisk.name}`}
      verb={sessions > 0 ? msg`Drop ${plural(sessions, noun`session`)} and unpublish` : msg`Unpublish`}
      danger={sessions > 0}
      typeName={sessions > 0 ? vdisk.name : undefined}
      consequences={[
        sessions > 0
          ? msg`${plural(sessions, noun`session`)} of hosts will be dropped; what they have not flushed is lost to them.`
          : msg`No host is connected.`,
        msg`The target, its secret and its list of initiators are removed. The data stays.`,
      ]}
      onClose={onClose}
      act={async () => {
        await ending(targetKey(vdisk.published?.iqn ?? ""), () =>
          call("POST /vdisks/{vdisk}/unpublish", { path: { vdisk: vdisk.id }, body: { force: sessions > 0 } }),
        );
        toast("ok", msg`${vdisk.name} is not published any more`);
        reload("vdisk:", "vdisks?", "targets?", "sessions?", "status");
      }}
    />
  );
}

function DeleteDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  return (
    <Confirm
      title={msg`Delete ${vdisk.name}`}
      verb={msg`Delete vDisk`}
      danger
      typeName={vdisk.name}
      consequences={[
        msg`Its ${bytes(vdisk.mapped)} of data go into the trash of vPool ${vdisk.vpool}, if it keeps deleted vDisks.`,
        msg`Until its time there ends it can be restored, and takes space. Without a trash this cannot be undone.`,
      ]}
      onClose={onClose}
      act={async () => {
        await ending(vdiskKey(vdisk.name), () => call("DELETE /vdisks/{vdisk}", { path: { vdisk: vdisk.id } }));
        toast("ok", msg`${vdisk.name} is deleted`);
        reload("vdisks?", "trash?", "vpools?", "status");
        navigate("/vdisks");
      }}
    />
  );
}

function Trouble({ vdisk }: { vdisk: VDisk }) {
  const [open, setOpen] = useState(false);
  const close = () => setOpen(false);
  const face = vdiskFace(vdisk.state);
  if (face.tone === "ok" || !vdisk.stateReason) {
    return null;
  }
  return (
    <div class="span-12">
      <Notice tone={face.tone}>
        <b>{face.word}</b>
        <span>{vdisk.stateReason}</span>
        {vdisk.state === "lost_tail" && (
          <span class="row">
            <Button small kind="danger" needs="write" onClick={() => setOpen(true)}>
              {msg`Accept the loss and serve it`}
            </Button>
          </span>
        )}
        {vdisk.state === "waiting" && (
          <span class="row">
            <Button small kind="danger" needs="write" onClick={() => setOpen(true)}>
              {msg`Take it over`}
            </Button>
          </span>
        )}
      </Notice>
      {open && (vdisk.state === "waiting" ? <StealDialog vdisk={vdisk} onClose={close} /> : <AcceptLossDialog vdisk={vdisk} onClose={close} />)}
    </div>
  );
}

function AcceptLossDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  return (
    <Confirm
      title={msg`Serve ${vdisk.name} without its lost writes`}
      verb={msg`Accept the loss`}
      danger
      typeName={vdisk.name}
      consequences={[
        msg`Writes that were acknowledged are missing and do not come back.`,
        msg`The vDisk is consistent as of an earlier moment; check its file system before use.`,
      ]}
      onClose={onClose}
      act={async () => {
        await call("POST /vdisks/{vdisk}/acceptLoss", { path: { vdisk: vdisk.name } });
        toast("ok", msg`${vdisk.name} is served again`);
        reload("vdisk:", "vdisks?", "status");
      }}
    />
  );
}

/** How far a move is, with a way to end it. */
function Moving({ vdisk, move }: { vdisk: VDisk; move: MoveProgress }) {
  const [open, setOpen] = useState(false);
  return (
    <span class="row">
      {moving(move)}
      <Button small needs="write" label={msg`Stop the move of ${vdisk.name}`} onClick={() => setOpen(true)}>
        {msg`Stop`}
      </Button>
      {open && <CancelMoveDialog vdisk={vdisk} onClose={() => setOpen(false)} />}
    </span>
  );
}

/** How far a move is, in words. */
function moving(m: MoveProgress): string {
  if (m.failed) {
    return msg`${m.vpool}, given up: ${m.failed}`;
  }
  return m.total ? msg`${m.vpool}, ${bytes(m.copied)} of ${bytes(m.total)} copied` : msg`${m.vpool}, about to begin`;
}

/** Which node serves it and where it goes, with a way to end that. */
function Handing({ vdisk: v, handover: h }: { vdisk: VDisk; handover: Handover }) {
  const [open, setOpen] = useState(false);
  return (
    <span class="row">
      {h.failed ? msg`${v.node}; going to ${h.node} was given up: ${h.failed}` : msg`${v.node}, on its way to ${h.node}`}
      <Button small needs="write" label={msg`Stop the hand-over of ${v.name}`} onClick={() => setOpen(true)}>
        {msg`Stop`}
      </Button>
      {open && <CancelHandoverDialog vdisk={v} onClose={() => setOpen(false)} />}
    </span>
  );
}

function FactsCard({ vdisk: v }: { vdisk: VDisk }) {
  return (
    <Card title={msg`Facts`} class="span-6" aside={<Seen at={v.observedAt} />}>
      <Facts
        rows={[
          [msg`vPool`, <Link key="vpool" to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link>],
          [msg`Node`, v.handover ? <Handing key="node" vdisk={v} handover={v.handover} /> : <Link key="node" to={`/nodes/${encodeURIComponent(v.node)}`}>{v.node}</Link>],
          [msg`Journal mirrored`, mirrored(v.dtl)],
          ...(v.move ? [[msg`Moves to`, <Moving key="move" vdisk={v} move={v.move} />] as [string, ComponentChildren]] : []),
          [msg`Size`, bytes(v.size)],
          [msg`Cluster size`, bytes(v.clusterSize)],
          [msg`Created`, <Age key="created" at={v.created} />],
          [msg`Last commit`, <Age key="commit" at={v.lastCommit} />],
          [msg`Newest write`, msg`${v.lastSeq}, on the backend up to ${v.committedSeq}`],
          [msg`Epoch`, v.epoch],
          [msg`Labels`, <LabelChips key="labels" labels={v.labels} />],
          [msg`Id`, <code key="id">{v.id}</code>],
        ]}
      />
    </Card>
  );
}

/** What the read cache keeps of a vDisk. */
function keeping(c: VDisk["cache"]): string {
  const what = { "on-read": msg`keeps what is read`, "on-write": msg`keeps what is read and written`, none: msg`keeps nothing` };
  return what[c.mode] + (c.quota > 0 ? msg`, at most ${bytes(c.quota)}` : "");
}

function SpaceCard({ vdisk: v }: { vdisk: VDisk }) {
  const fill = v.journal.used / v.journal.quota;
  return (
    <Card title={msg`Space`} class="span-6">
      <div class="stack-wide">
        <div class="stack">
          <div class="row">
            {rich`${<b>{msg`Written`}</b>} ${<span class="spacer" />}${bytes(v.mapped)} of ${bytes(v.size)} (${percent(v.mapped, v.size)})`}
          </div>
          <Meter label={msg`${percent(v.mapped, v.size)} written`} parts={[{ share: v.mapped / v.size }]} />
        </div>
        <div class="stack">
          <div class="row">
            {rich`${<b>{msg`Journal`}</b>} ${<span class="spacer" />}${bytes(v.journal.used)} of ${bytes(v.journal.quota)} (${percent(v.journal.used, v.journal.quota)})`}
          </div>
          <Meter
            label={msg`Journal ${percent(v.journal.used, v.journal.quota)} full`}
            parts={[{ share: fill, class: fillTone(fill) }]}
          />
          <span class="muted small">{msg`Acknowledged and durable here, not yet on the backend.`}</span>
        </div>
        <Facts
          rows={[
            [msg`Stored on the backend`, bytes(v.stored)],
            [msg`In the read cache`, `${bytes(v.cached)}, ${keeping(v.cache)}`],
            [msg`Every moment`, v.history.keepMs ? msg`Kept for ${interval(v.history.keepMs)}` : msg`Not kept by scrubs`],
          ]}
        />
      </div>
    </Card>
  );
}

function PublicationCard({ vdisk }: { vdisk: VDisk }) {
  const p = vdisk.published;
  if (!p) {
    return null;
  }
  return (
    <>
      <section class="span-6 stack">
        <Card title={msg`iSCSI`}>
          <div class="stack-wide">
            <Facts
              rows={[
                [
                  msg`Target`,
                  <Link key="iqn" to={`/iscsi/${encodeURIComponent(p.iqn)}`}>
                    <span class="mono">{p.iqn}</span>
                  </Link>,
                ],
                [msg`LUN`, p.lun],
                [msg`Sessions`, p.sessions],
                [msg`Limits`, limits(vdisk.qos)],
              ]}
            />
            <HowToConnect vdisk={vdisk} />
          </div>
        </Card>
        <TargetSessions iqn={p.iqn} />
      </section>
      <section class="span-6 stack">
        <TargetAccess iqn={p.iqn} vdisk={vdisk.name} />
      </section>
    </>
  );
}

/** The commands hold the secret, so they are asked for, not shown at once. */
function HowToConnect({ vdisk }: { vdisk: VDisk }) {
  const submit = useSubmit();
  const [connection, setConnection] = useState<Connection | undefined>(undefined);
  const [rotate, setRotate] = useState(false);
  const ask = async () => {
    setConnection(await connect(vdisk));
  };
  return (
    <div class="stack">
      <div class="row">
        <Button needs="write" busy={submit.busy} onClick={() => void submit.run(ask)}>
          {msg`Show how to connect`}
        </Button>
        <Button needs="write" onClick={() => setRotate(true)}>
          {msg`New CHAP secret`}
        </Button>
      </div>
      {submit.error && <ErrorPanel error={submit.error} />}
      {connection && (
        <ConnectDialog vdisk={vdisk} connection={connection} onClose={() => setConnection(undefined)} />
      )}
      {rotate && (
        <Confirm
          title={msg`New CHAP secret for ${vdisk.name}`}
          verb={msg`Draw a new secret`}
          consequences={[msg`Sessions that run go on.`, msg`Hosts need the new secret the next time they sign in.`]}
          onClose={() => setRotate(false)}
          act={async () => {
            const path = { vdisk: vdisk.name };
            setConnection(await call("POST /vdisks/{vdisk}/publish", { path, body: { rotateSecret: true } }));
          }}
        />
      )}
    </div>
  );
}
