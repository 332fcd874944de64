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
import { msg, noun, rich } from "../text";

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
  const busy = scrub.data?.state === "running" ? msg`One is under way` : undefined;
  return (
    <Card title={msg`Scrub`} class="span-6" aside={scrub.data && <Tag {...jobFace(scrub.data.state)} />}>
      <div class="stack">
        <p class="muted">{msg`Gives back the space of what was overwritten, discarded, or held by deleted snapshots.`}</p>
        <Load query={scrub}>{(s) => (s ? <ScrubResult scrub={s} /> : <p>{msg`There was none since the node started.`}</p>)}</Load>
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="row">
          <Button small needs="write" busy={submit.busy} reason={busy} onClick={() => void submit.run(() => start(false))}>
            {msg`Scrub now`}
          </Button>
          <Button small needs="write" busy={submit.busy} reason={busy} onClick={() => void submit.run(() => start(true))}>
            {msg`Only see what it would delete`}
          </Button>
          <Link class="btn small" to={`/schedules?vdisk=${encodeURIComponent(vdisk.name)}`}>
            {msg`When it runs`}
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
          <b>{rich`${plural(s.damaged.length, noun`object`)} could not be read back verified; they stay`}</b>
          {s.damaged.slice(0, 5).map((name) => (
            <code key={name}>{name}</code>
          ))}
        </Notice>
      )}
      <Facts
        rows={[
          [msg`Begun`, <Age key="begun" at={s.started} />],
          [msg`Ended`, s.ended ? <Age key="ended" at={s.ended} /> : msg`${plural(s.units, noun`piece`)} of work done so far`],
          [msg`Stored before`, bytes(s.stored)],
          [s.dryRun ? msg`Would give back` : msg`Stored after`, s.dryRun ? bytes(s.condemnedBytes || s.doomed.reduce((sum, d) => sum + d.bytes, 0)) : bytes(s.storedAfter)],
          [msg`Copied`, bytes(s.moved)],
          [msg`Deleted`, msg`${s.deleted} of ${plural(s.condemned, noun`object`)} that ${s.dryRun ? msg`would be` : msg`are`} part of it no more`],
        ]}
      />
      {s.dryRun && <Doomed objects={s.doomed} more={s.more} />}
    </>
  );
}

const verifyFaces: Record<Verification["state"], { tone: Tone; word: string }> = {
  none: { tone: "idle", word: msg`Never` },
  waiting: { tone: "info", word: msg`Waits for others` },
  running: { tone: "info", word: msg`Running` },
  done: { tone: "ok", word: msg`Done` },
  cancelled: { tone: "idle", word: msg`Cancelled` },
  failed: { tone: "bad", word: msg`Failed` },
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
  const face = v && (v.badObjects > 0 ? { tone: "bad" as const, word: msg`Damage found` } : verifyFaces[v.state]);
  return (
    <Card title={msg`Verify`} class="span-6" aside={face && <Tag {...face} />}>
      <div class="stack">
        <p class="muted">{msg`Reads and checks all that it has on the backend: the log, snapshots, the history, and what it inherits.`}</p>
        <Load query={verification}>{(x) => <VerifyResult verification={x} />}</Load>
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="row">
          {goes ? (
            <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(stop)}>
              {msg`Stop`}
            </Button>
          ) : (
            <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(start)}>
              {msg`Verify now`}
            </Button>
          )}
        </div>
      </div>
    </Card>
  );
}

function VerifyResult({ verification: v }: { verification: Verification }) {
  if (v.state === "none") {
    return <p>{msg`It was never verified.`}</p>;
  }
  return (
    <>
      {v.state === "running" && <Meter label={msg`${percent(v.bytes, v.total)} verified`} parts={[{ share: v.bytes / v.total }]} />}
      {v.error && (
        <Notice tone="bad">
          <span>{v.error}</span>
        </Notice>
      )}
      {v.damage.length > 0 && (
        <Notice tone="bad">
          <b>
            {rich`${plural(v.badObjects, noun`object`)} damaged, ${plural(v.badClusters, noun`cluster`)} without good data`}
          </b>
          {v.damage.slice(0, 10).map((d) => (
            <span key={d.object}>
              <code>{d.object}</code>: {d.why}; {d.current ? msg`hits what it holds now` : d.snapshots.length > 0 ? msg`hits ${d.snapshots.join(", ")}` : msg`hits only moments of its history`}
            </span>
          ))}
        </Notice>
      )}
      <Facts
        rows={[
          [msg`Begun`, <Age key="begun" at={v.startedAt} />],
          [msg`Ended`, v.endedAt ? <Age key="ended" at={v.endedAt} /> : msg`it runs`],
          [msg`Checked`, msg`${bytes(v.bytes)} of ${bytes(v.total)}, ${plural(v.clusters, noun`cluster`)}`],
          [msg`Up to write`, v.seq],
        ]}
      />
    </>
  );
}
