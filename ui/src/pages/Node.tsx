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
      crumbs={[{ to: "/nodes", text: "Nodes" }]}
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
                <Card title="Checks" class="span-12">
                  <NodeChecks node={shown} />
                </Card>
                <Disks node={shown} />
                <Charts kind="node" id={shown.id} name={shown.name} at={shown.name} />
              </>
            ) : (
              <Card title="Machine" class="span-6">
                <p class="muted">It does not answer, and it alone knows its machine, its places and its history.</p>
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
    return "The registry does not answer, so nobody knows whether it serves. What follows is what was known last.";
  }
  return n.vdisks > 0
    ? `It is down: its ${plural(n.vdisks, "vDisk")} are taken over by other nodes where they can reach what it needs. What follows is what the cluster knows of it.`
    : "It is down. What follows is what the cluster knows of it.";
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
      <Card title="Machine" class="span-6" aside={m && <Seen at={m.observedAt} />}>
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
      <h2>Disks</h2>
      <NodeDisks node={n} layout={useLayout(n.id, disksEveryMs)} />
    </section>
  );
}

/** What the node says is wrong. */
function Causes({ machine }: { machine: Machine }) {
  const { causes } = machine.health;
  return causes.length === 0 ? null : (
    <Card title="Health, as this node sees it" class="span-12">
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
    <Card title="Node" class="span-6" aside={<Seen at={n.observedAt} />}>
      <Facts
        rows={[
          ["Heard", n.self ? "It answers this page" : n.livenessMs !== null ? `${heard(n)} for ${plural(Math.floor(n.livenessMs / 1000), "second")}` : heard(n)],
          ["Load", n.self && !n.load ? <span class="muted">told within a cluster</span> : load(n)],
          ["vDisks", <Link key="vdisks" to={`/vdisks?node=${encodeURIComponent(n.name)}`}>{n.vdisks}</Link>],
          ["Domain", <Link key="domain" to={`/domains/${encodeURIComponent(n.domain || "-")}`}>{n.domain || "not said"}</Link>],
          ["Version", n.version || <span class="muted">not started yet</span>],
          ["Started", <Age key="started" at={n.startedAt} />],
          ["Joined", <Age key="joined" at={n.joinedAt} />],
          ["Console", n.url ? <a key="url" href={n.url}>{n.url}</a> : <span class="muted">not started yet</span>],
          ["Id", <code key="id">{n.id}</code>],
        ]}
      />
    </Card>
  );
}

const services: Record<Listener["service"], string> = {
  api: "API and console",
  iscsi: "iSCSI",
  dtl: "Journal copies",
  gossip: "Gossip",
  alba: "Its devices",
  registry: "Registry",
};

function MachineFacts({ machine: m }: { machine: Machine }) {
  return (
    <Facts
      rows={[
        ["Host", m.hostname],
        ["System", [m.system, m.kernel && `Linux ${m.kernel}`].filter(Boolean).join(", ")],
        ["Processors", `${m.cpus}`],
        ["Memory", m.memory > 0 ? bytes(m.memory) : "not told"],
        ["ovgate", `${m.version}, built with ${m.go}`],
        ...m.listeners.map((l): [string, ComponentChildren] => [services[l.service], <span key={l.service} class="mono">{l.addresses.join(" ")}</span>]),
      ]}
    />
  );
}

const roles: Record<MachinePlace["roles"][number], string> = {
  db: "records",
  write: "journals",
  read: "read cache",
  backend: "vPool",
  alba: "object store",
};

function size(n: number | null): string {
  return n === null ? "–" : bytes(n);
}

const placeColumns: Column<MachinePlace>[] = [
  { key: "path", title: "Place", wrap: true, cell: (p) => <span class="mono">{p.path}</span> },
  { key: "roles", title: "Keeps", wrap: true, cell: (p) => p.roles.map((r) => roles[r]).join(", ") },
  {
    key: "state",
    title: "State",
    wrap: true,
    cell: (p) =>
      p.problem ? <Tag tone="bad" word="Not used" title={p.problem} /> : p.readOnly ? <Tag tone="bad" word="Read only" /> : <Tag tone="ok" word="In use" />,
  },
  { key: "used", title: "Used here", right: true, cell: (p) => (p.used === null ? "–" : p.limit === null ? bytes(p.used) : `${bytes(p.used)} of ${bytes(p.limit)}`) },
  {
    key: "disk",
    title: "File system",
    cell: (p) => {
      if (p.total === null || p.free === null || p.total === 0) {
        return "–";
      }
      const share = (p.total - p.free) / p.total;
      return (
        <span class="cell-meter">
          <Meter label={`${percent(p.total - p.free, p.total)} full`} parts={[{ share, class: fillTone(share) }]} />
          <span class="num small">{percent(p.total - p.free, p.total)}</span>
        </span>
      );
    },
  },
  { key: "free", title: "Free", right: true, cell: (p) => size(p.free) },
  { key: "total", title: "Size", right: true, cell: (p) => size(p.total) },
  { key: "device", title: "Device", cell: (p) => (p.device ? <span class="mono">{p.device}</span> : "–") },
];

function Places({ places }: { places: MachinePlace[] }) {
  const broken = places.filter((p) => p.problem);
  return (
    <section class="span-12 stack">
      <h2>Places</h2>
      {broken.map((p) => (
        <Notice key={p.path} tone="bad">
          {p.path}: {p.problem}
        </Notice>
      ))}
      <DataTable label="Places" columns={placeColumns} rows={places} rowKey={(p) => p.path} />
    </section>
  );
}

const diskColumns: Column<VDisk>[] = [
  { key: "name", title: "Name", cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link> },
  { key: "state", title: "State", cell: (v) => <VDiskTag state={v.state} reason={v.stateReason} /> },
  { key: "vpool", title: "vPool", cell: (v) => <Link to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link> },
  { key: "size", title: "Size", right: true, cell: (v) => bytes(v.size) },
  { key: "stored", title: "Stored", right: true, cell: (v) => bytes(v.stored) },
  { key: "read", title: "Read IOPS", right: true, cell: (v) => count(performanceOf(v).readIops) },
  { key: "write", title: "Write IOPS", right: true, cell: (v) => count(performanceOf(v).writeIops) },
  { key: "latency", title: "p99", right: true, cell: (v) => latency(Math.max(performanceOf(v).readP99Us, performanceOf(v).writeP99Us)) },
];

/** The beginning of what it serves; the list of vDisks has the rest. */
function Served({ node: n }: { node: Member }) {
  const list = useVDisks({ node: n.id, sort: "name" });
  const all = <Link to={`/vdisks?node=${encodeURIComponent(n.name)}`}>All {plural(n.vdisks, "vDisk")}</Link>;
  return (
    <section class="span-12 stack">
      <h2>vDisks that it serves</h2>
      <Load query={list}>
        {(page) =>
          page.items.length === 0 ? (
            <p class="muted">It serves none.</p>
          ) : (
            <>
              <DataTable label="vDisks that it serves" columns={diskColumns} rows={page.items.slice(0, someRows)} rowKey={(v) => v.id} />
              {(page.items.length > someRows || page.next) && <p>{all}</p>}
            </>
          )
        }
      </Load>
    </section>
  );
}

const deviceColumns: Column<OSD>[] = [
  { key: "number", title: "Device", cell: (o) => <Link to={`/disks/${o.number}`}>{`Device ${o.number}`}</Link> },
  { key: "state", title: "State", wrap: true, cell: (o) => <OSDTag osd={o} /> },
  { key: "place", title: "Place", wrap: true, cell: (o) => <span class="mono">{place(o)}</span> },
  { key: "used", title: "Used", cell: (o) => <DeviceMeter osd={o} /> },
  { key: "free", title: "Free", right: true, cell: (o) => bytes(o.free) },
];

/** Its devices of the object store, where it has some. */
function Devices({ node: n }: { node: Member }) {
  const list = useOSDs({ node: n.name });
  if (list.data?.items.length === 0) {
    return null;
  }
  return (
    <section class="span-12 stack">
      <h2>Devices of the object store</h2>
      <Load query={list}>
        {(page) => <DataTable label="Devices of the object store" columns={deviceColumns} rows={page.items} rowKey={(o) => o.uuid} />}
      </Load>
    </section>
  );
}
