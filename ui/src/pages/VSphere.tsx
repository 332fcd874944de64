import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, Datastore, DatastoreSnapshot, HostAction } from "../api/gen";
import { bytes, plural } from "../format";
import { navigate, query } from "../router";
import { ending, reload } from "../store/query";
import { useCenterHosts, useCenters, useDatastores, useDatastoreLive, useDatastoreVMs } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { ForgetDialog } from "../parts/ForgetDialog";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ErrorPanel, Notice } from "../parts/Notice";
import { Card, Empty, Facts, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { SizeField, sizeBytes, sizeInput } from "../parts/SizeField";
import { Tag } from "../parts/StateTag";
import { RemoteTest } from "../parts/RemoteTest";
import { TableTools } from "../parts/TableTools";
import { AddCenter, ChangeCenter } from "./AddCenter";
import { PluginDialog } from "./CenterPlugin";
import { CreateDatastore, ImportDatastore, Plan } from "./CreateDatastore";
import { PresenceTag } from "./PresenceTag";
import { GiveRDM, RDMCard } from "./RDM";
import { msg, noun, rich } from "../text";

/** vCenters, their hosts, and the datastores that are made of vDisks. */
export function VSpherePage({ dialog }: { dialog?: "center" | "datastore" | "import" | "rdm" }) {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const centers = useCenters();
  const datastores = useDatastores(filter);
  const close = () => navigate("/vsphere");
  const none = centers.data?.items.length === 0;
  return (
    <Page
      title={msg`vSphere`}
      actions={
        <>
          <Button needs="manage" onClick={() => navigate("/vsphere/new")}>
            {msg`Add vCenter`}
          </Button>
          <Button needs="manage" reason={none ? msg`Add a vCenter first` : undefined} onClick={() => navigate("/vsphere/import")}>
            {msg`Import datastore`}
          </Button>
          <Button kind="primary" needs="manage" reason={none ? msg`Add a vCenter first` : undefined} onClick={() => navigate("/vsphere/datastores/new")}>
            {msg`Create datastore`}
          </Button>
        </>
      }
    >
      <Load query={centers}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty
              title={msg`No vCenters yet`}
              text={msg`Tell ovgate of a vCenter, or of an ESXi host alone, and it makes VMFS datastores on its hosts: vDisk, target, paths and volume.`}
              command="ovgate vsphere center add NAME --address URL --user USER --secret-stdin"
            >
              <Button kind="primary" needs="manage" onClick={() => navigate("/vsphere/new")}>
                {msg`Add vCenter`}
              </Button>
            </Empty>
          ) : (
            <div class="stack-wide">
              <Card title={msg`vCenters`}>
                <DataTable label={msg`vCenters`} columns={centerColumns} rows={list.items} rowKey={(c) => c.id} />
              </Card>
              <Card title={msg`Datastores`}>
                <div class="toolbar" role="search">
                  <SearchBox label={msg`Filter datastores by name`} />
                  <TableTools table="vsphere.datastores" noun={noun`datastore`} columns={columns} read={(cursor, limit) => call("GET /vsphere/datastores", { query: { ...filter, cursor, limit } })} />
                </div>
                <Load query={datastores}>
                  {(page) =>
                    page.items.length === 0 && !filter.cursor ? (
                      <Empty
                        title={filter.q ? msg`No datastore matches` : msg`No datastores yet`}
                        text={msg`A datastore is a VMFS volume on a vDisk that every host of a cluster reaches.`}
                        command="ovgate vsphere datastore create NAME --center CENTER --cluster CLUSTER --vpool VPOOL --size 1TiB"
                      />
                    ) : (
                      <DataTable label={msg`Datastores`} table="vsphere.datastores" columns={columns} rows={page.items} rowKey={(d) => d.id} next={page.next} />
                    )
                  }
                </Load>
              </Card>
              <RDMCard />
            </div>
          )
        }
      </Load>
      {/* Datastores and raw disks are made at a vCenter: without one, that comes first. */}
      {dialog && centers.data && (dialog === "center" || none ? <AddCenter onClose={close} /> : <MakeAt dialog={dialog} centers={centers.data.items} onClose={close} />)}
    </Page>
  );
}

function MakeAt({ dialog, ...props }: { dialog: "datastore" | "import" | "rdm"; centers: Center[]; onClose: () => void }) {
  return dialog === "datastore" ? <CreateDatastore {...props} /> : dialog === "import" ? <ImportDatastore {...props} /> : <GiveRDM {...props} />;
}

const centerColumns: Column<Center>[] = [
  { key: "name", title: msg`Name`, cell: (c) => c.name },
  {
    key: "state",
    title: msg`State`,
    cell: (c) =>
      c.warnings.length > 0 ? <Tag tone="warn" word={plural(c.warnings.length, noun`warning`)} title={c.warnings.join(". ")} /> : <Tag tone="ok" word={msg`Works`} />,
  },
  { key: "url", title: msg`Address`, wrap: true, cell: (c) => <span class="mono">{c.options.url}</span> },
  { key: "version", title: msg`Version`, cell: (c) => c.version },
  { key: "hosts", title: msg`Hosts`, right: true, cell: (c) => c.hosts },
  { key: "datastores", title: msg`Datastores`, right: true, cell: (c) => c.datastores },
  { key: "tested", title: msg`Tested`, right: true, cell: (c) => <Age at={c.testedAt} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (c) => <CenterActions center={c} /> },
];

function CenterActions({ center: c }: { center: Center }) {
  const [open, setOpen] = useState<"hosts" | "plugin" | "test" | "change" | "forget" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small label={msg`Hosts of ${c.name}`} onClick={() => setOpen("hosts")}>
        {msg`Hosts`}
      </Button>{" "}
      <Button small label={msg`Plug-in at ${c.name}`} onClick={() => setOpen("plugin")}>
        {msg`Plug-in`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Test ${c.name}`} onClick={() => setOpen("test")}>
        {msg`Test`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Change ${c.name}`} onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>{" "}
      <Button
        small
        kind="danger"
        needs="manage"
        label={msg`Forget ${c.name}`}
        reason={c.datastores > 0 ? msg`It has datastores of ovgate: remove them first` : undefined}
        onClick={() => setOpen("forget")}
      >
        {msg`Forget`}
      </Button>
      {open === "hosts" && <HostsDialog center={c} onClose={close} />}
      {open === "plugin" && <PluginDialog center={c} onClose={close} />}
      {open === "change" && <ChangeCenter center={c} onClose={close} />}
      {open === "test" && <TestDialog center={c} onClose={close} />}
      {open === "forget" && (
        <ForgetDialog
          name={c.name}
          what={msg`vCenter`}
          onClose={close}
          forget={async () => {
            await call("DELETE /vsphere/centers/{center}", { path: { center: c.id } });
            reload("centers?");
          }}
        />
      )}
    </>
  );
}

function TestDialog({ center, onClose }: { center: Center; onClose: () => void }) {
  const test = async () => {
    const { steps } = await call("POST /vsphere/centers/{center}/test", { path: { center: center.id } });
    reload("centers?");
    return steps;
  };
  return (
    <RemoteTest
      name={center.name}
      facts={[
        [msg`User`, center.options.user],
        [msg`Trusted certificate, SHA-256`, <code key="thumbprint">{center.options.thumbprint}</code>],
        [msg`Told events of datastores`, center.options.events ? msg`Yes` : msg`No`],
        [msg`Mutual CHAP`, center.options.mutualChap ? msg`Yes` : msg`No`],
      ]}
      warnings={center.warnings}
      test={test}
      onClose={onClose}
    />
  );
}

/** The hosts of a vCenter, and what preparing a cluster for datastores would do. */
function HostsDialog({ center, onClose }: { center: Center; onClose: () => void }) {
  const hosts = useCenterHosts(center.id);
  const submit = useSubmit();
  const [plan, setPlan] = useState<{ cluster: string; name: string; actions: HostAction[] } | undefined>(undefined);
  const prepare = async (cluster: string, name: string, dryRun: boolean) => {
    const done = await call("POST /vsphere/centers/{center}/prepare", { path: { center: center.id }, body: { cluster, dryRun } });
    if (dryRun) {
      setPlan({ cluster, name, actions: done.actions });
    } else {
      setPlan(undefined);
      toast("ok", msg`Hosts of ${name} are prepared`);
    }
  };
  return (
    <Dialog title={msg`Hosts of ${center.name}`} onClose={onClose}>
      <Load query={hosts}>
        {(list) => (
          <>
            <DataTable
              label={msg`Hosts`}
              rows={list.items}
              rowKey={(h) => h.id}
              columns={[
                { key: "name", title: msg`Host`, wrap: true, cell: (h) => h.name },
                { key: "cluster", title: msg`Cluster`, cell: (h) => h.cluster },
                {
                  key: "state",
                  title: msg`State`,
                  cell: (h) => <Tag tone={h.state !== "connected" ? "bad" : h.maintenance ? "warn" : "ok"} word={h.maintenance ? msg`In maintenance` : h.state} />,
                },
                { key: "version", title: msg`Version`, cell: (h) => h.version },
              ]}
            />
            <div class="row">
              {[...new Map(list.items.map((h) => [h.clusterId, h.cluster]))].map(([id, name]) => (
                <Button key={id} small needs="manage" busy={submit.busy} onClick={() => void submit.run(() => prepare(id, name, true))}>
                  {rich`Prepare ${name}`}
                </Button>
              ))}
            </div>
          </>
        )}
      </Load>
      {plan && (
        <>
          <Plan actions={plan.actions} />
          <div class="dialog-foot">
            <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(() => prepare(plan.cluster, plan.name, false))}>
              {rich`Do this on ${plan.name}`}
            </Button>
          </div>
        </>
      )}
      {submit.error && <ErrorPanel error={submit.error} />}
    </Dialog>
  );
}

const columns: Column<Datastore>[] = [
  { key: "name", csv: (d) => d.name, title: msg`Name`, cell: (d) => d.name },
  {
    key: "state",
    csv: (d) => d.warnings.join("; "),
    title: msg`State`,
    cell: (d) => (
      <>
        <PresenceTag of={d} />
        {d.warnings.length > 0 && <Tag tone="warn" word={plural(d.warnings.length, noun`warning`)} title={d.warnings.join(". ")} />}
      </>
    ),
  },
  { key: "center", csv: (d) => `${d.center}, ${d.cluster}`, title: msg`vCenter`, cell: (d) => `${d.center}, ${d.cluster}` },
  { key: "vpool", csv: (d) => d.vpool, title: msg`vPool`, cell: (d) => <Link to={`/vpools/${encodeURIComponent(d.vpool)}`}>{d.vpool}</Link> },
  { key: "vdisk", csv: (d) => d.vdisk, title: msg`vDisk`, cell: (d) => (d.vdisk ? <Link to={`/vdisks/${encodeURIComponent(d.vdisk)}`}>{msg`Show`}</Link> : "–") },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (d) => d.size }, title: msg`Size`, right: true, cell: (d) => bytes(d.size) },
  { key: "created", csv: (d) => d.created, title: msg`Made`, right: true, cell: (d) => <Age at={d.created} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (d) => <DatastoreActions datastore={d} /> },
];

function DatastoreActions({ datastore: d }: { datastore: Datastore }) {
  const [open, setOpen] = useState<"live" | "snapshot" | "expand" | "rename" | "remove" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const submit = useSubmit();
  const busy = d.job ? msg`It is busy: ${d.job.kind}` : undefined;
  const attach = async () => {
    await call("POST /vsphere/datastores/{datastore}/attach", { path: { datastore: d.id } });
    reload("datastores?");
  };
  return (
    <>
      <Button small label={msg`Live state of ${d.name}`} onClick={() => setOpen("live")}>
        {msg`Live`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Snapshot of ${d.name}`} reason={busy} onClick={() => setOpen("snapshot")}>
        {msg`Snapshot`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Attach ${d.name}`} reason={busy} busy={submit.busy} onClick={() => void submit.run(attach)}>
        {msg`Attach`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Expand ${d.name}`} reason={busy} onClick={() => setOpen("expand")}>
        {msg`Expand`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Rename ${d.name}`} reason={busy} onClick={() => setOpen("rename")}>
        {msg`Rename`}
      </Button>{" "}
      <Button small kind="danger" needs="manage" label={msg`Remove ${d.name}`} onClick={() => setOpen("remove")}>
        {msg`Remove`}
      </Button>
      {submit.error && <ErrorPanel error={submit.error} />}
      {open === "live" && <LiveDialog datastore={d} onClose={close} />}
      {open === "snapshot" && <SnapshotDialog datastore={d} onClose={close} />}
      {open === "expand" && <ExpandDialog datastore={d} onClose={close} />}
      {open === "rename" && <RenameDialog datastore={d} onClose={close} />}
      {open === "remove" && (
        <Confirm
          title={msg`Remove ${d.name}`}
          verb={msg`Remove datastore`}
          danger
          typeName={d.name}
          consequences={[
            msg`It is refused while virtual machines are on it.`,
            msg`It is destroyed, detached on every host, and its vDisk deleted, in that order and in the background.`,
          ]}
          onClose={close}
          act={async () => {
            await ending("datastore:" + d.id, () => call("DELETE /vsphere/datastores/{datastore}", { path: { datastore: d.id } }));
            toast("ok", msg`${d.name} is being removed`);
            reload("datastores?", "centers?");
          }}
        />
      )}
    </>
  );
}

/** The virtual machines on a datastore. */
function VMs({ datastore: d }: { datastore: Datastore }) {
  return (
    <Load query={useDatastoreVMs(d.id)}>
      {(list) => (
        <>
          {list.sources
            .filter((s) => s.problem)
            .map((s) => (
              <Notice key={s.center} tone="warn">
                <b>{rich`${s.center} tells of no changes of virtual machines.`}</b> <span>{s.problem}</span>
                {s.seenAt && (
                  <span>
                    {rich`Seen ${<Age at={s.seenAt} />}`}
                  </span>
                )}
              </Notice>
            ))}
          {list.items.length > 0 && (
            <DataTable
              label={msg`Virtual machines`}
              rows={list.items}
              rowKey={(v) => v.id}
              columns={[
                { key: "name", title: msg`Virtual machine`, wrap: true, cell: (v) => v.name },
                { key: "power", title: msg`State`, cell: (v) => <Tag tone={v.power === "poweredOn" ? "ok" : "idle"} word={v.template ? msg`Template` : powers[v.power] ?? v.power} /> },
                { key: "host", title: msg`Runs on`, wrap: true, cell: (v) => v.host || "–" },
              ]}
            />
          )}
          {list.next && <span>{rich`There are more: ovgate vsphere vm list --datastore ${d.name}`}</span>}
        </>
      )}
    </Load>
  );
}

const powers: Record<string, string> = { poweredOn: msg`On`, poweredOff: msg`Off`, suspended: msg`Suspended` };

function LiveDialog({ datastore: d, onClose }: { datastore: Datastore; onClose: () => void }) {
  const live = useDatastoreLive(d.id);
  return (
    <Dialog title={d.name} onClose={onClose}>
      {d.job && (
        <Notice tone={d.job.error ? "warn" : "info"}>
          <b>
            {d.job.kind}: {d.job.steps.map((s) => (s === d.job?.step ? `▸ ${s}` : s)).join(", ")}
          </b>
          {d.job.error && (
            <span>
              {rich`${d.job.error}. ${d.job.hint} It is tried again by itself; ${plural(d.job.tries, noun`try|tries`)} failed.`}
            </span>
          )}
          {d.job.notes.map((n) => (
            <span key={n}>{n}</span>
          ))}
        </Notice>
      )}
      <Load query={live}>
        {(l) => (
          <div class="stack">
            <Facts
              rows={[
                [msg`Free`, msg`${bytes(l.free)} of ${bytes(l.capacity)}`],
                [msg`Stored`, bytes(l.stored)],
                [msg`Virtual machines`, l.vms],
                [msg`LUN`, <code key="naa">{d.naa || msg`not made yet`}</code>],
                [msg`Seen`, <Age key="seen" at={l.observedAt} />],
                ...[...d.snapshots].reverse().map((s): [string, string] => [msg`Snapshot ${s.name}`, snapshotText(s)]),
              ]}
            />
            <DataTable
              label={msg`Hosts and their paths`}
              rows={l.hosts}
              rowKey={(h) => h.host}
              columns={[
                { key: "host", title: msg`Host`, wrap: true, cell: (h) => h.host },
                {
                  key: "state",
                  title: msg`State`,
                  cell: (h) => <Tag tone={h.accessible && h.mounted ? "ok" : "bad"} word={h.accessible && h.mounted ? msg`Mounted` : msg`Not there`} title={h.away || h.reason} />,
                },
                { key: "policy", title: msg`Policy`, cell: (h) => h.policy },
                { key: "paths", title: msg`Paths`, wrap: true, cell: (h) => h.paths.map((p) => `${p.portal} ${p.state}`).join(", ") || msg`none` },
              ]}
            />
            <VMs datastore={d} />
          </div>
        )}
      </Load>
    </Dialog>
  );
}

function ExpandDialog({ datastore: d, onClose }: { datastore: Datastore; onClose: () => void }) {
  const submit = useSubmit();
  const [size, setSize] = useState(sizeInput(d.size));
  const wanted = sizeBytes(size);
  const problem = Number.isNaN(wanted) ? msg`Enter a size, such as 200` : undefined;
  const save = async () => {
    if (!problem) {
      await call("POST /vsphere/datastores/{datastore}/expand", { path: { datastore: d.id }, body: { size: wanted } });
      toast("ok", msg`${d.name} is being grown`);
      reload("datastores?");
      onClose();
    }
  };
  return (
    <FormDialog title={msg`Expand ${d.name}`} verb={msg`Expand`} submit={submit} fields={["size"]} save={save} onClose={onClose}>
      <SizeField label={msg`New size`} name="size" value={size} onValue={setSize} hint={msg`Now ${bytes(d.size)}. vDisk and volume grow, in use.`} error={problem ?? submit.at("size")} />
    </FormDialog>
  );
}

/** Makes a snapshot with the virtual machines quiesced. How it went is in the live dialog. */
function SnapshotDialog({ datastore: d, onClose }: { datastore: Datastore; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [require, setRequire] = useState(false);
  const save = async () => {
    await call("POST /vsphere/datastores/{datastore}/snapshot", { path: { datastore: d.id }, body: { name: name.trim(), require } });
    toast("ok", msg`A snapshot of ${d.name} is being made`);
    reload("datastores?");
    onClose();
  };
  return (
    <FormDialog title={msg`Snapshot of ${d.name}`} verb={msg`Make snapshot`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <p>{msg`The guests of its virtual machines write out what they hold first. The snapshot is one of its vDisk, from which a clone can be imported.`}</p>
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} />
      <CheckField name="require" checked={require} onValue={setRequire}>
        {msg`Only with every virtual machine quiesced`}
      </CheckField>
    </FormDialog>
  );
}

function snapshotText(s: DatastoreSnapshot): string {
  const bad = s.machines.filter((m) => !m.quiesced);
  if (s.failed) {
    return msg`Not made: ${s.failed}`;
  }
  return bad.length === 0 ? msg`All ${s.machines.length} virtual machines quiesced` : msg`Not quiesced: ${bad.map((m) => m.name).join(", ")}`;
}

function RenameDialog({ datastore: d, onClose }: { datastore: Datastore; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState(d.name);
  const save = async () => {
    await call("POST /vsphere/datastores/{datastore}/rename", { path: { datastore: d.id }, body: { name: name.trim() } });
    toast("ok", msg`${d.name} is being renamed`);
    reload("datastores?");
    onClose();
  };
  return (
    <FormDialog title={msg`Rename ${d.name}`} verb={msg`Rename`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} hint={msg`In the vCenter too. Its vDisk keeps its own.`} error={submit.at("name")} />
    </FormDialog>
  );
}
