import type { AlbaEvent } from "../api/gen";
import { liveSince } from "../api/events";
import { capital, time } from "../format";
import { navigate, query, setQuery } from "../router";
import { entries, type Entry, type Kind } from "../store/journal";
import { useAlba } from "../store/objects";
import { pageSize } from "../store/reads";
import { denied } from "../store/session";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { ObjectLink } from "../parts/ObjectLink";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { Tag, type Tone } from "../parts/StateTag";

type Row = { key: string; at: number; kind: Kind | "osd"; object: string; tone: Tone; text: string };

const kinds: Record<Row["kind"], string> = {
  vdisk: "vDisks",
  vpool: "vPools",
  target: "Targets",
  session: "iSCSI sessions",
  node: "Nodes",
  health: "Health",
  osd: "Devices",
};

/** What happens: from the stream since the tab was opened, and what the object store remembers of devices. */
export function EventsPage() {
  const alba = useAlba();
  const kind = query.value.get("kind") ?? "";
  const q = (query.value.get("q") ?? "").toLowerCase();
  const rows = [...entries.value.map(streamed), ...(alba.data?.events ?? []).map(remembered)]
    .filter((r) => (!kind || r.kind === kind) && (!q || (r.object + " " + r.text).toLowerCase().includes(q)))
    .sort((a, b) => b.at - a.at);
  const cursor = query.value.get("cursor");
  const from = rows.findIndex((r) => r.key === cursor) + 1;
  const page = rows.slice(from, from + pageSize);
  const next = rows.length > from + pageSize ? (page.at(-1)?.key ?? null) : null;
  return (
    <Page title="Events" state={<Since />}>
      <div class="toolbar" role="search">
        <SearchBox label="Filter events by object or text" />
        <select
          aria-label="Kind"
          value={kind}
          onChange={(event) => setQuery({ kind: event.currentTarget.value, cursor: undefined }, { replace: true })}
        >
          <option value="">All kinds</option>
          {Object.entries(kinds).map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
        </select>
        <span class="spacer" />
        {!denied("manage") && <Link to="/audit">Who changed what: audit log</Link>}
      </div>
      {page.length > 0 ? (
        <DataTable label="Events" columns={columns} rows={page} rowKey={(r) => r.key} next={next} />
      ) : (
        <Empty
          title={q || kind ? "No event matches" : "Nothing happened yet"}
          text={
            q || kind
              ? "Take a part of the filter away to see more."
              : "What happens to vDisks, vPools, targets, sessions, nodes and health appears here by itself."
          }
        >
          {(q || kind) && <Button onClick={() => navigate("/events")}>Clear the filter</Button>}
        </Empty>
      )}
    </Page>
  );
}

function Since() {
  return (
    <span class="muted">
      {liveSince.value ? (
        <>
          Followed since <span class="num">{time(new Date(liveSince.value).toISOString())}</span>
        </>
      ) : (
        "Not followed yet"
      )}
    </span>
  );
}

function streamed(e: Entry): Row {
  return { key: "s" + e.id, at: e.at, kind: e.kind, object: e.object, tone: e.tone, text: e.text };
}

const tones: Record<AlbaEvent["level"], Tone> = { info: "info", warning: "warn", error: "bad" };

function remembered(e: AlbaEvent, i: number, all: AlbaEvent[]): Row {
  // Newest first, and the newest move the others: counted from the end, a key stays with its event.
  const key = `o${all.length - i}-${e.at}`;
  return { key, at: Date.parse(e.at), kind: "osd", object: e.osd === null ? "object store" : `osd ${e.osd}`, tone: tones[e.level], text: capital(e.message) };
}

const columns: Column<Row>[] = [
  { key: "at", title: "Time", cell: (r) => <span class="num">{time(new Date(r.at).toISOString())}</span> },
  { key: "age", title: "Age", cell: (r) => <Age at={r.at} /> },
  { key: "kind", title: "Kind", cell: (r) => kinds[r.kind] },
  { key: "object", title: "Object", wrap: true, cell: (r) => <ObjectLink object={r.object} /> },
  { key: "text", title: "What", wrap: true, cell: (r) => <Tag tone={r.tone} word={r.text} /> },
];
