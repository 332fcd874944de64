import { call } from "../api/client";
import type { Event, EventSeverity } from "../api/gen";
import { capital, time } from "../format";
import { navigate, query, setQuery } from "../router";
import { eventQuery, useEventCodes, useEvents, type EventFilter } from "../store/operations";
import { useNodes } from "../store/reads";
import { denied } from "../store/session";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Choice, hoursAsked, NodeFilter, TimeFilter } from "../parts/LogFilters";
import { ObjectLink } from "../parts/ObjectLink";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { SilentNodes } from "../parts/SilentNodes";
import { Tag, type Tone } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";

/** What happened, as the nodes remember it. New events come on top by themselves. */
export function EventsPage() {
  return (
    <Page title="Events">
      <Filters />
      <History />
    </Page>
  );
}

/** What codes are of, by what goes before the dot, as people say it. */
const kinds: Record<string, string> = {
  alert: "Alerts",
  backend: "Backends",
  center: "vCenters",
  certificate: "Certificates",
  clock: "Clock",
  cloud: "OpenStack clouds",
  datastore: "Datastores",
  dtl: "Copies of journals",
  events: "This history",
  health: "Health",
  lease: "Leases",
  node: "Nodes",
  osd: "Devices",
  registry: "Registry",
  schedule: "Schedules",
  scrub: "Scrubs",
  session: "iSCSI sessions",
  signin: "Sign-ins",
  snapshot: "Snapshots",
  store: "Object store",
  target: "Targets",
  vdisk: "vDisks",
  vpool: "vPools",
};

const severities: EventSeverity[] = ["warning", "error"];

/** The filter that the address has. */
function asked(): EventFilter {
  const get = (name: string) => query.value.get(name) ?? undefined;
  return { q: get("q"), object: get("object"), code: get("kind"), severity: severities.find((s) => s === get("severity")), node: get("node") };
}

function Filters() {
  const codes = useEventCodes();
  const object = query.value.get("object");
  const known = [...new Set((codes.data?.items ?? []).map((c) => c.code.split(".", 1)[0] ?? ""))];
  const options = known.map((kind) => ({ value: kind, text: kinds[kind] ?? capital(kind) })).sort((a, b) => a.text.localeCompare(b.text));
  const exported = new URLSearchParams();
  for (const [name, value] of Object.entries(eventQuery(asked(), hoursAsked()))) {
    if (value) {
      exported.set(name, value);
    }
  }
  return (
    <div class="toolbar" role="search">
      <SearchBox label="Filter events by object or text" />
      <Choice
        label="Severity"
        param="severity"
        none="All severities"
        options={[
          { value: "warning", text: "Warnings and errors" },
          { value: "error", text: "Errors" },
        ]}
      />
      <Choice label="Kind" param="kind" none="All kinds" options={options} />
      <TimeFilter />
      <NodeFilter none="All nodes" />
      {object && (
        <Button small label={`Show events of all objects, not of ${object} only`} onClick={() => setQuery({ object: undefined, cursor: undefined })}>
          {object} ×
        </Button>
      )}
      <span class="spacer" />
      <a href={"/api/v1/events/export?" + exported.toString()} download>
        Export
      </a>
      {!denied("manage") && <Link to="/audit">Who changed what: audit log</Link>}
      <TableTools table="events" noun="event" columns={useEventColumns()} read={(cursor, limit) => call("GET /events/history", { query: { ...eventQuery(asked(), hoursAsked()), cursor, limit } })} />
    </div>
  );
}

function History() {
  const filter = asked();
  const hours = hoursAsked();
  const cursor = query.value.get("cursor") ?? undefined;
  const filtered = hours !== undefined || Object.values(filter).some(Boolean);
  const events = useEvents(filter, cursor, hours);
  const columns = useEventColumns();
  return (
    <Load query={events} lines={8}>
      {(list) => (
        <div class="stack">
          <SilentNodes nodes={list.silent} what="Its events" />
          {list.items.length > 0 || list.next || cursor ? (
            <DataTable label="Events" table="events" columns={columns} rows={list.items} rowKey={(e) => `${e.node} ${e.seq}`} next={list.next} />
          ) : (
            <Empty
              title={filtered ? "No event matches" : "Nothing happened yet"}
              command={filtered ? undefined : "ovgate event list"}
              text={
                filtered
                  ? "Take a part of the filter away to see more."
                  : "What happens to vDisks, vPools, targets, sessions, nodes and devices appears here by itself."
              }
            >
              {filtered && <Button onClick={() => navigate("/events")}>Clear the filter</Button>}
            </Empty>
          )}
        </div>
      )}
    </Load>
  );
}

const tones: Record<EventSeverity, Tone> = { info: "info", warning: "warn", error: "bad" };

const eventColumns: Column<Event>[] = [
  { key: "time", csv: (e) => e.time, title: "Time", cell: (e) => <span class="num">{time(e.time)}</span> },
  { key: "age", title: "Age", cell: (e) => <Age at={Date.parse(e.time)} /> },
  { key: "object", csv: (e) => e.object, title: "Object", wrap: true, cell: (e) => <ObjectLink object={e.object} /> },
  {
    key: "text",
    csv: (e) => e.text,
    title: "What",
    wrap: true,
    cell: (e) => (
      <>
        <Tag tone={tones[e.severity]} word={e.text} />
        {e.hint && <div class="small muted">{e.hint}</div>}
      </>
    ),
  },
  { key: "code", csv: (e) => e.code, title: "Code", cell: (e) => <code>{e.code}</code> },
];

/** Which node saw it, where there are several. */
const nodeColumn: Column<Event> = { key: "node", csv: (e) => e.node, title: "Seen by", cell: (e) => e.node };

/** An event in a table. */
export function useEventColumns(): Column<Event>[] {
  return (useNodes().data?.items ?? []).length > 1 ? [...eventColumns, nodeColumn] : eventColumns;
}
