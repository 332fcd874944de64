import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Job, OSD } from "../api/gen";
import { bytes, capital, count, latency } from "../format";
import { useJob, useOSD } from "../store/objects";
import { asApiError } from "../store/query";
import { toast } from "../store/toasts";
import { Age, Seen } from "../parts/Age";
import { Button } from "../parts/Button";
import { DeviceMeter, HealthTag, OSDTag, place, temperature } from "../parts/DeviceParts";
import { JobMeter, JobTag, pace, progress } from "../parts/JobParts";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Menu } from "../parts/Menu";
import { Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { devicesChanged, MoveDialog, PurgeDialog, RetireDialog, useLight } from "./DiskDialogs";
import { msg, rich } from "../text";

/** One device of the object store. */
export function DiskPage({ number }: { number: number }) {
  const osd = useOSD(number);
  return (
    <Page
      title={msg`Device ${number}`}
      crumbs={[{ to: "/disks", text: msg`Disks` }]}
      state={osd.data && <OSDTag osd={osd.data} />}
      actions={osd.data && <Actions osd={osd.data} />}
    >
      <Load query={osd} lines={8}>
        {(o) => (
          <div class="stack-wide">
            {o.problem && (
              <Notice tone="bad">
                <b>{rich`It does not work: ${o.problem}`}</b>
                <span>
                  {rich`What it held is made anew from the other devices, unless it comes back soon. ${<Link to={`/disks/${o.number}/replace`}>{msg`Replace it`}</Link>}`}
                </span>
              </Notice>
            )}
            <div class="grid">
              <Identity osd={o} />
              <Space osd={o} />
              <Work number={o.number} />
            </div>
          </div>
        )}
      </Load>
    </Page>
  );
}

function Actions({ osd: o }: { osd: OSD }) {
  const [open, setOpen] = useState<"move" | "retire" | "purge" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const { light, reason } = useLight(o);
  const verify = async () => {
    try {
      await call("POST /osds/{osd}/verify", { path: { osd: o.number } });
      toast("ok", msg`Device ${o.number} is being verified`);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    devicesChanged();
  };
  return (
    <>
      <Button needs="manage" reason={o.working ? undefined : msg`It does not work`} onClick={() => void verify()}>
        {msg`Verify`}
      </Button>
      <Link class="btn" to={`/disks/${o.number}/replace`}>
        {msg`Replace`}
      </Link>
      <Menu
        label={msg`More actions`}
        groups={[
          {
            title: msg`Find it`,
            items: [
              { text: msg`Light on`, needs: "manage", reason, act: () => light(true) },
              { text: msg`Light off`, needs: "manage", reason, act: () => light(false) },
            ],
          },
          { title: msg`Place`, items: [{ text: msg`Move`, needs: "manage", act: () => setOpen("move") }] },
          {
            items: [
              {
                text: msg`Retire`,
                needs: "manage",
                reason: o.state === "in-use" ? undefined : msg`Only a device in use is retired`,
                danger: true,
                act: () => setOpen("retire"),
              },
              {
                text: msg`Give up`,
                needs: "manage",
                reason: o.state === "purging" ? msg`It is given up already` : undefined,
                danger: true,
                act: () => setOpen("purge"),
              },
            ],
          },
        ]}
      />
      {open === "move" && <MoveDialog osd={o} onClose={close} />}
      {open === "retire" && <RetireDialog osd={o} onClose={close} />}
      {open === "purge" && <PurgeDialog osd={o} onClose={close} />}
    </>
  );
}

function Identity({ osd: o }: { osd: OSD }) {
  const d = o.disk;
  return (
    <Card title={msg`Identity`} class="span-6">
      <Facts
        rows={[
          [msg`Node`, [o.node, o.domain && msg`in ${o.domain}`].filter(Boolean).join(", ")],
          [o.kind === "local" ? msg`Directory` : msg`Address`, <code key="place">{place(o)}</code>],
          [msg`Disk`, d ? <code key="disk">{d.path}</code> : <span class="muted">{msg`none of this node that is known`}</span>],
          [msg`Model`, d?.model ?? <span class="muted">{msg`not told`}</span>],
          [msg`Serial`, d?.serial ?? <span class="muted">{msg`not told`}</span>],
          [msg`Claimed`, <Age key="claimed" at={o.claimedAt} />],
          ...(o.replaces !== null ? [[msg`Came for`, msg`device ${o.replaces}`] as [string, string]] : []),
          [msg`UUID`, <code key="uuid">{o.uuid}</code>],
        ]}
      />
    </Card>
  );
}

function Space({ osd: o }: { osd: OSD }) {
  return (
    <Card title={msg`Space and health`} class="span-6" aside={<Seen at={o.observedAt} />}>
      <Facts
        rows={[
          [msg`Used`, <DeviceMeter key="used" osd={o} />],
          [msg`Free`, msg`${bytes(o.free)} of ${bytes(o.total)}`],
          [msg`Fragments`, msg`${count(o.fragments)} by the last survey`],
          [msg`SMART`, <HealthTag key="health" disk={o.disk} />],
          [msg`Temperature`, temperature(o.disk)],
          [msg`Disk errors`, o.disk ? (o.disk.problem ?? msg`none told`) : msg`not known`],
          [msg`Reads to 64 KiB`, latency(o.smallReadUs)],
          [msg`Larger reads`, latency(o.largeReadUs)],
        ]}
      />
    </Card>
  );
}

/** What is being done on a device: it is emptied or verified. */
function Work({ number }: { number: number }) {
  const jobs = [useJob(`empty-${number}`).data, useJob(`verify-${number}`).data].filter((j): j is Job => Boolean(j));
  if (jobs.length === 0) {
    return null;
  }
  return (
    <Card title={msg`Jobs`} class="span-12">
      <div class="stack">
        {jobs.map((j) => (
          <JobLine key={j.id} job={j} />
        ))}
      </div>
    </Card>
  );
}

/** One job with its progress. */
export function JobLine({ job: j }: { job: Job }) {
  return (
    <div class="stack-tight">
      <span class="row">
        <b>{capital(j.what)}</b> <JobTag job={j} />
      </span>
      <JobMeter job={j} />
      <span class="num small">
        {progress(j)}; {pace(j)}
      </span>
      {j.error && <span class="tone-bad small">{j.error}</span>}
    </div>
  );
}
