import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Job, JobKind, JobState } from "../api/gen";
import { capital } from "../format";
import { query, setQuery } from "../router";
import { useJobs, type JobFilter } from "../store/objects";
import { asApiError, reload } from "../store/query";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { JobMeter, JobTag, pace, progress } from "../parts/JobParts";
import { Load } from "../parts/Load";
import { Choice, NodeFilter } from "../parts/LogFilters";
import { ObjectLink } from "../parts/ObjectLink";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { SilentNodes } from "../parts/SilentNodes";
import { TableTools } from "../parts/TableTools";
import { msg, noun } from "../text";

const kinds: Record<JobKind, string> = {
  backup: msg`Backups of the metadata`,
  claim: msg`Claims of disks`,
  compare: msg`Comparisons of devices`,
  datastore: msg`Datastores`,
  delete: msg`Deletes`,
  drain: msg`Draining of nodes`,
  empty: msg`Emptying of devices`,
  export: msg`Exports`,
  flatten: msg`Flattening`,
  handover: msg`Hand-overs`,
  import: msg`Imports`,
  move: msg`Moves`,
  rebalance: msg`Rebalancing of devices`,
  recover: msg`Recovery of namespaces`,
  schedule: msg`Scheduled runs`,
  scrub: msg`Scrubs`,
  survey: msg`Surveys of objects`,
  sweep: msg`Sweeps`,
  verify: msg`Verifications of vDisks`,
  verifyOsd: msg`Verifications of devices`,
};

const states: { value: string; text: string }[] = [
  { value: "queued,running,waiting", text: msg`Not ended` },
  { value: "running", text: msg`Running` },
  { value: "queued,waiting", text: msg`Queued and waiting` },
  { value: "done", text: msg`Done` },
  { value: "failed", text: msg`Failed` },
  { value: "cancelled", text: msg`Cancelled` },
];

/** What follows of a cancelled task, by its kind. */
const after: Partial<Record<JobKind, string>> = {
  drain: msg`What was handed over stays where it is; the node takes vDisks again.`,
  export: msg`The client that reads gets an error.`,
  flatten: msg`What was copied stays; the next flatten goes on there.`,
  handover: msg`The vDisk stays at its node.`,
  import: msg`The vDisk that is being filled is deleted.`,
  move: msg`The vDisk stays in its vPool, and what was copied is deleted.`,
  scrub: msg`What was given back stays given back; the next scrub does the rest.`,
  sweep: msg`What was deleted stays deleted; the next sweep does the rest.`,
  verify: msg`What was read so far counts for nothing, but for damage that was found.`,
};

/** What the nodes work on, and worked on lately. */
export function TasksPage() {
  return (
    <Page title={msg`Tasks`} actions={<Forget />}>
      <Filters />
      <List />
    </Page>
  );
}

/** The filter that the address has; states that are none are asked for as they are, and refused by the node. */
function asked(): JobFilter {
  const get = (name: string) => query.value.get(name) ?? undefined;
  return { q: get("q"), state: get("state"), kind: get("kind"), object: get("object"), node: get("node"), cursor: get("cursor") };
}

function Filters() {
  const object = query.value.get("object");
  return (
    <div class="toolbar" role="search">
      <SearchBox label={msg`Filter tasks by words or object`} />
      <Choice label={msg`State`} param="state" none={msg`All states`} options={states} />
      <Choice label={msg`Kind`} param="kind" none={msg`All kinds`} options={Object.entries(kinds).map(([value, text]) => ({ value, text }))} />
      <NodeFilter none={msg`All nodes`} />
      {object && (
        <Button small label={msg`Show tasks of all objects, not of ${object} only`} onClick={() => setQuery({ object: undefined, cursor: undefined })}>
          {object} ×
        </Button>
      )}
      <TableTools table="tasks" noun={noun`task`} columns={csvColumns} read={(cursor, limit) => call("GET /jobs", { query: { ...asked(), cursor, limit } })} />
    </div>
  );
}

function List() {
  const filter = asked();
  const jobs = useJobs(filter);
  const [cancelled, setCancelled] = useState<Job>();
  const filtered = Object.values(filter).some(Boolean);
  return (
    <>
      <Load query={jobs} lines={8}>
        {(list) => (
          <div class="stack">
            <SilentNodes nodes={list.silent} what={msg`Its tasks`} />
            {list.items.length > 0 || list.next || filter.cursor ? (
              <DataTable label={msg`Tasks`} table="tasks" columns={taskColumns(setCancelled)} rows={list.items} rowKey={(j) => `${j.id} ${j.node}`} next={list.next} />
            ) : (
              <Empty
                title={filtered ? msg`No task matches` : msg`Nothing runs`}
                command={filtered ? undefined : "ovgate task list"}
                text={
                  filtered
                    ? msg`Take a part of the filter away to see more.`
                    : msg`Imports and exports, moves, verifications, scrubs, scheduled runs, repairs and whatever else takes time appear here by themselves, and stay for a while after their end.`
                }
              />
            )}
          </div>
        )}
      </Load>
      {cancelled && <CancelTask job={cancelled} onClose={() => setCancelled(undefined)} />}
    </>
  );
}

/** For the tools of the table, in which nothing is cancelled. */
const csvColumns = taskColumns(() => {});

/** A task in a table; cancel asks whether one is to end. */
export function taskColumns(cancel: (j: Job) => void): Column<Job>[] {
  return [
    {
      key: "what",
      csv: (j) => `${j.object}: ${j.what}`,
      title: msg`Task`,
      wrap: true,
      cell: (j) => (
        <>
          <ObjectLink object={j.object} />
          <div>{capital(j.what)}</div>
          {j.error && <div class={"small " + (j.state === "failed" ? "tone-bad" : "tone-warn")}>{capital(j.error)}</div>}
          {j.hint && <div class="small muted">{capital(j.hint)}</div>}
        </>
      ),
    },
    { key: "state", csv: (j) => (j.error ? `${j.state}: ${j.error}` : j.state), title: msg`State`, cell: (j) => <JobTag job={j} /> },
    {
      key: "progress",
      csv: progress,
      title: msg`Progress`,
      cell: (j) => (
        <div class="stack-tight">
          {(j.progress !== null || j.state === "running") && <JobMeter job={j} />}
          <span class="num small">{progress(j)}</span>
        </div>
      ),
    },
    { key: "pace", csv: pace, title: msg`Rate`, wrap: true, cell: (j) => <span class="num small">{j.state === "running" || j.endedAt ? pace(j) : ""}</span> },
    { key: "node", csv: (j) => j.node, title: msg`Node`, cell: (j) => j.node || "–" },
    { key: "started", csv: (j) => j.startedAt, title: msg`Started`, right: true, cell: (j) => (j.startedAt ? <Age at={j.startedAt} /> : "") },
    { key: "ended", csv: (j) => j.endedAt, title: msg`Ended`, right: true, cell: (j) => (j.endedAt ? <Age at={j.endedAt} /> : "") },
    {
      key: "act",
      title: msg`Action`,
      cell: (j) =>
        j.cancellable && (
          <Button small needs={j.kind === "drain" || j.kind === "sweep" ? "manage" : "write"} label={msg`Cancel: ${j.what}, ${j.object}`} onClick={() => cancel(j)}>
            {msg`Cancel`}
          </Button>
        ),
    },
  ];
}

export function CancelTask({ job: j, onClose }: { job: Job; onClose: () => void }) {
  const act = async () => {
    await call("POST /jobs/{job}/cancel", { path: { job: j.id } });
    reload("jobs?", "running");
    onClose();
  };
  return (
    <Confirm
      title={msg`Cancel a task of ${j.object}`}
      verb={msg`Cancel the task`}
      danger
      consequences={[msg`${capital(j.what)}: that ends.`, after[j.kind] ?? msg`What it did so far stays.`]}
      onClose={onClose}
      act={act}
    />
  );
}

const ended: JobState[] = ["done", "failed", "cancelled"];

function Forget() {
  const jobs = useJobs(asked());
  const some = jobs.data?.items.some((j) => ended.includes(j.state));
  const clear = async () => {
    try {
      await call("DELETE /jobs");
    } catch (error) {
      toast("bad", asApiError(error).message);
    }
    reload("jobs?");
  };
  return (
    <Button needs="manage" reason={some ? undefined : msg`No task that is shown has ended`} onClick={() => void clear()}>
      {msg`Forget ended tasks`}
    </Button>
  );
}
