import { call } from "../api/client";
import type { ISCSISession, Target } from "../api/gen";
import { plural } from "../format";
import { navigate, query } from "../router";
import { usePortals, useSessions, useTargets } from "../store/reads";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Card, Empty, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { Tag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { NewTargetDialog } from "./SharedTarget";
import { SessionActions, SessionState } from "./TargetParts";
import { msg, noun } from "../text";

/** Targets, sessions and portals of the node. */
export function ISCSIPage({ create }: { create?: boolean }) {
  return (
    <Page
      title={msg`iSCSI`}
      state={<Portals />}
      actions={
        <Button needs="write" onClick={() => navigate("/iscsi/new")}>
          {msg`New shared target`}
        </Button>
      }
    >
      {create && <NewTargetDialog onClose={() => navigate("/iscsi")} />}
      <div class="stack-wide">
        <Targets />
        <Sessions />
      </div>
    </Page>
  );
}

function Portals() {
  const portals = usePortals();
  if (!portals.data) {
    return null;
  }
  return (
    <span class="row">
      <span class="muted">{msg`Portals`}</span>
      {portals.data.items.map((p) => (
        <span key={p.address} class="chip mono">
          {p.address}
        </span>
      ))}
    </span>
  );
}

const targetColumns: Column<Target>[] = [
  {
    key: "iqn",
    csv: (t) => t.iqn,
    title: msg`Target`,
    wrap: true,
    cell: (t) => (
      <Link to={`/iscsi/${encodeURIComponent(t.iqn)}`}>
        <span class="mono">{t.iqn}</span> {t.shared && <span class="chip">{msg`shared`}</span>}
      </Link>
    ),
  },
  {
    key: "luns",
    csv: (t) => t.luns.map((l) => `${l.lun}: ${l.vdisk}`).join("; "),
    title: msg`LUNs`,
    cell: (t) =>
      t.luns.map((l) => (
        <span key={l.lun}>
          {l.lun}: <Link to={`/vdisks/${encodeURIComponent(l.vdisk)}`}>{l.vdisk}</Link>{" "}
        </span>
      )),
  },
  { key: "access", csv: (t) => (t.open ? "any" : t.acl.join("; ")), title: msg`Access`, cell: (t) => <Access target={t} /> },
  { key: "sessions", csv: (t) => t.sessions, title: msg`Sessions`, right: true, cell: (t) => t.sessions },
  { key: "created", csv: (t) => t.created, title: msg`Created`, right: true, cell: (t) => <Age at={t.created} /> },
];

function Access({ target: t }: { target: Target }) {
  if (t.open) {
    return <span class="chip">{msg`Any with the secret`}</span>;
  }
  return t.acl.length > 0 ? (
    <span class="chip">{plural(t.acl.length, noun`initiator`)}</span>
  ) : (
    <Tag tone="warn" word={msg`Nobody yet`} title={msg`Add an initiator on the target's page`} />
  );
}

function Targets() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const targets = useTargets(filter);
  return (
    <section class="stack">
      <div class="row">
        <h2>{msg`Targets`}</h2>
        <span class="spacer" />
        <span class="toolbar">
          <SearchBox label={msg`Filter targets`} />
          <TableTools table="targets" noun={noun`target`} columns={targetColumns} read={(cursor, limit) => call("GET /targets", { query: { ...filter, cursor, limit } })} />
        </span>
      </div>
      <Load query={targets}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable
              label={msg`Targets`}
              table="targets"
              columns={targetColumns}
              rows={list.items}
              rowKey={(t) => t.iqn}
              next={list.next}
              peek={{ id: (t) => t.iqn, name: (t) => t.iqn }}
            />
          ) : (
            <Card title={filter.q ? msg`No target matches` : msg`No targets yet`}>
              <Empty
                title={filter.q ? msg`Nothing fits the filter` : msg`Nothing is published`}
                text={msg`A vDisk gets a target of its own when it is published.`}
                command="ovgate vdisk publish NAME --open"
              >
                <Button onClick={() => navigate("/vdisks")}>{msg`Open vDisks`}</Button>
              </Empty>
            </Card>
          )
        }
      </Load>
      <PeekOf>{(m, id) => <m.PeekTarget iqn={id} />}</PeekOf>
    </section>
  );
}

const sessionColumns: Column<ISCSISession>[] = [
  { key: "initiator", csv: (s) => s.initiator, title: msg`Initiator`, wrap: true, cell: (s) => <span class="mono">{s.initiator}</span> },
  { key: "address", csv: (s) => s.address, title: msg`From`, cell: (s) => s.address },
  {
    key: "target",
    csv: (s) => s.target,
    title: msg`Target`,
    wrap: true,
    cell: (s) =>
      s.target ? (
        <Link to={`/iscsi/${encodeURIComponent(s.target)}`}>
          <span class="mono">{s.target}</span>
        </Link>
      ) : (
        <span class="muted">{msg`discovery`}</span>
      ),
  },
  { key: "portal", csv: (s) => s.portal, title: msg`Portal`, cell: (s) => s.portal },
  { key: "connections", csv: (s) => s.connections, title: msg`Connections`, right: true, cell: (s) => s.connections },
  { key: "state", title: msg`State`, cell: (s) => <SessionState session={s} /> },
  { key: "since", csv: (s) => s.since, title: msg`Since`, right: true, cell: (s) => <Age at={s.since} /> },
  { key: "drop", title: msg`Action`, right: true, cell: (s) => <SessionActions session={s} /> },
];

/** The page of sessions has a place of its own in the address: targets are paged beside it. */
const sessionCursor = "sessions";

function Sessions() {
  const sessions = useSessions(undefined, query.value.get(sessionCursor) ?? undefined);
  return (
    <section class="stack">
      <div class="row">
        <h2>{msg`Sessions`}</h2>
        <span class="spacer" />
        <TableTools table="iscsi.sessions" noun={noun`session`} columns={sessionColumns} read={(cursor, limit) => call("GET /iscsi/sessions", { query: { cursor, limit } })} />
      </div>
      <Load query={sessions}>
        {(list) =>
          list.items.length === 0 ? (
            <p class="muted">{msg`No host is connected.`}</p>
          ) : (
            <DataTable
              label={msg`Sessions`}
              table="iscsi.sessions"
              columns={sessionColumns}
              rows={list.items}
              rowKey={(s) => s.id}
              next={list.next}
              cursor={sessionCursor}
            />
          )
        }
      </Load>
    </section>
  );
}
