import { call } from "../api/client";
import { useState } from "preact/hooks";
import type { AuditChange, AuditEntry } from "../api/gen";
import { plural, time } from "../format";
import { navigate, query } from "../router";
import { auditQuery, useAudit, type AuditFilter } from "../store/operations";
import { denied } from "../store/session";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { Load } from "../parts/Load";
import { hoursAsked, NodeFilter, TimeFilter } from "../parts/LogFilters";
import { Notice } from "../parts/Notice";
import { ObjectLink } from "../parts/ObjectLink";
import { Empty, Facts, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { Tag, type Tone } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { msg, noun, rich } from "../text";

/** Who changed what, from where, with what before and after. */
export function AuditPage() {
  const reason = denied("manage");
  if (reason) {
    return (
      <Page title={msg`Audit log`}>
        <Notice tone="info">{rich`${reason}. It tells what every user did.`}</Notice>
      </Page>
    );
  }
  return (
    <Page title={msg`Audit log`}>
      <Filters />
      <Log />
    </Page>
  );
}

function Filters() {
  return (
    <div class="toolbar" role="search">
      <SearchBox label={msg`Filter by object`} placeholder={msg`Object`} />
      <SearchBox label={msg`Filter by user`} param="user" placeholder={msg`User`} />
      <SearchBox label={msg`Filter by operation`} param="operation" placeholder={msg`Operation, such as UpdateVDisk`} />
      <TimeFilter />
      <NodeFilter />
      <TableTools table="audit" noun={noun`change`} columns={columns(() => {})} read={(cursor, limit) => call("GET /audit", { query: { ...auditQuery(asked(), hoursAsked()), cursor, limit } })} />
    </div>
  );
}

/** The filter that the address has. */
function asked(): AuditFilter {
  const get = (name: string) => query.value.get(name) ?? undefined;
  return { q: get("q"), user: get("user"), operation: get("operation"), node: get("node"), cursor: get("cursor") };
}

function Log() {
  const filter = asked();
  const log = useAudit(filter, hoursAsked());
  const [shown, show] = useState<AuditEntry | undefined>(undefined);
  return (
    <>
      <Load query={log} lines={8}>
        {(list) =>
          list.items.length > 0 || list.next || filter.cursor ? (
            <DataTable label={msg`Audit log`} table="audit" columns={columns(show)} rows={list.items} rowKey={(e) => String(e.seq)} next={list.next} />
          ) : (
            <Empty title={msg`No entry matches`} text={msg`Every change that was asked for is here, and every sign-in. Take a part of the filter away to see more.`}>
              <Button onClick={() => navigate("/audit")}>{msg`Clear the filter`}</Button>
            </Empty>
          )
        }
      </Load>
      {shown && <EntryDialog entry={shown} onClose={() => show(undefined)} />}
    </>
  );
}

function columns(show: (e: AuditEntry) => void): Column<AuditEntry>[] {
  return [
    { key: "time", csv: (e) => e.time, title: msg`Time`, cell: (e) => <span class="num">{time(e.time)}</span> },
    { key: "user", csv: (e) => e.user, title: msg`User`, cell: (e) => e.user || <span class="muted">{msg`nobody known`}</span> },
    { key: "operation", csv: (e) => e.operation, title: msg`Operation`, cell: (e) => e.operation },
    { key: "object", csv: (e) => e.object, title: msg`Object`, wrap: true, cell: (e) => <ObjectLink object={e.object} /> },
    { key: "result", csv: (e) => resultOf(e).word, title: msg`Result`, cell: (e) => <Tag {...resultOf(e)} /> },
    { key: "changes", csv: (e) => e.changes.map((c) => `${c.field}: ${c.before ?? ""} → ${c.after}`).join("; "), title: msg`Changes`, wrap: true, cell: (e) => <Summary changes={e.changes} /> },
    {
      key: "details",
      title: msg`Details`,
      right: true,
      cell: (e) => (
        <Button small label={msg`Details of ${e.operation} at ${time(e.time)}`} onClick={() => show(e)}>
          {msg`Details`}
        </Button>
      ),
    },
  ];
}

/** How a request ended. */
function resultOf(e: AuditEntry): { tone: Tone; word: string } {
  const more = e.count > 0 ? msg` and ${e.count} more` : "";
  if (e.operation === "AuditLost") {
    return { tone: "warn", word: msg`${plural(e.count, noun`entry|entries`)} lost` };
  }
  if (e.status === 0) {
    return { tone: "idle", word: msg`Outcome unknown` };
  }
  if (e.status < 400) {
    return { tone: "ok", word: msg`Done` + more };
  }
  return { tone: e.status < 500 ? "warn" : "bad", word: msg`Refused: ${e.code || e.status}${more}` };
}

/** Changes that a row shows; the details show all. */
const summaryMax = 2;

function Summary({ changes }: { changes: AuditChange[] }) {
  return (
    <span class="small">
      {changes.slice(0, summaryMax).map((c) => (
        <div key={c.field}>
          <span class="muted">{c.field}</span> {c.before !== null && `${clip(c.before)} → `}
          {clip(c.after)}
        </div>
      ))}
      {changes.length > summaryMax && <div class="muted">{rich`and ${changes.length - summaryMax} more`}</div>}
    </span>
  );
}

/** Longest value that a row shows. */
const valueMax = 40;

function clip(text: string): string {
  return text.length > valueMax ? text.slice(0, valueMax) + "…" : text || msg`empty`;
}

function EntryDialog({ entry: e, onClose }: { entry: AuditEntry; onClose: () => void }) {
  return (
    <Dialog title={msg`${e.operation} at ${time(e.time)}`} onClose={onClose}>
      <Facts
        rows={[
          [msg`User`, e.user ? msg`${e.user}, role ${e.role}` : msg`nobody known`],
          [msg`From`, e.address || "–"],
          [msg`With`, e.token ? msg`token ${e.token}` : msg`a password or session`],
          [msg`Object`, <ObjectLink object={e.object} />],
          [msg`Result`, <Tag {...resultOf(e)} />],
          [msg`Status`, e.status ? `${e.status}${e.field ? msg`, about field ${e.field}` : ""}` : msg`none: the node stopped meanwhile`],
          [msg`Took`, msg`${e.tookMs} ms`],
          [msg`Request`, <code>{e.requestId}</code>],
          ...(e.node ? ([[msg`Answered by`, e.node]] as [string, string][]) : []),
        ]}
      />
      {e.changes.length > 0 && (
        <DataTable label={msg`Changes`} columns={changeColumns} rows={e.changes} rowKey={(c) => c.field} />
      )}
      <DoneFoot onClose={onClose} />
    </Dialog>
  );
}

const changeColumns: Column<AuditChange>[] = [
  { key: "field", title: msg`Field`, cell: (c) => <code>{c.field}</code> },
  { key: "before", title: msg`Before`, wrap: true, cell: (c) => (c.before === null ? <span class="muted">{msg`not known`}</span> : c.before || msg`empty`) },
  { key: "after", title: msg`After`, wrap: true, cell: (c) => c.after || msg`empty` },
];
