// What runs and what happened, above the strip at the foot: a script of its own, loaded when it is opened first.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { EventList, Job, JobList } from "../api/gen";
import { dockOpen } from "../store/drawers";
import { jobEveryMs } from "../store/reads";
import { useQuery } from "../store/query";
import { Button } from "../parts/Button";
import { DataTable } from "../parts/DataTable";
import { Icon } from "../parts/Icon";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { SilentNodes } from "../parts/SilentNodes";
import { Tabs } from "../parts/Tabs";
import { useEventColumns } from "./Events";
import { CancelTask, taskColumns } from "./Tasks";
import { msg } from "../text";

/** The newest of each; their pages have the rest. */
const rowsMax = 20;

export function DockLists() {
  const ref = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => ref.current?.querySelector<HTMLElement>("[role=tab][aria-selected=true]")?.focus(), []);
  return (
    <div class="dock-lists" ref={ref}>
      <Tabs
        label={msg`Tasks and events`}
        tabs={[
          { id: "tasks", title: msg`Tasks`, content: <Tasks /> },
          { id: "events", title: msg`Events`, content: <Events /> },
        ]}
      />
      <Button kind="quiet" small icon label={msg`Close tasks and events`} onClick={() => (dockOpen.value = false)}>
        <Icon name="close" />
      </Button>
    </div>
  );
}

function Tasks() {
  const jobs = useQuery<JobList>("jobs?dock", () => call("GET /jobs", { query: { limit: rowsMax } }), jobEveryMs);
  const [cancelled, setCancelled] = useState<Job>();
  return (
    <>
      <Load query={jobs}>
        {(list) => (
          <>
            <SilentNodes nodes={list.silent} what={msg`Its tasks`} />
            {list.items.length > 0 ? (
              <DataTable label={msg`Newest tasks`} columns={taskColumns(setCancelled)} rows={list.items} rowKey={(j) => `${j.id} ${j.node}`} />
            ) : (
              <p class="muted">{msg`Nothing runs, and nothing ended lately.`}</p>
            )}
          </>
        )}
      </Load>
      <Link to="/tasks">{msg`All tasks`}</Link>
      {cancelled && <CancelTask job={cancelled} onClose={() => setCancelled(undefined)} />}
    </>
  );
}

function Events() {
  const events = useQuery<EventList>("events?dock", () => call("GET /events/history", { query: { limit: rowsMax } }));
  const columns = useEventColumns();
  return (
    <>
      <Load query={events}>
        {(list) => (
          <>
            <SilentNodes nodes={list.silent} what={msg`Its events`} />
            {list.items.length > 0 ? (
              <DataTable label={msg`Newest events`} columns={columns} rows={list.items} rowKey={(e) => `${e.node} ${e.seq}`} />
            ) : (
              <p class="muted">{msg`Nothing happened yet.`}</p>
            )}
          </>
        )}
      </Load>
      <Link to="/events">{msg`All events`}</Link>
    </>
  );
}
