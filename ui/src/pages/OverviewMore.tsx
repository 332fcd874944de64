// What goes on and what happened, below the charts of the overview: a script of its own, loaded after the rest.
import { call } from "../api/client";
import type { EventList, JobList } from "../api/gen";
import { capital, plural } from "../format";
import { useQuery } from "../store/query";
import { useAlba } from "../store/objects";
import { statusEveryMs } from "../store/reads";
import { Age } from "../parts/Age";
import { JobMeter, pace, progress } from "../parts/JobParts";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ObjectLink } from "../parts/ObjectLink";
import { Card } from "../parts/Page";
import { SafetyBar, safetyTone } from "../parts/SafetyBar";
import { SilentNodes } from "../parts/SilentNodes";
import { glyphs, Tag, type Tone } from "../parts/StateTag";

/** Tasks and events that are shown; their pages have the rest. */
const tasksMax = 5;
const eventsMax = 8;

export function OverviewMore() {
  return (
    <>
      <SafetyCard />
      <TasksCard />
      <EventsCard />
    </>
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
    <Card title="Safety of objects" class="span-12" aside={<Link to="/alba">Object store</Link>}>
      <div class="stack">
        <p>
          <span class={`tone-${tone}`} aria-hidden="true">
            {glyphs[tone]}
          </span>{" "}
          {capital(a.safety)}
          {a.repair > 0 && `; ${plural(a.repair, "object")} to be repaired`}
        </p>
        <SafetyBar survives={a.survives} />
      </div>
    </Card>
  );
}

function TasksCard() {
  const jobs = useQuery<JobList>("jobs?overview", () => call("GET /jobs", { query: { state: "running,waiting", limit: tasksMax } }), statusEveryMs);
  return (
    <Card title="Running tasks" class="span-6" aside={<Link to="/tasks">All tasks</Link>}>
      <Load query={jobs}>
        {(list) => (
          <div class="stack">
            <SilentNodes nodes={list.silent} what="Its tasks" />
            {list.items.length === 0 ? (
              <p class="muted">Nothing runs.</p>
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
            {list.running > list.items.length && <span class="muted small">{plural(list.running, "task")} in all.</span>}
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
    <Card title="Recent events" class="span-6" aside={<Link to="/events">All events</Link>}>
      <Load query={events}>
        {(list) => (
          <div class="stack">
            <SilentNodes nodes={list.silent} what="Its events" />
            {list.items.length === 0 && <p class="muted">Nothing happened yet.</p>}
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
