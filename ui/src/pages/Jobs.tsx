import type { Job } from "../api/gen";
import { call } from "../api/client";
import { capital } from "../format";
import { query } from "../router";
import { useJobs } from "../store/objects";
import { asApiError, reload } from "../store/query";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { JobMeter, JobTag, pace, progress } from "../parts/JobParts";
import { Load } from "../parts/Load";
import { Card } from "../parts/Page";
import { msg } from "../text";

const columns: Column<Job>[] = [
  {
    key: "what",
    title: msg`Job`,
    wrap: true,
    cell: (j) => (
      <>
        {capital(j.what)}
        {j.error && <div class="tone-bad small">{j.error}</div>}
      </>
    ),
  },
  { key: "state", title: msg`State`, cell: (j) => <JobTag job={j} /> },
  {
    key: "progress",
    title: msg`Progress`,
    cell: (j) => (
      <div class="stack-tight">
        <JobMeter job={j} />
        <span class="num small">{progress(j)}</span>
      </div>
    ),
  },
  { key: "pace", title: msg`Rate`, wrap: true, cell: (j) => <span class="num small">{pace(j)}</span> },
  { key: "started", title: msg`Started`, right: true, cell: (j) => (j.startedAt ? <Age at={j.startedAt} /> : "") },
  { key: "ended", title: msg`Ended`, right: true, cell: (j) => (j.endedAt ? <Age at={j.endedAt} /> : "") },
];

/** Kinds of jobs that the object store's maintenance does. */
const storeKinds = "compare,empty,rebalance,recover,survey,verifyOsd";

/** Jobs of the object store's maintenance: surveys, repairs, verifications, devices being emptied. */
export function JobsCard() {
  const jobs = useJobs({ kind: storeKinds, cursor: query.value.get("jobs") ?? undefined });
  const ended = jobs.data?.items.some((j) => j.endedAt);
  const clear = async () => {
    try {
      await call("DELETE /jobs");
    } catch (error) {
      toast("bad", asApiError(error).message);
    }
    reload("jobs?");
  };
  return (
    <Card
      title={msg`Jobs`}
      class="span-12"
      aside={
        <Button
          small
          needs="manage"
          reason={ended ? undefined : msg`No job has ended`}
          onClick={() => void clear()}
        >
          {msg`Forget ended jobs`}
        </Button>
      }
    >
      <Load query={jobs}>
        {(list) =>
          list.items.length > 0 ? (
            <DataTable label={msg`Jobs`} columns={columns} rows={list.items} rowKey={(j) => j.id + j.node + j.startedAt} next={list.next} cursor="jobs" />
          ) : (
            <p class="muted">{msg`Nothing runs, and nothing ended lately.`}</p>
          )
        }
      </Load>
    </Card>
  );
}
