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

/** One device of the object store. */
export function DiskPage({ number }: { number: number }) {
  const osd = useOSD(number);
  return (
    <Page
      title={`Device ${number}`}
      crumbs={[{ to: "/disks", text: "Disks" }]}
      state={osd.data && <OSDTag osd={osd.data} />}
      actions={osd.data && <Actions osd={osd.data} />}
    >
      <Load query={osd} lines={8}>
        {(o) => (
          <div class="stack-wide">
            {o.problem && (
              <Notice tone="bad">
                <b>It does not work: {o.problem}</b>
                <span>
                  What it held is made anew from the other devices, unless it comes back soon.{" "}
                  <Link to={`/disks/${o.number}/replace`}>Replace it</Link>
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
      toast("ok", `Device ${o.number} is being verified`);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    devicesChanged();
  };
  return (
    <>
      <Button needs="manage" reason={o.working ? undefined : "It does not work"} onClick={() => void verify()}>
        Verify
      </Button>
      <Link class="btn" to={`/disks/${o.number}/replace`}>
        Replace
      </Link>
      <Menu
        label="More actions"
        groups={[
          {
            title: "Find it",
            items: [
              { text: "Light on", needs: "manage", reason, act: () => light(true) },
              { text: "Light off", needs: "manage", reason, act: () => light(false) },
            ],
          },
          { title: "Place", items: [{ text: "Move", needs: "manage", act: () => setOpen("move") }] },
          {
            items: [
              {
                text: "Retire",
                needs: "manage",
                reason: o.state === "in-use" ? undefined : "Only a device in use is retired",
                danger: true,
                act: () => setOpen("retire"),
              },
              {
                text: "Give up",
                needs: "manage",
                reason: o.state === "purging" ? "It is given up already" : undefined,
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
    <Card title="Identity" class="span-6">
      <Facts
        rows={[
          ["Node", [o.node, o.domain && `in ${o.domain}`].filter(Boolean).join(", ")],
          [o.kind === "local" ? "Directory" : "Address", <code key="place">{place(o)}</code>],
          ["Disk", d ? <code key="disk">{d.path}</code> : <span class="muted">none of this node that is known</span>],
          ["Model", d?.model ?? <span class="muted">not told</span>],
          ["Serial", d?.serial ?? <span class="muted">not told</span>],
          ["Claimed", <Age key="claimed" at={o.claimedAt} />],
          ...(o.replaces !== null ? [["Came for", `device ${o.replaces}`] as [string, string]] : []),
          ["UUID", <code key="uuid">{o.uuid}</code>],
        ]}
      />
    </Card>
  );
}

function Space({ osd: o }: { osd: OSD }) {
  return (
    <Card title="Space and health" class="span-6" aside={<Seen at={o.observedAt} />}>
      <Facts
        rows={[
          ["Used", <DeviceMeter key="used" osd={o} />],
          ["Free", `${bytes(o.free)} of ${bytes(o.total)}`],
          ["Fragments", `${count(o.fragments)} by the last survey`],
          ["SMART", <HealthTag key="health" disk={o.disk} />],
          ["Temperature", temperature(o.disk)],
          ["Disk errors", o.disk ? (o.disk.problem ?? "none told") : "not known"],
          ["Reads to 64 KiB", latency(o.smallReadUs)],
          ["Larger reads", latency(o.largeReadUs)],
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
    <Card title="Jobs" class="span-12">
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
