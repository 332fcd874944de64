import { call } from "../api/client";
import type { VPool } from "../api/gen";
import { bytes, percent } from "../format";
import { navigate, query } from "../router";
import { useVPools } from "../store/reads";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Empty, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { TableTools } from "../parts/TableTools";
import { VPoolTag } from "../parts/StateTag";
import { CreateVPool } from "./CreateVPool";
import { RecoverVPool } from "./RecoverVPool";

/** All vPools. */
export function VPoolsPage({ dialog }: { dialog?: "create" | "recover" }) {
  const filter = {
    q: query.value.get("q") ?? undefined,
    sort: query.value.get("sort") ?? "name",
    cursor: query.value.get("cursor") ?? undefined,
  };
  const list = useVPools(filter);
  const close = () => navigate("/vpools");
  return (
    <Page
      title="vPools"
      actions={
        <>
          <Button needs="manage" onClick={() => navigate("/vpools/recover")}>
            Recover vPool
          </Button>
          <Button kind="primary" needs="manage" onClick={() => navigate("/vpools/new")}>
            Create vPool
          </Button>
        </>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label="Filter vPools by name" />
        <TableTools table="vpools" noun="vPool" columns={columns} read={(cursor, limit) => call("GET /vpools", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={list}>
        {(page) =>
          page.items.length > 0 || filter.cursor ? (
            <DataTable
              label="vPools"
              table="vpools"
              columns={columns}
              rows={page.items}
              rowKey={(p) => p.id}
              order={filter.sort}
              next={page.next}
              peek={{ id: (p) => p.id, name: (p) => p.name }}
            />
          ) : (
            <Nothing filtered={Boolean(filter.q)} />
          )
        }
      </Load>
      <PeekOf>{(m, id) => <m.PeekVPool id={id} />}</PeekOf>
      {dialog === "create" && <CreateVPool onClose={close} />}
      {dialog === "recover" && <RecoverVPool onClose={close} />}
    </Page>
  );
}

const columns: Column<VPool>[] = [
  {
    key: "name",
    title: "Name",
    sort: "name",
    cell: (p) => <Link to={`/vpools/${encodeURIComponent(p.name)}`}>{p.name}</Link>,
    csv: { title: "Name", value: (p) => p.name },
  },
  { key: "state", title: "State", cell: (p) => <VPoolTag state={p.state} reason={p.stateReason} />, csv: { title: "State", value: (p) => p.state } },
  { key: "backend", title: "Backend", wrap: true, cell: (p) => <Place backend={p.backend} />, csv: { title: "Backend", value: (p) => p.backend.kind } },
  {
    key: "vdisks",
    title: "vDisks",
    right: true,
    cell: (p) => <Link to={`/vdisks?vpool=${encodeURIComponent(p.name)}`}>{p.vdisks}</Link>,
    csv: { title: "vDisks", value: (p) => p.vdisks },
  },
  { key: "provisioned", title: "Provisioned", sort: "provisioned", right: true, cell: (p) => bytes(p.provisioned), csv: { title: "Provisioned (bytes)", value: (p) => p.provisioned } },
  { key: "stored", title: "Stored", sort: "stored", right: true, cell: (p) => bytes(p.stored), csv: { title: "Stored (bytes)", value: (p) => p.stored } },
  { key: "disk", title: "Disk used", cell: (p) => <DiskUse vpool={p} />, csv: { title: "Disk used (bytes)", value: (p) => (p.total > 0 ? p.total - p.free : undefined) } },
  { key: "total", title: "Disk size", optional: true, right: true, cell: (p) => (p.total > 0 ? bytes(p.total) : "unknown"), csv: { title: "Disk size (bytes)", value: (p) => p.total || undefined } },
  { key: "created", title: "Created", sort: "created", right: true, cell: (p) => <Age at={p.created} />, csv: { title: "Created", value: (p) => p.created } },
  { key: "id", title: "Id", optional: true, cell: (p) => <code>{p.id}</code>, csv: { title: "Id", value: (p) => p.id } },
];

function Place({ backend: b }: { backend: VPool["backend"] }) {
  const kind = b.kind === "alba" ? (b.preset ? `Object store, preset ${b.preset}` : "Object store") : b.kind === "local" ? "Directory" : `${b.store} (${b.kind === "s3" ? "S3" : "Swift"})`;
  return (
    <>
      {kind} <span class="mono muted small">{b.path}</span>
    </>
  );
}

function DiskUse({ vpool: p }: { vpool: VPool }) {
  if (p.total === 0) {
    return <span class="muted">unknown</span>;
  }
  const used = (p.total - p.free) / p.total;
  return (
    <span class="cell-meter">
      <Meter
        label={`Disk ${percent(p.total - p.free, p.total)} full`}
        parts={[{ share: used, class: fillTone(used) }]}
      />
      <span class="num small">{percent(p.total - p.free, p.total)}</span>
    </span>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title="No vPool matches" text="No vPool has that in its name.">
        <Button onClick={() => navigate("/vpools")}>Clear the filter</Button>
      </Empty>
    );
  }
  return (
    <Empty
      title="No vPools yet"
      text="A vPool says where the data of its vDisks is kept and how. A directory of this node is enough to start."
      command="ovgate vpool create NAME --path DIR"
    >
      <Button kind="primary" needs="manage" onClick={() => navigate("/vpools/new")}>
        Create vPool
      </Button>
    </Empty>
  );
}
