import { call } from "../api/client";
import type { Scrub, VDisk, Verification } from "../api/gen";
import { bytes, percent, plural } from "../format";
import { reload } from "../store/query";
import { useScrub, useVerification } from "../store/reads";
import { useSubmit } from "../store/submit";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { Doomed } from "../parts/Doomed";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Meter } from "../parts/Meter";
import { ErrorPanel, Notice } from "../parts/Notice";
import { Card, Facts } from "../parts/Page";
import { jobFace, Tag, type Tone } from "../parts/StateTag";

/** What is done for a vDisk in the background: giving space back, and reading all that it has. */
export function MaintenanceTab({ vdisk }: { vdisk: VDisk }) {
  return (
    <div class="grid">
      <ScrubCard vdisk={vdisk} />
      <VerifyCard vdisk={vdisk} />
    </div>
  );
}

function ScrubCard({ vdisk }: { vdisk: VDisk }) {
  const scrub = useScrub(vdisk.id);
  const submit = useSubmit();
  const start = async (dryRun: boolean) => {
    await call("POST /vdisks/{vdisk}/scrub", { path: { vdisk: vdisk.id }, body: { dryRun } });
    reload("scrub:" + vdisk.id);
  };
  const busy = scrub.data?.state === "running" ? "One is under way" : undefined;
  return (
    <Card title="Scrub" class="span-6" aside={scrub.data && <Tag {...jobFace(scrub.data.state)} />}>
      <div class="stack">
        <p class="muted">Gives back the space of what was overwritten, discarded, or held by deleted snapshots.</p>
        <Load query={scrub}>{(s) => (s ? <ScrubResult scrub={s} /> : <p>There was none since the node started.</p>)}</Load>
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="row">
          <Button small needs="write" busy={submit.busy} reason={busy} onClick={() => void submit.run(() => start(false))}>
            Scrub now
          </Button>
          <Button small needs="write" busy={submit.busy} reason={busy} onClick={() => void submit.run(() => start(true))}>
            Only see what it would delete
          </Button>
          <Link class="btn small" to={`/schedules?vdisk=${encodeURIComponent(vdisk.name)}`}>
            When it runs
          </Link>
        </div>
      </div>
    </Card>
  );
}

function ScrubResult({ scrub: s }: { scrub: Scrub }) {
  return (
    <>
      {s.failure && (
        <Notice tone="bad">
          <span>{s.failure}</span>
        </Notice>
      )}
      {s.damaged.length > 0 && (
        <Notice tone="bad">
          <b>{plural(s.damaged.length, "object")} could not be read back verified; they stay</b>
          {s.damaged.slice(0, 5).map((name) => (
            <code key={name}>{name}</code>
          ))}
        </Notice>
      )}
      <Facts
        rows={[
          ["Begun", <Age key="begun" at={s.started} />],
          ["Ended", s.ended ? <Age key="ended" at={s.ended} /> : `${plural(s.units, "piece")} of work done so far`],
          ["Stored before", bytes(s.stored)],
          [s.dryRun ? "Would give back" : "Stored after", s.dryRun ? bytes(s.condemnedBytes || s.doomed.reduce((sum, d) => sum + d.bytes, 0)) : bytes(s.storedAfter)],
          ["Copied", bytes(s.moved)],
          ["Deleted", `${s.deleted} of ${plural(s.condemned, "object")} that ${s.dryRun ? "would be" : "are"} part of it no more`],
        ]}
      />
      {s.dryRun && <Doomed objects={s.doomed} more={s.more} />}
    </>
  );
}

const verifyFaces: Record<Verification["state"], { tone: Tone; word: string }> = {
  none: { tone: "idle", word: "Never" },
  waiting: { tone: "info", word: "Waits for others" },
  running: { tone: "info", word: "Running" },
  done: { tone: "ok", word: "Done" },
  cancelled: { tone: "idle", word: "Cancelled" },
  failed: { tone: "bad", word: "Failed" },
};

function VerifyCard({ vdisk }: { vdisk: VDisk }) {
  const verification = useVerification(vdisk.id);
  const submit = useSubmit();
  const path = { vdisk: vdisk.id };
  const v = verification.data;
  const goes = v?.state === "running" || v?.state === "waiting";
  const start = async () => {
    await call("POST /vdisks/{vdisk}/verify", { path });
    reload("verify:" + vdisk.id, "vdisk:");
  };
  const stop = async () => {
    await call("DELETE /vdisks/{vdisk}/verify", { path });
    reload("verify:" + vdisk.id, "vdisk:");
  };
  const face = v && (v.badObjects > 0 ? { tone: "bad" as const, word: "Damage found" } : verifyFaces[v.state]);
  return (
    <Card title="Verify" class="span-6" aside={face && <Tag {...face} />}>
      <div class="stack">
        <p class="muted">Reads and checks all that it has on the backend: the log, snapshots, the history, and what it inherits.</p>
        <Load query={verification}>{(x) => <VerifyResult verification={x} />}</Load>
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="row">
          {goes ? (
            <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(stop)}>
              Stop
            </Button>
          ) : (
            <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(start)}>
              Verify now
            </Button>
          )}
        </div>
      </div>
    </Card>
  );
}

function VerifyResult({ verification: v }: { verification: Verification }) {
  if (v.state === "none") {
    return <p>It was never verified.</p>;
  }
  return (
    <>
      {v.state === "running" && <Meter label={`${percent(v.bytes, v.total)} verified`} parts={[{ share: v.bytes / v.total }]} />}
      {v.error && (
        <Notice tone="bad">
          <span>{v.error}</span>
        </Notice>
      )}
      {v.damage.length > 0 && (
        <Notice tone="bad">
          <b>
            {plural(v.badObjects, "object")} damaged, {plural(v.badClusters, "cluster")} without good data
          </b>
          {v.damage.slice(0, 10).map((d) => (
            <span key={d.object}>
              <code>{d.object}</code>: {d.why}; {d.current ? "hits what it holds now" : d.snapshots.length > 0 ? `hits ${d.snapshots.join(", ")}` : "hits only moments of its history"}
            </span>
          ))}
        </Notice>
      )}
      <Facts
        rows={[
          ["Begun", <Age key="begun" at={v.startedAt} />],
          ["Ended", v.endedAt ? <Age key="ended" at={v.endedAt} /> : "it runs"],
          ["Checked", `${bytes(v.bytes)} of ${bytes(v.total)}, ${plural(v.clusters, "cluster")}`],
          ["Up to write", v.seq],
        ]}
      />
    </>
  );
}
