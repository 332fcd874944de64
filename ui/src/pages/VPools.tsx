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
import { msg, noun } from "../text";

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
      title={msg`vPools`}
      actions={
        <>
          <Button needs="manage" onClick={() => navigate("/vpools/recover")}>
            {msg`Recover vPool`}
          </Button>
          <Button kind="primary" needs="manage" onClick={() => navigate("/vpools/new")}>
            {msg`Create vPool`}
          </Button>
        </>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter vPools by name`} />
        <TableTools table="vpools" noun={noun`vPool`} columns={columns} read={(cursor, limit) => call("GET /vpools", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={list}>
        {(page) =>
          page.items.length > 0 || filter.cursor ? (
            <DataTable
              label={msg`vPools`}
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
    title: msg`Name`,
    sort: "name",
    cell: (p) => <Link to={`/vpools/${encodeURIComponent(p.name)}`}>{p.name}</Link>,
    csv: { title: msg`Name`, value: (p) => p.name },
  },
  { key: "state", title: msg`State`, cell: (p) => <VPoolTag state={p.state} reason={p.stateReason} />, csv: { title: msg`State`, value: (p) => p.state } },
  { key: "backend", title: msg`Backend`, wrap: true, cell: (p) => <Place backend={p.backend} />, csv: { title: msg`Backend`, value: (p) => p.backend.kind } },
  {
    key: "vdisks",
    title: msg`vDisks`,
    right: true,
    cell: (p) => <Link to={`/vdisks?vpool=${encodeURIComponent(p.name)}`}>{p.vdisks}</Link>,
    csv: { title: msg`vDisks`, value: (p) => p.vdisks },
  },
  { key: "provisioned", title: msg`Provisioned`, sort: "provisioned", right: true, cell: (p) => bytes(p.provisioned), csv: { title: msg`Provisioned (bytes)`, value: (p) => p.provisioned } },
  { key: "stored", title: msg`Stored`, sort: "stored", right: true, cell: (p) => bytes(p.stored), csv: { title: msg`Stored (bytes)`, value: (p) => p.stored } },
  { key: "disk", title: msg`Disk used`, cell: (p) => <DiskUse vpool={p} />, csv: { title: msg`Disk used (bytes)`, value: (p) => (p.total > 0 ? p.total - p.free : undefined) } },
  { key: "total", title: msg`Disk size`, optional: true, right: true, cell: (p) => (p.total > 0 ? bytes(p.total) : "unknown"), csv: { title: msg`Disk size (bytes)`, value: (p) => p.total || undefined } },
  { key: "created", title: msg`Created`, sort: "created", right: true, cell: (p) => <Age at={p.created} />, csv: { title: msg`Created`, value: (p) => p.created } },
  { key: "id", title: msg`Id`, optional: true, cell: (p) => <code>{p.id}</code>, csv: { title: msg`Id`, value: (p) => p.id } },
];

function Place({ backend: b }: { backend: VPool["backend"] }) {
  const kind = b.kind === "alba" ? (b.preset ? msg`Object store, preset ${b.preset}` : msg`Object store`) : b.kind === "local" ? msg`Directory` : `${b.store} (${b.kind === "s3" ? "S3" : msg`Swift`})`;
  return (
    <>
      {kind} <span class="mono muted small">{b.path}</span>
    </>
  );
}

function DiskUse({ vpool: p }: { vpool: VPool }) {
  if (p.total === 0) {
    return <span class="muted">{msg`unknown`}</span>;
  }
  const used = (p.total - p.free) / p.total;
  return (
    <span class="cell-meter">
      <Meter
        label={msg`Disk ${percent(p.total - p.free, p.total)} full`}
        parts={[{ share: used, class: fillTone(used) }]}
      />
      <span class="num small">{percent(p.total - p.free, p.total)}</span>
    </span>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title={msg`No vPool matches`} text={msg`No vPool has that in its name.`}>
        <Button onClick={() => navigate("/vpools")}>{msg`Clear the filter`}</Button>
      </Empty>
    );
  }
  return (
    <Empty
      title={msg`No vPools yet`}
      text={msg`A vPool says where the data of its vDisks is kept and how. A directory of this node is enough to start.`}
      command="ovgate vpool create NAME --path DIR"
    >
      <Button kind="primary" needs="manage" onClick={() => navigate("/vpools/new")}>
        {msg`Create vPool`}
      </Button>
    </Empty>
  );
}
