import type { ComponentChildren } from "preact";
import { call } from "../api/client";
import type { Listener, Machine, MachinePlace, Member, OSD, VDisk } from "../api/gen";
import { bytes, count, latency, percent, plural } from "../format";
import { useOSDs } from "../store/objects";
import { performanceOf } from "../store/metrics";
import { useQuery } from "../store/query";
import { statusEveryMs, useCluster, useVDisks } from "../store/reads";
import { Age, Seen } from "../parts/Age";
import { Charts } from "../parts/Charts";
import { DataTable, type Column } from "../parts/DataTable";
import { DeviceMeter, OSDTag, place } from "../parts/DeviceParts";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Notice } from "../parts/Notice";
import { EventsOf } from "../parts/ObjectLink";
import { Card, Facts, Page } from "../parts/Page";
import { Tag, VDiskTag } from "../parts/StateTag";
import { disksEveryMs, NodeChecks, NodeDisks, useLayout } from "./NodeSetup";
import { heard, load, NodeActions, NodeTag } from "./Nodes";
import { Cause } from "./Overview";
import { msg, noun, rich } from "../text";

/** Rows of a list that the page shows the beginning of. */
const someRows = 10;

/** One node: what the cluster knows of it, and what it tells itself while it answers. */
export function NodePage({ name }: { name: string }) {
  const node = useQuery("node:" + name, () => call("GET /nodes/{node}", { path: { node: name } }), statusEveryMs);
  const cluster = useCluster();
  const n = node.data;
  return (
    <Page
      title={n?.name ?? name}
      crumbs={[{ to: "/nodes", text: msg`Nodes` }]}
      state={
        n && (
          <>
            <NodeTag node={n} /> <EventsOf object={"node " + n.name} />
          </>
        )
      }
      actions={n && <NodeActions node={n} cluster={cluster.data} />}
    >
      <Load query={node} lines={8}>
        {(shown) => (
          <div class="grid">
            {shown.state !== "up" && (
              <div class="span-12">
                <Notice tone={shown.state === "down" ? "bad" : "warn"}>{awayText(shown)}</Notice>
              </div>
            )}
            <NodeFacts node={shown} />
            {answers(shown) ? (
              <>
                <MachineParts node={shown} />
                <Card title={msg`Checks`} class="span-12">
                  <NodeChecks node={shown} />
                </Card>
                <Disks node={shown} />
                <Charts kind="node" id={shown.id} name={shown.name} at={shown.name} />
              </>
            ) : (
              <Card title={msg`Machine`} class="span-6">
                <p class="muted">{msg`It does not answer, and it alone knows its machine, its places and its history.`}</p>
              </Card>
            )}
            <Served node={shown} />
            <Devices node={shown} />
          </div>
        )}
      </Load>
    </Page>
  );
}

function awayText(n: Member): string {
  if (n.state === "unknown") {
    return msg`The registry does not answer, so nobody knows whether it serves. What follows is what was known last.`;
  }
  return n.vdisks > 0
    ? msg`It is down: its ${plural(n.vdisks, noun`vDisk`)} are taken over by other nodes where they can reach what it needs. What follows is what the cluster knows of it.`
    : msg`It is down. What follows is what the cluster knows of it.`;
}

/** Whether a node may answer what it alone knows: one that is dead is not asked again and again. */
function answers(n: Member): boolean {
  return n.self || n.liveness === "alive" || n.liveness === "suspect" || (n.liveness === "unknown" && n.state === "up");
}

/** What the node tells of itself. */
function MachineParts({ node: n }: { node: Member }) {
  const machine = useQuery("machine:" + n.id, () => call("GET /nodes/{node}/machine", { path: { node: n.id } }), statusEveryMs);
  const m = machine.data;
  return (
    <>
      <Card title={msg`Machine`} class="span-6" aside={m && <Seen at={m.observedAt} />}>
        <Load query={machine} lines={6}>
          {(shown) => <MachineFacts machine={shown} />}
        </Load>
      </Card>
      {m && <Causes machine={m} />}
      {m && <Places places={m.places} />}
    </>
  );
}

/** Its disks and what they are for. */
function Disks({ node: n }: { node: Member }) {
  return (
    <section class="span-12 stack">
      <h2>{msg`Disks`}</h2>
      <NodeDisks node={n} layout={useLayout(n.id, disksEveryMs)} />
    </section>
  );
}

/** What the node says is wrong. */
function Causes({ machine }: { machine: Machine }) {
  const { causes } = machine.health;
  return causes.length === 0 ? null : (
    <Card title={msg`Health, as this node sees it`} class="span-12">
      <ul class="causes">
        {causes.map((c) => (
          <Cause key={c.code + c.object} cause={c} />
        ))}
      </ul>
    </Card>
  );
}

function NodeFacts({ node: n }: { node: Member }) {
  return (
    <Card title={msg`Node`} class="span-6" aside={<Seen at={n.observedAt} />}>
      <Facts
        rows={[
          [msg`Heard`, n.self ? msg`It answers this page` : n.livenessMs !== null ? msg`${heard(n)} for ${plural(Math.floor(n.livenessMs / 1000), noun`second`)}` : heard(n)],
          [msg`Load`, n.self && !n.load ? <span class="muted">{msg`told within a cluster`}</span> : load(n)],
          [msg`vDisks`, <Link key="vdisks" to={`/vdisks?node=${encodeURIComponent(n.name)}`}>{n.vdisks}</Link>],
          [msg`Domain`, <Link key="domain" to={`/domains/${encodeURIComponent(n.domain || "-")}`}>{n.domain || msg`not said`}</Link>],
          [msg`Version`, n.version || <span class="muted">{msg`not started yet`}</span>],
          [msg`Started`, <Age key="started" at={n.startedAt} />],
          [msg`Joined`, <Age key="joined" at={n.joinedAt} />],
          [msg`Console`, n.url ? <a key="url" href={n.url}>{n.url}</a> : <span class="muted">{msg`not started yet`}</span>],
          [msg`Id`, <code key="id">{n.id}</code>],
        ]}
      />
    </Card>
  );
}

const services: Record<Listener["service"], string> = {
  api: msg`API and console`,
  iscsi: msg`iSCSI`,
  dtl: msg`Journal copies`,
  gossip: msg`Gossip`,
  alba: msg`Its devices`,
  registry: msg`Registry`,
};

function MachineFacts({ machine: m }: { machine: Machine }) {
  return (
    <Facts
      rows={[
        [msg`Host`, m.hostname],
        [msg`System`, [m.system, m.kernel && msg`Linux ${m.kernel}`].filter(Boolean).join(", ")],
        [msg`Processors`, `${m.cpus}`],
        [msg`Memory`, m.memory > 0 ? bytes(m.memory) : msg`not told`],
        ["ovgate", msg`${m.version}, built with ${m.go}`],
        ...m.listeners.map((l): [string, ComponentChildren] => [services[l.service], <span key={l.service} class="mono">{l.addresses.join(" ")}</span>]),
      ]}
    />
  );
}

const roles: Record<MachinePlace["roles"][number], string> = {
  db: "records",
  write: "journals",
  read: msg`read cache`,
  backend: msg`vPool`,
  alba: msg`object store`,
};

function size(n: number | null): string {
  return n === null ? "–" : bytes(n);
}

const placeColumns: Column<MachinePlace>[] = [
  { key: "path", title: msg`Place`, wrap: true, cell: (p) => <span class="mono">{p.path}</span> },
  { key: "roles", title: msg`Keeps`, wrap: true, cell: (p) => p.roles.map((r) => roles[r]).join(", ") },
  {
    key: "state",
    title: msg`State`,
    wrap: true,
    cell: (p) =>
      p.problem ? <Tag tone="bad" word={msg`Not used`} title={p.problem} /> : p.readOnly ? <Tag tone="bad" word={msg`Read only`} /> : <Tag tone="ok" word={msg`In use`} />,
  },
  { key: "used", title: msg`Used here`, right: true, cell: (p) => (p.used === null ? "–" : p.limit === null ? bytes(p.used) : msg`${bytes(p.used)} of ${bytes(p.limit)}`) },
  {
    key: "disk",
    title: msg`File system`,
    cell: (p) => {
      if (p.total === null || p.free === null || p.total === 0) {
        return "–";
      }
      const share = (p.total - p.free) / p.total;
      return (
        <span class="cell-meter">
          <Meter label={msg`${percent(p.total - p.free, p.total)} full`} parts={[{ share, class: fillTone(share) }]} />
          <span class="num small">{percent(p.total - p.free, p.total)}</span>
        </span>
      );
    },
  },
  { key: "free", title: msg`Free`, right: true, cell: (p) => size(p.free) },
  { key: "total", title: msg`Size`, right: true, cell: (p) => size(p.total) },
  { key: "device", title: msg`Device`, cell: (p) => (p.device ? <span class="mono">{p.device}</span> : "–") },
];

function Places({ places }: { places: MachinePlace[] }) {
  const broken = places.filter((p) => p.problem);
  return (
    <section class="span-12 stack">
      <h2>{msg`Places`}</h2>
      {broken.map((p) => (
        <Notice key={p.path} tone="bad">
          {p.path}: {p.problem}
        </Notice>
      ))}
      <DataTable label={msg`Places`} columns={placeColumns} rows={places} rowKey={(p) => p.path} />
    </section>
  );
}

const diskColumns: Column<VDisk>[] = [
  { key: "name", title: msg`Name`, cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link> },
  { key: "state", title: msg`State`, cell: (v) => <VDiskTag state={v.state} reason={v.stateReason} /> },
  { key: "vpool", title: msg`vPool`, cell: (v) => <Link to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link> },
  { key: "size", title: msg`Size`, right: true, cell: (v) => bytes(v.size) },
  { key: "stored", title: msg`Stored`, right: true, cell: (v) => bytes(v.stored) },
  { key: "read", title: msg`Read IOPS`, right: true, cell: (v) => count(performanceOf(v).readIops) },
  { key: "write", title: msg`Write IOPS`, right: true, cell: (v) => count(performanceOf(v).writeIops) },
  { key: "latency", title: "p99", right: true, cell: (v) => latency(Math.max(performanceOf(v).readP99Us, performanceOf(v).writeP99Us)) },
];

/** The beginning of what it serves; the list of vDisks has the rest. */
function Served({ node: n }: { node: Member }) {
  const list = useVDisks({ node: n.id, sort: "name" });
  const all = <Link to={`/vdisks?node=${encodeURIComponent(n.name)}`}>{rich`All ${plural(n.vdisks, noun`vDisk`)}`}</Link>;
  return (
    <section class="span-12 stack">
      <h2>{msg`vDisks that it serves`}</h2>
      <Load query={list}>
        {(page) =>
          page.items.length === 0 ? (
            <p class="muted">{msg`It serves none.`}</p>
          ) : (
            <>
              <DataTable label={msg`vDisks that it serves`} columns={diskColumns} rows={page.items.slice(0, someRows)} rowKey={(v) => v.id} />
              {(page.items.length > someRows || page.next) && <p>{all}</p>}
            </>
          )
        }
      </Load>
    </section>
  );
}

const deviceColumns: Column<OSD>[] = [
  { key: "number", title: msg`Device`, cell: (o) => <Link to={`/disks/${o.number}`}>{msg`Device ${o.number}`}</Link> },
  { key: "state", title: msg`State`, wrap: true, cell: (o) => <OSDTag osd={o} /> },
  { key: "place", title: msg`Place`, wrap: true, cell: (o) => <span class="mono">{place(o)}</span> },
  { key: "used", title: msg`Used`, cell: (o) => <DeviceMeter osd={o} /> },
  { key: "free", title: msg`Free`, right: true, cell: (o) => bytes(o.free) },
];

/** Its devices of the object store, where it has some. */
function Devices({ node: n }: { node: Member }) {
  const list = useOSDs({ node: n.name });
  if (list.data?.items.length === 0) {
    return null;
  }
  return (
    <section class="span-12 stack">
      <h2>{msg`Devices of the object store`}</h2>
      <Load query={list}>
        {(page) => <DataTable label={msg`Devices of the object store`} columns={deviceColumns} rows={page.items} rowKey={(o) => o.uuid} />}
      </Load>
    </section>
  );
}
