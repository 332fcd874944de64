import type { ComponentChildren } from "preact";
import { call } from "../api/client";
import type { Member, VDisk, VDiskState } from "../api/gen";
import { bytes, count, latency, percent, plural } from "../format";
import { navigate, query, setQuery } from "../router";
import { performanceOf } from "../store/metrics";
import { useNodes, useVDisks, useVPoolChoices, type VDiskFilter } from "../store/reads";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, useChoice, type Column } from "../parts/DataTable";
import { Lazy } from "../parts/Lazy";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Meter } from "../parts/Meter";
import { Empty, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { TableTools } from "../parts/TableTools";
import { copyFace, copyStates, Tag, VDiskTag, vdiskFace, vdiskStates } from "../parts/StateTag";
import { CreateVDisk } from "./CreateVDisk";
import { GroupSnapshot } from "./GroupSnapshot";
import { msg, noun, rich } from "../text";

const loadImages = () => import("./Images");
const loadBulk = () => import("./BulkVDisks");

/** The list's filter as the address says it. */
function filterOf(q: URLSearchParams): VDiskFilter {
  return {
    q: q.get("q") ?? undefined,
    vpool: q.get("vpool") ?? undefined,
    node: q.get("node") ?? undefined,
    state: vdiskStates.find((s) => s === q.get("state")) as VDiskState | undefined,
    dtl: copyStates.find((s) => s === q.get("dtl")),
    sort: q.get("sort") ?? "name",
    cursor: q.get("cursor") ?? undefined,
  };
}

/** All vDisks: filtered, sorted and paged by the node, updated by its events. */
export function VDisksPage({ dialog }: { dialog?: "create" | "import" }) {
  const filter = filterOf(query.value);
  const list = useVDisks(filter);
  const nodes = useNodes().data?.items ?? [];
  const several = nodes.length > 1;
  const all = several ? clusterColumns : columns;
  const close = () => navigate("/vdisks");
  const [chosen, choose] = useChoice(JSON.stringify(filter));
  const picked = list.data?.items.filter((v) => chosen.has(v.id)) ?? [];
  const filtered = Boolean(filter.q || filter.vpool || filter.node || filter.state || filter.dtl);
  return (
    <Page
      title={msg`vDisks`}
      state={list.data && <span class="muted">{shown(list.data.items.length, list.data.next)}</span>}
      actions={
        <>
          <Button onClick={() => navigate("/trash")}>{msg`Trash`}</Button>
          <Button needs="write" onClick={() => navigate("/vdisks/import")}>
            {msg`Import image`}
          </Button>
          <Button kind="primary" needs="write" onClick={() => navigate("/vdisks/new")}>
            {msg`Create vDisk`}
          </Button>
        </>
      }
    >
      <Filters filter={filter} nodes={several || filter.node ? nodes : []}>
        {chosen.size > 0 && (
          <>
            {picked.length > 0 && <GroupSnapshot vdisks={picked} done={() => choose(new Set())} />}
            <Lazy load={loadBulk} waiting={null}>
              {(b) => <b.BulkActions vdisks={picked} choose={choose} />}
            </Lazy>
          </>
        )}
        <TableTools table="vdisks" noun={noun`vDisk`} columns={all} read={(cursor, limit) => call("GET /vdisks", { query: { ...filter, cursor, limit } })} />
      </Filters>
      <Load query={list} lines={8}>
        {(page) =>
          page.items.length > 0 || filter.cursor ? (
            <DataTable
              label={msg`vDisks`}
              table="vdisks"
              columns={all}
              rows={page.items}
              rowKey={(v) => v.id}
              order={filter.sort}
              next={page.next}
              choice={{ chosen, choose, name: (v) => v.name }}
              peek={{ id: (v) => v.id, name: (v) => v.name }}
            />
          ) : (
            <Nothing filtered={filtered} />
          )
        }
      </Load>
      <PeekOf>{(m, id) => <m.PeekVDisk id={id} />}</PeekOf>
      {dialog === "create" && <CreateVDisk onClose={close} />}
      {dialog === "import" && (
        <Lazy load={loadImages} waiting={null}>
          {(i) => <i.ImportImage onClose={close} />}
        </Lazy>
      )}
    </Page>
  );
}

function shown(n: number, next: string | null): string {
  return next ? msg`${n} on this page` : plural(n, noun`vDisk`);
}

const columns: Column<VDisk>[] = [
  {
    key: "name",
    title: msg`Name`,
    sort: "name",
    cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link>,
    csv: { title: msg`Name`, value: (v) => v.name },
  },
  { key: "state", title: msg`State`, sort: "state", cell: (v) => <VDiskTag state={v.state} reason={v.stateReason} />, csv: { title: msg`State`, value: (v) => v.state } },
  {
    key: "vpool",
    title: msg`vPool`,
    sort: "vpool",
    cell: (v) => <Link to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link>,
    csv: { title: msg`vPool`, value: (v) => v.vpool },
  },
  // Which node serves it, and whether another one has a copy of its journal: usual where there are several nodes.
  { key: "node", title: msg`Node`, optional: true, cell: (v) => <Link to={`/nodes/${encodeURIComponent(v.node)}`}>{v.node}</Link>, csv: { title: msg`Node`, value: (v) => v.node } },
  {
    key: "dtl",
    title: msg`Journal copy`,
    optional: true,
    cell: (v) => <Tag {...copyFace(v.dtl.state)} title={v.dtl.reason} />,
    csv: { title: msg`Journal copy`, value: (v) => v.dtl.state },
  },
  { key: "size", title: msg`Size`, sort: "size", right: true, cell: (v) => bytes(v.size), csv: { title: msg`Size (bytes)`, value: (v) => v.size } },
  {
    key: "mapped",
    title: msg`Written`,
    sort: "mapped",
    cell: (v) => (
      <span class="cell-meter">
        <Meter label={msg`${bytes(v.mapped)} of ${bytes(v.size)} written`} parts={[{ share: v.mapped / v.size }]} />
        <span class="num small">{bytes(v.mapped)}</span>
      </span>
    ),
    csv: { title: msg`Written (bytes)`, value: (v) => v.mapped },
  },
  { key: "stored", title: msg`Stored`, sort: "stored", right: true, cell: (v) => bytes(v.stored), csv: { title: msg`Stored (bytes)`, value: (v) => v.stored } },
  {
    key: "cached",
    title: msg`In the read cache`,
    optional: true,
    right: true,
    cell: (v) => bytes(v.cached),
    csv: { title: msg`In the read cache (bytes)`, value: (v) => v.cached },
  },
  {
    key: "journal",
    title: msg`Journal`,
    optional: true,
    right: true,
    cell: (v) => percent(v.journal.used, v.journal.quota),
    csv: { title: msg`Journal (bytes)`, value: (v) => v.journal.used },
  },
  {
    key: "readIops",
    title: msg`Read IOPS`,
    sort: "readIops",
    right: true,
    cell: (v) => count(performanceOf(v).readIops),
    csv: { title: msg`Read IOPS`, value: (v) => performanceOf(v).readIops },
  },
  {
    key: "writeIops",
    title: msg`Write IOPS`,
    sort: "writeIops",
    right: true,
    cell: (v) => count(performanceOf(v).writeIops),
    csv: { title: msg`Write IOPS`, value: (v) => performanceOf(v).writeIops },
  },
  { key: "latency", title: "p99", sort: "latency", right: true, cell: (v) => latency(slowest(v)), csv: { title: "p99 (µs)", value: slowest } },
  { key: "published", title: msg`Published`, cell: (v) => <Publication vdisk={v} />, csv: { title: msg`Published`, value: (v) => v.published?.iqn } },
  { key: "sessions", title: msg`Sessions`, right: true, cell: (v) => v.published?.sessions ?? "–", csv: { title: msg`Sessions`, value: (v) => v.published?.sessions } },
  { key: "labels", title: msg`Labels`, wrap: true, cell: (v) => <Labels vdisk={v} />, csv: { title: msg`Labels`, value: (v) => labelTexts(v).join("; ") } },
  {
    key: "commit",
    title: msg`Last commit`,
    optional: true,
    right: true,
    cell: (v) => <Age at={v.lastCommit} />,
    csv: { title: msg`Last commit`, value: (v) => v.lastCommit },
  },
  { key: "created", title: msg`Created`, sort: "created", right: true, cell: (v) => <Age at={v.created} />, csv: { title: msg`Created`, value: (v) => v.created } },
  { key: "id", title: msg`Id`, optional: true, cell: (v) => <code>{v.id}</code>, csv: { title: msg`Id`, value: (v) => v.id } },
];

const clusterColumns = columns.map((c) => (c.key === "node" || c.key === "dtl" ? { ...c, optional: false } : c));

function slowest(v: VDisk): number {
  const p = performanceOf(v);
  return Math.max(p.readP99Us, p.writeP99Us);
}

/** Most labels that a row shows. */
const labelsMax = 3;

function labelTexts(v: VDisk): string[] {
  return Object.entries(v.labels).map(([name, value]) => (value ? `${name}=${value}` : name));
}

function Labels({ vdisk }: { vdisk: VDisk }) {
  const all = labelTexts(vdisk);
  if (all.length === 0) {
    return <>–</>;
  }
  return (
    <span class="row" title={all.join(", ")}>
      {all.slice(0, labelsMax).map((l) => (
        <span key={l} class="chip">
          {l}
        </span>
      ))}
      {all.length > labelsMax && <span class="muted small">{rich`and ${all.length - labelsMax}`}</span>}
    </span>
  );
}

function Publication({ vdisk }: { vdisk: VDisk }) {
  if (!vdisk.published) {
    return <Tag tone="idle" word={msg`No`} />;
  }
  return <Tag tone="ok" word={msg`iSCSI LUN ${vdisk.published.lun}`} title={vdisk.published.iqn} />;
}

function Filters({ filter, nodes, children }: { filter: VDiskFilter; nodes: Member[]; children: ComponentChildren }) {
  const vpools = useVPoolChoices();
  return (
    <div class="toolbar" role="search">
      <SearchBox label={msg`Filter vDisks by name or label`} />
      <select
        aria-label={msg`vPool`}
        value={filter.vpool ?? ""}
        onChange={(event) => setQuery({ vpool: event.currentTarget.value, cursor: undefined }, { replace: true })}
      >
        <option value="">{msg`All vPools`}</option>
        {vpools.data?.items.map((p) => <option key={p.id}>{p.name}</option>)}
      </select>
      {nodes.length > 0 && (
        <select
          aria-label={msg`Node`}
          value={filter.node ?? ""}
          onChange={(event) => setQuery({ node: event.currentTarget.value, cursor: undefined }, { replace: true })}
        >
          <option value="">{msg`All nodes`}</option>
          {nodes.map((n) => <option key={n.id}>{n.name}</option>)}
        </select>
      )}
      <select
        aria-label={msg`State`}
        value={filter.state ?? ""}
        onChange={(event) => setQuery({ state: event.currentTarget.value, cursor: undefined }, { replace: true })}
      >
        <option value="">{msg`All states`}</option>
        {vdiskStates.map((s) => (
          <option key={s} value={s}>
            {vdiskFace(s).word}
          </option>
        ))}
      </select>
      {(nodes.length > 0 || filter.dtl) && (
        <select
          aria-label={msg`Journal copy`}
          value={filter.dtl ?? ""}
          onChange={(event) => setQuery({ dtl: event.currentTarget.value, cursor: undefined }, { replace: true })}
        >
          <option value="">{msg`Any journal copy`}</option>
          {copyStates.map((s) => (
            <option key={s} value={s}>
              {rich`Copy: ${copyFace(s).word.toLowerCase()}`}
            </option>
          ))}
        </select>
      )}
      {children}
    </div>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title={msg`No vDisk matches`} text={msg`Nothing fits the filter. Take a part of it away to see more.`}>
        <Button onClick={() => navigate("/vdisks")}>{msg`Clear the filter`}</Button>
      </Empty>
    );
  }
  return (
    <Empty
      title={msg`No vDisks yet`}
      text={msg`A vDisk is a virtual disk kept on a vPool. Hosts reach it over iSCSI once it is published.`}
      command="ovgate vdisk create NAME --vpool VPOOL --size 100GiB"
    >
      <Button kind="primary" needs="write" onClick={() => navigate("/vdisks/new")}>
        {msg`Create vDisk`}
      </Button>
    </Empty>
  );
}
