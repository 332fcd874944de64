import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Schedule, ScheduledJob, ScheduledRun, ScheduleEntry, ScheduleInput } from "../api/gen";
import { capital, duration, time } from "../format";
import { navigate, query } from "../router";
import { now } from "../store/clock";
import { scheduleKey, useSayings, useSchedule, type ScheduleScope } from "../store/operations";
import { asApiError, reload } from "../store/query";
import { useVDisks, useVPoolChoices } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { CheckField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Card, Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { Tag, type Tone } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { msg, noun, rich } from "../text";

const jobWords: Record<string, string> = { snapshot: msg`Snapshot`, retention: msg`Retention`, scrub: msg`Scrub` };

/** The name of a job; one that this console does not know as the node says it. */
function jobWord(job: string): string {
  return jobWords[job] ?? capital(job);
}

/** When snapshots are made, deleted and scrubbed by themselves: of the cluster, a vPool or a vDisk. */
export function SchedulesPage() {
  const of: ScheduleScope = { vpool: query.value.get("vpool") ?? undefined, vdisk: query.value.get("vdisk") ?? undefined };
  return (
    <Page title={msg`Schedules`}>
      <ScopeChoice of={of} />
      <div class="stack-wide">
        <Effective key={scheduleKey(of)} of={of} />
        {!of.vdisk && !of.vpool && <Sayings />}
      </div>
    </Page>
  );
}

/** Suggestions for a name of a vDisk; the node searches, the list stays short. */
const suggestionsMax = 10;

function ScopeChoice({ of }: { of: ScheduleScope }) {
  const vpools = useVPoolChoices();
  const [name, setName] = useState(of.vdisk ?? "");
  const found = useVDisks({ q: name.trim() || undefined, sort: "name" });
  const go = (vdisk: string) => navigate(address(vdisk ? { vdisk } : {}));
  return (
    <form
      class="toolbar"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        go(name.trim());
      }}
    >
      <select
        aria-label={msg`Whose schedule`}
        value={of.vdisk ? "vdisk" : (of.vpool ?? "")}
        onChange={(event) => {
          setName("");
          navigate(address({ vpool: event.currentTarget.value || undefined }));
        }}
      >
        <option value="">{msg`Cluster`}</option>
        {vpools.data?.items.map((p) => (
          <option key={p.id} value={p.name}>
            {rich`vPool ${p.name}`}
          </option>
        ))}
        {of.vdisk && <option value="vdisk">{rich`vDisk ${of.vdisk}`}</option>}
      </select>
      <input
        type="search"
        aria-label={msg`Schedule of a vDisk`}
        placeholder={msg`Name of a vDisk`}
        list="schedule-vdisks"
        value={name}
        onInput={(event) => setName(event.currentTarget.value)}
        onChange={(event) => go(event.currentTarget.value.trim())}
      />
      <datalist id="schedule-vdisks">
        {found.data?.items.slice(0, suggestionsMax).map((v) => (
          <option key={v.id} value={v.name} />
        ))}
      </datalist>
    </form>
  );
}

/** Where a schedule is shown. */
export function address(of: ScheduleScope): string {
  const text = new URLSearchParams(Object.entries(of).filter(([, v]) => v) as [string, string][]).toString();
  return "/schedules" + (text ? "?" + text : "");
}

function scopeName(of: ScheduleScope): string {
  return of.vdisk ? msg`vDisk ${of.vdisk}` : of.vpool ? msg`vPool ${of.vpool}` : msg`Cluster`;
}

function Effective({ of }: { of: ScheduleScope }) {
  const schedule = useSchedule(of);
  return (
    <>
      <Card
        title={scopeName(of)}
        aside={
          of.vdisk ? (
            <Link to={`/vdisks/${encodeURIComponent(of.vdisk)}`}>{msg`Open vDisk`}</Link>
          ) : of.vpool ? (
            <Link to={`/vpools/${encodeURIComponent(of.vpool)}`}>{msg`Open vPool`}</Link>
          ) : undefined
        }
      >
        <div class="stack">
          <p class="muted">
            {of.vdisk
              ? msg`What it does not say itself it has from its vPool, and that from the cluster.`
              : of.vpool
                ? msg`Its vDisks have this unless they say something themselves.`
                : msg`vPools and vDisks have this unless they say something themselves.`}
          </p>
          <Load query={schedule}>
            {(s) => <DataTable label={msg`Jobs`} columns={jobColumns(of)} rows={s.jobs} rowKey={(j) => j.job} />}
          </Load>
        </div>
      </Card>
      {of.vdisk && schedule.data && <Runs schedule={schedule.data} />}
    </>
  );
}

function jobColumns(of: ScheduleScope): Column<ScheduledJob>[] {
  return [
    {
      key: "job",
      title: msg`Job`,
      cell: (j) => (
        <>
          <b>{jobWord(j.job)}</b> {j.running && <Tag tone="info" word={msg`Runs now`} />}
        </>
      ),
    },
    { key: "when", title: msg`When`, cell: (j) => <When enabled={j.enabled} cron={j.cron} zone={j.zone} /> },
    { key: "keeps", title: msg`Keeps`, cell: (j) => keeps(j) ?? <span class="muted">–</span> },
    { key: "source", title: msg`Said by`, cell: (j) => sources[j.source] },
    { key: "next", title: msg`Next`, right: true, cell: (j) => <Next job={j} /> },
    { key: "actions", title: msg`Actions`, right: true, cell: (j) => <JobActions job={j} of={of} /> },
  ];
}

const sources: Record<ScheduledJob["source"], string> = { default: msg`Defaults`, cluster: msg`Cluster`, vpool: msg`vPool`, vdisk: msg`vDisk` };

function When({ enabled, cron, zone }: { enabled: boolean; cron: string; zone: string }) {
  if (!enabled) {
    return <Tag tone="idle" word={msg`Off`} />;
  }
  return (
    <>
      <code>{cron}</code> <span class="muted small">{zone || msg`UTC`}</span>
    </>
  );
}

function keeps(j: { job: string; days: number; weeks: number; skipUnchanged: boolean }): string | undefined {
  if (j.job === "retention") {
    return msg`${j.days} days, then ${j.weeks} weeks`;
  }
  return j.skipUnchanged ? msg`Changes only` : undefined;
}

function Next({ job: j }: { job: ScheduledJob }) {
  const at = j.nextAt ?? j.nextSlot;
  if (!j.enabled || !at) {
    return <span class="muted">–</span>;
  }
  const left = Date.parse(at) - now.value;
  return <span title={time(at)}>{left > 0 ? msg`in ${duration(left)}` : msg`now`}</span>;
}

/** Who a schedule is said by when its scope says it itself. */
function own(of: ScheduleScope): ScheduledJob["source"] {
  return of.vdisk ? "vdisk" : of.vpool ? "vpool" : "cluster";
}

function JobActions({ job: j, of }: { job: ScheduledJob; of: ScheduleScope }) {
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const needs = of.vdisk ? "write" : "manage";
  const act = async (what: string, action: () => Promise<unknown>) => {
    setBusy(true);
    try {
      await action();
      toast("ok", what);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    setBusy(false);
    reload("schedule:", "schedules?");
  };
  const vdisk = of.vdisk;
  return (
    <>
      {vdisk && (
        <>
          <Button
            small
            needs="write"
            busy={busy}
            label={msg`Run now: ${j.job}`}
            reason={j.running ? msg`It runs` : undefined}
            onClick={() => void act(msg`${jobWord(j.job)} of ${vdisk} has begun`, () => call("POST /schedule/{job}/run", { path: { job: j.job }, query: { vdisk } }))}
          >
            {msg`Run now`}
          </Button>{" "}
        </>
      )}
      <Button small needs={needs} label={msg`Change ${j.job}`} onClick={() => setOpen(true)}>
        {msg`Change`}
      </Button>{" "}
      <Button
        small
        needs={needs}
        busy={busy}
        label={msg`Reset ${j.job}`}
        reason={j.source === own(of) ? undefined : msg`Nothing is said here: it is inherited`}
        onClick={() => void act(msg`${jobWord(j.job)} is inherited again`, () => call("DELETE /schedule/{job}", { path: { job: j.job }, query: of }))}
      >
        {msg`Reset`}
      </Button>
      {open && <JobDialog job={j} of={of} onClose={() => setOpen(false)} />}
    </>
  );
}

const presets = [
  { value: "*/15 * * * *", text: msg`Every 15 minutes` },
  { value: "0 * * * *", text: msg`Every hour` },
  { value: "0 */4 * * *", text: msg`Every 4 hours` },
  { value: "0 3 * * *", text: msg`Every day at 3:00` },
  { value: "0 3 * * sun", text: msg`Every Sunday at 3:00` },
];

function JobDialog({ job: j, of, onClose }: { job: ScheduledJob; of: ScheduleScope; onClose: () => void }) {
  const submit = useSubmit();
  const [on, setOn] = useState(j.enabled);
  const [cron, setCron] = useState(j.cron);
  const [zone, setZone] = useState(j.zone);
  const [days, setDays] = useState(String(j.days));
  const [weeks, setWeeks] = useState(String(j.weeks));
  const [skip, setSkip] = useState(j.skipUnchanged);
  const retention = j.job === "retention";
  const snapshots = j.job === "snapshot";
  const numbers = [Number(days), Number(weeks)] as const;
  const problems = numbers.map((n) => (Number.isInteger(n) && n >= 0 ? undefined : msg`Enter a whole number`));
  const save = async () => {
    if (retention && problems.some(Boolean)) {
      return;
    }
    const body: ScheduleInput = { enabled: on, cron: cron.trim(), zone: zone.trim() };
    if (retention) {
      body.days = numbers[0];
      body.weeks = numbers[1];
    }
    if (snapshots) {
      body.skipUnchanged = skip;
    }
    await call("PATCH /schedule/{job}", { path: { job: j.job }, query: of, body });
    toast("ok", msg`${jobWord(j.job)} of ${scopeName(of)} is saved`);
    reload("schedule:", "schedules?");
    onClose();
  };
  const known = presets.some((p) => p.value === cron.trim());
  return (
    <FormDialog
      title={msg`${jobWord(j.job)} of ${scopeName(of)}`}
      verb={msg`Save`}
      submit={submit}
      fields={["cron", "zone", ...(retention ? ["days", "weeks"] : [])]}
      save={save}
      needs={of.vdisk ? "write" : "manage"}
      onClose={onClose}
    >
      <CheckField name="enabled" checked={on} onValue={setOn}>
        {msg`It runs by itself`}
      </CheckField>
      <SelectField
        label={msg`How often`}
        name="preset"
        value={known ? cron.trim() : ""}
        onValue={(value) => value && setCron(value)}
        options={[...presets, { value: "", text: msg`As below` }]}
      />
      <TextField
        label={msg`When`}
        name="cron"
        value={cron}
        onValue={setCron}
        hint={msg`Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly.`}
        error={submit.at("cron")}
      />
      <TextField label={msg`Time zone`} name="zone" value={zone} onValue={setZone} hint={msg`Such as Europe/Brussels; empty for UTC.`} error={submit.at("zone")} />
      {snapshots && (
        <CheckField name="skipUnchanged" checked={skip} onValue={setSkip}>
          {msg`Make none of a vDisk that was not written to since its newest snapshot`}
        </CheckField>
      )}
      {retention && (
        <>
          <TextField
            label={msg`Days`}
            name="days"
            value={days}
            onValue={setDays}
            hint={msg`Before yesterday, of each of which one automatic snapshot stays.`}
            error={problems[0] ?? submit.at("days")}
            input={{ inputMode: "decimal" }}
          />
          <TextField
            label={msg`Weeks`}
            name="weeks"
            value={weeks}
            onValue={setWeeks}
            hint={msg`Before those days, of each of which one stays. Sticky snapshots, and those that people made, stay anyway.`}
            error={problems[1] ?? submit.at("weeks")}
            input={{ inputMode: "decimal" }}
          />
        </>
      )}
    </FormDialog>
  );
}

type Run = ScheduledRun & { job: string };

function Runs({ schedule }: { schedule: Schedule }) {
  const runs: Run[] = schedule.jobs.flatMap((j) => j.runs.map((r) => ({ ...r, job: j.job })));
  runs.sort((a, b) => Date.parse(b.started) - Date.parse(a.started));
  return (
    <Card title={msg`How it went`}>
      {runs.length > 0 ? (
        <DataTable label={msg`Runs`} columns={runColumns} rows={runs} rowKey={(r) => r.job + r.started} />
      ) : (
        <p class="muted">{msg`Nothing ran yet. The newest ten runs of each job are kept.`}</p>
      )}
    </Card>
  );
}

const results: Record<Run["result"], { tone: Tone; word: string }> = {
  done: { tone: "ok", word: msg`Done` },
  failed: { tone: "bad", word: msg`Failed` },
  skipped: { tone: "idle", word: msg`Skipped` },
};

const runColumns: Column<Run>[] = [
  { key: "job", title: msg`Job`, cell: (r) => jobWord(r.job) },
  { key: "result", title: msg`Result`, cell: (r) => <Tag {...results[r.result]} /> },
  { key: "text", title: msg`What it did`, wrap: true, cell: (r) => r.text },
  { key: "why", title: msg`Asked for by`, cell: (r) => (r.slot ? <span title={time(r.slot)}>{msg`schedule`}</span> : msg`a person`) },
  { key: "started", title: msg`Started`, right: true, cell: (r) => <Age at={r.started} /> },
  { key: "took", title: msg`Took`, right: true, cell: (r) => duration(Date.parse(r.ended) - Date.parse(r.started)) },
];

function Sayings() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const list = useSayings(filter);
  return (
    <Card title={msg`What vPools and vDisks say themselves`}>
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter by vPool or vDisk`} />
        <TableTools table="schedules" noun={noun`schedule`} columns={sayingColumns} read={(cursor, limit) => call("GET /schedules", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={list}>
        {(page) => {
          const rows = page.items.filter((e) => e.vpool !== "");
          return rows.length > 0 || page.next || filter.cursor ? (
            <DataTable label={msg`Schedules of vPools and vDisks`} table="schedules" columns={sayingColumns} rows={rows} rowKey={(e) => `${e.vpool}/${e.vdisk}/${e.job}`} next={page.next} />
          ) : (
            <Empty
              title={filter.q ? msg`None matches` : msg`All of them have the cluster's`}
              text={msg`Choose a vPool or a vDisk above to have it run at other times.`}
              command="ovgate schedule set snapshot --vdisk NAME --cron '*/15 * * * *'"
            />
          );
        }}
      </Load>
    </Card>
  );
}

const sayingColumns: Column<ScheduleEntry>[] = [
  {
    key: "of",
    csv: (e) => (e.vdisk ? msg`vDisk ${e.vdisk}` : msg`vPool ${e.vpool}`),
    title: msg`Of`,
    cell: (e) => (
      <Link to={address(e.vdisk ? { vdisk: e.vdisk } : { vpool: e.vpool })}>{e.vdisk ? msg`vDisk ${e.vdisk}` : msg`vPool ${e.vpool}`}</Link>
    ),
  },
  { key: "vpool", csv: (e) => e.vpool, title: msg`vPool`, cell: (e) => e.vpool },
  { key: "job", csv: (e) => e.job, title: msg`Job`, cell: (e) => jobWord(e.job) },
  { key: "when", csv: (e) => (e.enabled ? e.cron : "off"), title: msg`When`, cell: (e) => <When enabled={e.enabled} cron={e.cron} zone={e.zone} /> },
  { key: "keeps", csv: (e) => keeps(e), title: msg`Keeps`, cell: (e) => keeps(e) ?? <span class="muted">–</span> },
];
