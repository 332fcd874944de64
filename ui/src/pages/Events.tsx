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
import { msg, noun } from "../text";

/** What happened, as the nodes remember it. New events come on top by themselves. */
export function EventsPage() {
  return (
    <Page title={msg`Events`}>
      <Filters />
      <History />
    </Page>
  );
}

/** What codes are of, by what goes before the dot, as people say it. */
const kinds: Record<string, string> = {
  alert: msg`Alerts`,
  backend: msg`Backends`,
  center: msg`vCenters`,
  certificate: msg`Certificates`,
  clock: msg`Clock`,
  cloud: msg`OpenStack clouds`,
  datastore: msg`Datastores`,
  dtl: msg`Copies of journals`,
  events: msg`This history`,
  health: msg`Health`,
  lease: msg`Leases`,
  node: msg`Nodes`,
  osd: msg`Devices`,
  registry: msg`Registry`,
  schedule: msg`Schedules`,
  scrub: msg`Scrubs`,
  session: msg`iSCSI sessions`,
  signin: msg`Sign-ins`,
  snapshot: msg`Snapshots`,
  store: msg`Object store`,
  target: msg`Targets`,
  vdisk: msg`vDisks`,
  vpool: msg`vPools`,
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
      <SearchBox label={msg`Filter events by object or text`} />
      <Choice
        label={msg`Severity`}
        param="severity"
        none={msg`All severities`}
        options={[
          { value: "warning", text: msg`Warnings and errors` },
          { value: "error", text: msg`Errors` },
        ]}
      />
      <Choice label={msg`Kind`} param="kind" none={msg`All kinds`} options={options} />
      <TimeFilter />
      <NodeFilter none={msg`All nodes`} />
      {object && (
        <Button small label={msg`Show events of all objects, not of ${object} only`} onClick={() => setQuery({ object: undefined, cursor: undefined })}>
          {object} ×
        </Button>
      )}
      <span class="spacer" />
      <a href={"/api/v1/events/export?" + exported.toString()} download>
        {msg`Export`}
      </a>
      {!denied("manage") && <Link to="/audit">{msg`Who changed what: audit log`}</Link>}
      <TableTools table="events" noun={noun`event`} columns={useEventColumns()} read={(cursor, limit) => call("GET /events/history", { query: { ...eventQuery(asked(), hoursAsked()), cursor, limit } })} />
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
          <SilentNodes nodes={list.silent} what={msg`Its events`} />
          {list.items.length > 0 || list.next || cursor ? (
            <DataTable label={msg`Events`} table="events" columns={columns} rows={list.items} rowKey={(e) => `${e.node} ${e.seq}`} next={list.next} />
          ) : (
            <Empty
              title={filtered ? msg`No event matches` : msg`Nothing happened yet`}
              command={filtered ? undefined : "ovgate event list"}
              text={
                filtered
                  ? msg`Take a part of the filter away to see more.`
                  : msg`What happens to vDisks, vPools, targets, sessions, nodes and devices appears here by itself.`
              }
            >
              {filtered && <Button onClick={() => navigate("/events")}>{msg`Clear the filter`}</Button>}
            </Empty>
          )}
        </div>
      )}
    </Load>
  );
}

const tones: Record<EventSeverity, Tone> = { info: "info", warning: "warn", error: "bad" };

const eventColumns: Column<Event>[] = [
  { key: "time", csv: (e) => e.time, title: msg`Time`, cell: (e) => <span class="num">{time(e.time)}</span> },
  { key: "age", title: msg`Age`, cell: (e) => <Age at={Date.parse(e.time)} /> },
  { key: "object", csv: (e) => e.object, title: msg`Object`, wrap: true, cell: (e) => <ObjectLink object={e.object} /> },
  {
    key: "text",
    csv: (e) => e.text,
    title: msg`What`,
    wrap: true,
    cell: (e) => (
      <>
        <Tag tone={tones[e.severity]} word={e.text} />
        {e.hint && <div class="small muted">{e.hint}</div>}
      </>
    ),
  },
  { key: "code", csv: (e) => e.code, title: msg`Code`, cell: (e) => <code>{e.code}</code> },
];

/** Which node saw it, where there are several. */
const nodeColumn: Column<Event> = { key: "node", csv: (e) => e.node, title: msg`Seen by`, cell: (e) => e.node };

/** An event in a table. */
export function useEventColumns(): Column<Event>[] {
  return (useNodes().data?.items ?? []).length > 1 ? [...eventColumns, nodeColumn] : eventColumns;
}
