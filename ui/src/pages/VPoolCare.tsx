import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Sweep, VPool, VPoolKey } from "../api/gen";
import { bytes, plural } from "../format";
import { reload, useQuery } from "../store/query";
import { useJobs } from "../store/objects";
import { jobEveryMs, useStatus } from "../store/reads";
import { useSubmit } from "../store/submit";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { Confirm, Dialog } from "../parts/Dialog";
import { Doomed } from "../parts/Doomed";
import { Load } from "../parts/Load";
import { ErrorPanel, Notice } from "../parts/Notice";
import { Card, Facts } from "../parts/Page";
import { jobFace, Tag } from "../parts/StateTag";
import { msg, noun, rich } from "../text";

/** Objects of a vPool that nothing reaches: looks for them, deletes them, and tells of the newest sweep. */
export function SweepCard({ vpool }: { vpool: VPool }) {
  const submit = useSubmit();
  const [ask, setAsk] = useState(false);
  const [begun, setBegun] = useState(false);
  // Before the first there is none to read: the tasks tell whether there was one.
  const jobs = useJobs({ kind: "sweep", object: "vpool " + vpool.name });
  const here = useStatus().data?.node.name;
  const job = jobs.data?.items.find((j) => j.node === here); // a node tells of its own
  const start = async (dryRun: boolean) => {
    await call("POST /vpools/{vpool}/sweep", { path: { vpool: vpool.id }, body: { dryRun } });
    setBegun(true);
    reload("sweep:" + vpool.id, "jobs?");
  };
  const busy = job?.state === "running" ? msg`One is under way` : undefined;
  return (
    <Card title={msg`Garbage`} aside={job && <Tag {...jobFace(job.state)} />}>
      <div class="stack">
        <p class="muted">{msg`Crashes leave objects behind that nothing reaches. A sweep finds and deletes them; what it cannot explain ends it before it deletes.`}</p>
        {job || begun ? <NewestSweep vpool={vpool} /> : <Load query={jobs}>{() => <p>{msg`This node made none since it started.`}</p>}</Load>}
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="row">
          <Button small needs="manage" busy={submit.busy} reason={busy} onClick={() => void submit.run(() => start(true))}>
            {msg`Look for garbage`}
          </Button>
          <Button small needs="manage" reason={busy} onClick={() => setAsk(true)}>
            {msg`Sweep`}
          </Button>
        </div>
      </div>
      {ask && (
        <Confirm
          title={msg`Sweep vPool ${vpool.name}`}
          verb={msg`Sweep`}
          consequences={[
            msg`Objects that no vDisk, snapshot or moment of a history reaches are deleted from its backend.`,
            msg`vDisks that this node does not know are left alone. Hosts notice nothing.`,
          ]}
          onClose={() => setAsk(false)}
          act={() => start(false)}
        />
      )}
    </Card>
  );
}

function NewestSweep({ vpool }: { vpool: VPool }) {
  const sweep = useQuery<Sweep>("sweep:" + vpool.id, () => call("GET /vpools/{vpool}/sweep", { path: { vpool: vpool.id } }), jobEveryMs);
  return <Load query={sweep}>{(s) => <SweepResult sweep={s} />}</Load>;
}

/** Most names of one line. */
const namesMax = 5;

/** Names in one line, however many there are. */
function names(all: string[]): string {
  const rest = all.length - namesMax;
  return all.slice(0, namesMax).join(", ") + (rest > 0 ? msg` and ${rest} more` : "");
}

function SweepResult({ sweep: s }: { sweep: Sweep }) {
  return (
    <>
      {s.failure && (
        <Notice tone="bad">
          <span>{s.failure}</span>
        </Notice>
      )}
      {s.quarantined.length > 0 && (
        <Notice tone="warn">
          <b>{rich`${plural(s.quarantined.length, noun`vDisk`)} that the node does not know, left alone`}</b>
          <code>{names(s.quarantined)}</code>
        </Notice>
      )}
      <Facts
        rows={[
          [msg`Begun`, <Age key="begun" at={s.started} />],
          [msg`Ended`, s.ended ? <Age key="ended" at={s.ended} /> : msg`it runs`],
          [msg`Looked at`, msg`${plural(s.objects, noun`object`)} of ${plural(s.vdisks, noun`vDisk`)}`],
          [msg`Garbage`, `${plural(s.garbage, noun`object`)}, ${bytes(s.garbageBytes)}`],
          [msg`Deleted`, s.dryRun ? msg`nothing: it only looked` : plural(s.deleted, noun`object`)],
          ...(s.skipped.length > 0 ? ([[msg`Left out`, msg`${names(s.skipped)}: changed meanwhile`]] as [string, string][]) : []),
        ]}
      />
      {s.dryRun && <Doomed objects={s.doomed} more={s.more} />}
    </>
  );
}

/** The key that objects of a vPool are encrypted with: told when it is asked for. */
export function KeyDialog({ vpool, onClose }: { vpool: VPool; onClose: () => void }) {
  const submit = useSubmit();
  const [key, setKey] = useState<VPoolKey | undefined>(undefined);
  const ask = async () => setKey(await call("GET /vpools/{vpool}/key", { path: { vpool: vpool.id } }));
  return (
    <Dialog title={msg`Key of vPool ${vpool.name}`} onClose={onClose}>
      <div class="stack-wide">
        <p>{msg`The node loses it with its data directory, and without it nobody reads what is on the backend. Keep it apart from both: who has the key and the objects has the data.`}</p>
        {key && <CopyBlock label={msg`Key ${key.id}`} name="vpoolKey" text={key.key} />}
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="dialog-foot">
          <Button onClick={onClose}>{key ? msg`Done` : msg`Cancel`}</Button>
          {!key && (
            <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(ask)}>
              {msg`Show the key`}
            </Button>
          )}
        </div>
      </div>
    </Dialog>
  );
}
