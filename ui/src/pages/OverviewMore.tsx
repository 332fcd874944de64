// What is busy, fills, goes on and happened, below the charts of the overview: a script of its own, loaded after the rest.
import { call } from "../api/client";
import type { DtlCounts, EventList, Filling, JobList, Status, VDisk, VDiskList } from "../api/gen";
import { bytes, capital, count, duration, latency, percent, plural } from "../format";
import { query, setQuery } from "../router";
import { performanceOf } from "../store/metrics";
import { useQuery } from "../store/query";
import { useAlba } from "../store/objects";
import { statusEveryMs } from "../store/reads";
import { Age } from "../parts/Age";
import { JobMeter, pace, progress } from "../parts/JobParts";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { ObjectLink } from "../parts/ObjectLink";
import { OneOf } from "../parts/OneOf";
import { Card } from "../parts/Page";
import { SafetyBar, safetyTone } from "../parts/SafetyBar";
import { SilentNodes } from "../parts/SilentNodes";
import { StackBar } from "../parts/StackBar";
import { copyFace, copyStates, glyphs, Tag, type Tone } from "../parts/StateTag";
import { msg, noun, rich } from "../text";

/** Tasks and events that are shown; their pages have the rest. */
const tasksMax = 5;
const eventsMax = 8;
const busiestMax = 5;
const fillingMax = 5;

export function OverviewMore({ status, several }: { status: Status; several: boolean }) {
  return (
    <>
      <BusiestCard several={several} />
      <FillingCard filling={status.filling} />
      <CopiesCard counts={status.counts.dtl} several={several} />
      <SafetyCard />
      <TasksCard />
      <EventsCard />
    </>
  );
}

const orders = [
  { id: "iops", text: msg`IOPS` },
  { id: "latency", text: msg`Latency` },
] as const;

/** The vDisks that do most, or are slowest; the address says which. The node orders them. */
function BusiestCard({ several }: { several: boolean }) {
  const by = orders.find((o) => o.id === query.value.get("top")) ?? orders[0];
  const top = useQuery<VDiskList>(
    "vdisks?top " + by.id,
    () => call("GET /vdisks", { query: { sort: "-" + by.id, limit: busiestMax } }),
    statusEveryMs,
  );
  return (
    <Card
      title={several ? msg`Busiest vDisks of this node` : msg`Busiest vDisks`}
      class="span-6"
      aside={
        <div class="ranges" role="group" aria-label={msg`Order of the vDisks`}>
          <OneOf options={orders} chosen={by} onChoose={(o) => setQuery({ top: o === orders[0] ? undefined : o.id }, { replace: true })} />
        </div>
      }
    >
      <Load query={top}>{(list) => <Busiest vdisks={list.items} by={by.id} />}</Load>
    </Card>
  );
}

function Busiest({ vdisks, by }: { vdisks: VDisk[]; by: "iops" | "latency" }) {
  const figures = vdisks.map((v) => {
    const p = performanceOf(v);
    return { v, iops: p.readIops + p.writeIops, p99: Math.max(p.readP99Us, p.writeP99Us) };
  });
  const busy = figures.filter((f) => f.iops > 0 || f.p99 > 0);
  if (busy.length === 0) {
    return <p class="muted">{msg`No vDisk reads or writes now.`}</p>;
  }
  const most = Math.max(...busy.map((f) => f[by === "iops" ? "iops" : "p99"]));
  return (
    <ol class="stack-tight">
      {busy.map(({ v, iops, p99 }) => (
        <li key={v.id} class="busiest">
          <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link>
          <Meter label={by === "iops" ? msg`${count(iops)} IOPS` : msg`${latency(p99)} p99`} parts={[{ share: (by === "iops" ? iops : p99) / most }]} />
          <span class="num small">{rich`${count(iops)} IOPS`}</span>
          <span class="num small muted">{latency(p99)}</span>
        </li>
      ))}
    </ol>
  );
}

/** When places are full, if they go on filling as in the last day. */
function FillingCard({ filling }: { filling: Filling[] }) {
  const shown = filling.filter((f) => f.total > 0).slice(0, fillingMax);
  return (
    <Card title={msg`Until full`} class="span-6">
      {shown.length === 0 ? (
        <p class="muted">{msg`No place tells how large it is.`}</p>
      ) : (
        <ul class="stack">
          {shown.map((f) => (
            <li key={f.what} class="stack-tight">
              <div class="row">
                <Place filling={f} />
                <span class="spacer" />
                <span class={`small tone-${urgency(f)}`}>{untilFull(f)}</span>
              </div>
              <Meter label={msg`${percent(f.total - f.free, f.total)} used`} parts={[{ share: (f.total - f.free) / f.total, class: fillTone((f.total - f.free) / f.total) }]} />
              <span class="muted small">
                {rich`${bytes(f.total - f.free)} of ${bytes(f.total)} used`}
              </span>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Place({ filling: f }: { filling: Filling }) {
  const [kind, name] = f.object.split(" ", 2);
  if (kind === "vpool" && name) {
    return (
      <span>
        {rich`Backend of ${<Link to={`/vpools/${encodeURIComponent(name)}`}>{name}</Link>}`}
      </span>
    );
  }
  return f.object === "object store" ? <Link to="/alba">{f.what}</Link> : <span>{f.what}</span>;
}

const dayMs = 86_400_000;

function urgency({ to100Ms: ms }: Filling): Tone {
  return ms === null || ms > 7 * dayMs ? "idle" : ms > dayMs ? "warn" : "bad";
}

function untilFull(f: Filling): string {
  if (!f.known) {
    return msg`No trend yet: that takes six hours`;
  }
  if (f.to100Ms === null) {
    return msg`Not within a year`;
  }
  const full = f.to100Ms === 0 ? "full" : msg`full in ${duration(f.to100Ms)}`;
  return f.to80Ms ? msg`80 % in ${duration(f.to80Ms)}, ${full}` : capital(full);
}

/** In which state the copies of journals are, each with its vDisks. */
function CopiesCard({ counts, several }: { counts: DtlCounts; several: boolean }) {
  const layers = copyStates.map((state) => {
    const { tone, word } = copyFace(state);
    return { key: state, value: counts[state], text: word.toLowerCase(), colour: "tone-" + tone, to: `/vdisks?dtl=${state}` };
  });
  if (layers.every((l) => l.value === 0)) {
    return null;
  }
  return (
    <Card title={several ? msg`Copies of journals of this node` : msg`Copies of journals`} class="span-12">
      <StackBar layers={layers} format={count} />
    </Card>
  );
}

/** How many more devices objects may lose, where there is an object store with objects. */
function SafetyCard() {
  const a = useAlba().data;
  if (!a?.made || a.objects === 0) {
    return null;
  }
  const tone = safetyTone(a.tolerates);
  return (
    <Card title={msg`Safety of objects`} class="span-12" aside={<Link to="/alba">{msg`Object store`}</Link>}>
      <div class="stack">
        <p>
          <span class={`tone-${tone}`} aria-hidden="true">
            {glyphs[tone]}
          </span>{" "}
          {capital(a.safety)}
          {a.repair > 0 && msg`; ${plural(a.repair, noun`object`)} to be repaired`}
        </p>
        <SafetyBar survives={a.survives} />
      </div>
    </Card>
  );
}

function TasksCard() {
  const jobs = useQuery<JobList>("jobs?overview", () => call("GET /jobs", { query: { state: "running,waiting", limit: tasksMax } }), statusEveryMs);
  return (
    <Card title={msg`Running tasks`} class="span-6" aside={<Link to="/tasks">{msg`All tasks`}</Link>}>
      <Load query={jobs}>
        {(list) => (
          <div class="stack">
            <SilentNodes nodes={list.silent} what={msg`Its tasks`} />
            {list.items.length === 0 ? (
              <p class="muted">{msg`Nothing runs.`}</p>
            ) : (
              <ul class="stack">
                {list.items.map((j) => (
                  <li key={`${j.id} ${j.node}`} class="stack-tight">
                    <div class="row">
                      <span>
                        <ObjectLink object={j.object} />: {j.what}
                      </span>
                      <span class="spacer" />
                      <span class="muted small">{[progress(j), pace(j)].filter(Boolean).join(", ")}</span>
                    </div>
                    <JobMeter job={j} />
                    {j.error && <span class="small tone-warn">{capital(j.error)}</span>}
                  </li>
                ))}
              </ul>
            )}
            {list.running > list.items.length && <span class="muted small">{rich`${plural(list.running, noun`task`)} in all.`}</span>}
          </div>
        )}
      </Load>
    </Card>
  );
}

const tones: Record<string, Tone> = { info: "info", warning: "warn", error: "bad" };

function EventsCard() {
  const events = useQuery<EventList>("events?overview", () => call("GET /events/history", { query: { limit: eventsMax } }));
  return (
    <Card title={msg`Recent events`} class="span-6" aside={<Link to="/events">{msg`All events`}</Link>}>
      <Load query={events}>
        {(list) => (
          <div class="stack">
            <SilentNodes nodes={list.silent} what={msg`Its events`} />
            {list.items.length === 0 && <p class="muted">{msg`Nothing happened yet.`}</p>}
            <ul class="stack-tight">
              {list.items.map((e) => (
                <li key={`${e.node} ${e.seq}`} class="recent">
                  <span class="muted small">
                    <Age at={e.time} />
                  </span>
                  <span>
                    {e.object && (
                      <>
                        <ObjectLink object={e.object} />{" "}
                      </>
                    )}
                    <Tag tone={tones[e.severity] ?? "idle"} word={e.text} title={e.hint} />
                  </span>
                </li>
              ))}
            </ul>
          </div>
        )}
      </Load>
    </Card>
  );
}
