import { call } from "../api/client";
import type { RemoteBackend } from "../api/gen";
import { count, plural } from "../format";
import { navigate, query } from "../router";
import { useBackends } from "../store/objects";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { Tag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { CreateBackendDialog } from "./BackendDialogs";
import { msg, noun } from "../text";

/** The registered S3 and Swift stores. */
export function BackendsPage({ create }: { create?: boolean }) {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const list = useBackends(filter);
  const register = (
    <Button kind="primary" needs="manage" onClick={() => navigate("/backends/new")}>
      {msg`Register backend`}
    </Button>
  );
  return (
    <Page title={msg`Backends`} actions={register}>
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter backends by name`} />
        <TableTools table="backends" noun={noun`backend`} columns={columns} read={(cursor, limit) => call("GET /backends", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={list}>
        {(page) =>
          page.items.length > 0 || filter.cursor ? (
            <DataTable label={msg`Backends`} table="backends" columns={columns} rows={page.items} rowKey={(b) => b.id} next={page.next} />
          ) : filter.q ? (
            <Empty title={msg`No backend matches`} text={msg`No backend has that in its name.`}>
              <Button onClick={() => navigate("/backends")}>{msg`Clear the filter`}</Button>
            </Empty>
          ) : (
            <Empty
              title={msg`No backends yet`}
              text={msg`An S3 or Swift store that vPools may keep their objects in. A directory of this node and its own object store need none.`}
              command="ovgate backend create s3 NAME --url URL --bucket BUCKET --user ACCESSKEY --secret-stdin"
            >
              {register}
            </Empty>
          )
        }
      </Load>
      {create && <CreateBackendDialog onClose={() => navigate("/backends")} />}
    </Page>
  );
}

/** The kind of a store as people call it. */
export function kindName(b: RemoteBackend): string {
  return b.kind === "s3" ? "S3" : msg`Swift`;
}

/** What the newest test said in one word. */
export function BackendTag({ backend: b }: { backend: RemoteBackend }) {
  return b.warnings.length > 0 ? (
    <Tag tone="warn" word={plural(b.warnings.length, noun`warning`)} title={b.warnings.join(" ")} />
  ) : (
    <Tag tone="ok" word={msg`Works`} title={msg`As of the newest test`} />
  );
}

function total(b: RemoteBackend, of: "requests" | "failed"): number {
  return b.requests.reduce((sum, r) => sum + r[of], 0);
}

const columns: Column<RemoteBackend>[] = [
  { key: "name", csv: (b) => b.name, title: msg`Name`, cell: (b) => <Link to={`/backends/${encodeURIComponent(b.name)}`}>{b.name}</Link> },
  { key: "state", csv: (b) => b.warnings.join("; "), title: msg`State`, cell: (b) => <BackendTag backend={b} /> },
  { key: "kind", csv: kindName, title: msg`Store`, cell: kindName },
  {
    key: "url",
    csv: (b) => b.options.url,
    title: msg`Endpoint`,
    wrap: true,
    cell: (b) => <span class="mono">{b.options.url || msg`Amazon's of ${b.options.region || msg`its region`}`}</span>,
  },
  { key: "container", csv: (b) => b.options.container, title: msg`Bucket, container`, wrap: true, cell: (b) => <span class="mono">{b.options.container}</span> },
  { key: "vpools", csv: (b) => b.vpools.length, title: msg`vPools`, right: true, cell: (b) => b.vpools.length },
  { key: "requests", csv: (b) => total(b, "requests"), title: msg`Requests`, right: true, cell: (b) => count(total(b, "requests")) },
  {
    key: "failed",
    csv: (b) => total(b, "failed"),
    title: msg`Failed`,
    right: true,
    cell: (b) => {
      const n = total(b, "failed");
      return n > 0 ? <Tag tone="warn" word={count(n)} /> : "0";
    },
  },
  { key: "tested", csv: (b) => b.testedAt, title: msg`Tested`, right: true, cell: (b) => <Age at={b.testedAt} /> },
];
