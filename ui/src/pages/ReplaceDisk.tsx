import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Alba, Disk, OSD } from "../api/gen";
import { bytes, capital, plural } from "../format";
import { query, setQuery } from "../router";
import { useAlba, useDisks, useJob, useOSD } from "../store/objects";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { DeviceField, deviceErrors, deviceOf, emptyDevice } from "../parts/DeviceField";
import { HealthTag, OSDTag, place } from "../parts/DeviceParts";
import { CheckField } from "../parts/Field";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { Step } from "../parts/Step";
import { JobLine } from "./Disk";
import { devicesChanged, LocateButtons, RetireDialog } from "./DiskDialogs";
import { msg, noun, rich } from "../text";

/**
 * The way from a failing disk to a new one. What was done is read from the node, so that the page may be left
 * and opened again, and works when the disk is already gone.
 */
export function ReplaceDiskPage({ number }: { number: number }) {
  const osd = useOSD(number);
  // The record of the old device is gone at the end: the address remembers the new one.
  const by = osd.data?.replacedBy ?? (Number(query.value.get("new")) || undefined);
  const left = osd.error?.status === 404;
  return (
    <Page
      title={msg`Replace device ${number}`}
      crumbs={[
        { to: "/disks", text: msg`Disks` },
        ...(left ? [] : [{ to: `/disks/${number}`, text: msg`Device ${number}` }]),
      ]}
      state={osd.data && !left && <OSDTag osd={osd.data} />}
    >
      {left ? <Left number={number} by={by} /> : <Load query={osd}>{(o) => <Steps osd={o} by={by} />}</Load>}
    </Page>
  );
}

function Left({ number, by }: { number: number; by: number | undefined }) {
  const job = useJob(`empty-${number}`);
  return (
    <div class="stack-wide">
      <Notice tone="ok">
        <b>{rich`Device ${number} has left the object store`}</b>
        <span>
          {rich`Nothing is stored on it any more; its disk may be taken out. ${by && <Link to={`/disks/${by}`}>{msg`Device ${by} is in its place`}</Link>}`}
        </span>
      </Notice>
      {job.data && (
        <Card title={msg`What was done`}>
          <JobLine job={job.data} />
        </Card>
      )}
      <div class="row">
        <Link class="btn" to="/disks">
          {msg`All disks`}
        </Link>
      </div>
    </div>
  );
}

function Steps({ osd: o, by }: { osd: OSD; by: number | undefined }) {
  const alba = useAlba();
  const [anyway, setAnyway] = useState(false);
  const danger = !o.working && alba.data?.tolerates === -1;
  const begun = by !== undefined;
  if (o.state === "purging") {
    return (
      <Notice tone="info">
        <b>{rich`Device ${o.number} is given up already`}</b>
        <span>
          {rich`What it held is made anew from the others. ${<Link to="/disks/claim">{msg`Claim the new device`}</Link>} as any other.`}
        </span>
      </Notice>
    );
  }
  return (
    <Card title={msg`Four steps`}>
      <ol class="checklist steps">
        <Step title={msg`Find the disk, and see that data is safe`} done={begun}>
          <Identity osd={o} />
          <div class="row">
            <LocateButtons osd={o} />
          </div>
          <Load query={alba} lines={1}>
            {(a) => <Safety alba={a} osd={o} />}
          </Load>
          {danger && !begun && (
            <CheckField name="anyway" checked={anyway} onValue={setAnyway}>
              {msg`Go on all the same: these objects do not get better by waiting`}
            </CheckField>
          )}
        </Step>
        <Step title={msg`Insert the new disk`} done={begun}>
          {begun ? <p class="muted">{msg`It is in.`}</p> : <NewDisks />}
        </Step>
        <Step title={msg`Claim it in the place of device ${o.number}`} done={begun}>
          {begun ? (
            <p>
              {rich`${<Link to={`/disks/${by}`}>{msg`Device ${by}`}</Link>} is claimed.`}
            </p>
          ) : (
            <ClaimNew osd={o} reason={danger && !anyway ? msg`Some objects cannot be read now: see the first step` : undefined} />
          )}
        </Step>
        <Step title={msg`Device ${o.number} is emptied, and leaves`} done={false}>
          <Rebuild osd={o} begun={begun} />
        </Step>
      </ol>
    </Card>
  );
}

function Identity({ osd: o }: { osd: OSD }) {
  return (
    <Facts
      rows={[
        [msg`Node`, [o.node, o.domain && msg`in ${o.domain}`].filter(Boolean).join(", ")],
        [msg`Place`, <code key="place">{[place(o), o.disk?.path].filter(Boolean).join(", disk ")}</code>],
        [msg`Model`, o.disk?.model ?? <span class="muted">{msg`not told`}</span>],
        [msg`Serial`, o.disk?.serial ?? <span class="muted">{msg`not told`}</span>],
        [msg`SMART`, <HealthTag key="health" disk={o.disk} />],
        [msg`Holds`, bytes(o.used)],
        ...(o.problem ? [[msg`Problem`, o.problem] as [string, string]] : []),
      ]}
    />
  );
}

/** What may happen meanwhile, in a sentence. */
function Safety({ alba: a, osd: o }: { alba: Alba; osd: OSD }) {
  const survey = useJob("survey");
  const sentence = capital(a.safety);
  if (o.working) {
    return (
      <Notice tone="ok">
        <b>{rich`Device ${o.number} works: what it holds is stored on the others before it leaves`}</b>
        <span>{rich`Nothing becomes less safe meanwhile. ${sentence}.`}</span>
      </Notice>
    );
  }
  const tone = a.tolerates === null ? "info" : a.tolerates < 0 ? "bad" : a.tolerates === 0 ? "warn" : "ok";
  return (
    <Notice tone={tone}>
      <b>{sentence}</b>
      {a.repair > 0 && (
        <span>
          {rich`${plural(a.repair, noun`object`)} ${a.repair === 1 ? msg`waits` : msg`wait`} for repair, which goes on by itself.${tone !== "ok" && msg` Wait for it before another disk is taken out.`}`}
        </span>
      )}
      {survey.data && !survey.data.endedAt && <JobLine job={survey.data} />}
    </Notice>
  );
}

type Seen = Disk & { fresh: boolean };

const diskColumns: Column<Seen>[] = [
  {
    key: "disk",
    title: msg`Blank disk`,
    cell: (d) => (
      <>
        <span class="mono">{d.path}</span> {d.fresh && <span class="chip">{msg`new`}</span>}
      </>
    ),
  },
  { key: "model", title: msg`Model`, cell: (d) => d.model ?? "" },
  { key: "serial", title: msg`Serial`, cell: (d) => d.serial ?? "" },
  { key: "size", title: msg`Size`, right: true, cell: (d) => bytes(d.size) },
];

/** Waits for a disk: lists the blank ones, and marks those that came since the page was opened. */
function NewDisks() {
  const disks = useDisks({}, true);
  const known = useRef<Set<string> | undefined>(undefined);
  const identity = (d: Disk) => d.serial ?? d.wwn ?? d.path;
  if (disks.data && !known.current) {
    known.current = new Set(disks.data.items.map(identity));
  }
  return (
    <>
      <Load query={disks} lines={2}>
        {(list) => {
          const blank = list.items
            .filter((d) => d.usable)
            .map((d) => ({ ...d, fresh: !known.current?.has(identity(d)) }))
            .sort((a, b) => Number(b.fresh) - Number(a.fresh));
          const first = blank[0];
          return first ? (
            <>
              <DataTable label={msg`Blank disks`} columns={diskColumns} rows={blank} rowKey={(d) => d.name} />
              <CopyBlock
                label={msg`Serve a disk, as root on its machine`}
                name="asd"
                text={`ovgate asd --disk ${first.link ?? first.path} --listen ${location.hostname}:8500`}
              />
            </>
          ) : (
            <Notice tone="info" waiting>
              <b>{msg`Waiting for a blank disk in this node`}</b>
              <span>{msg`It appears here by itself. A directory, or a disk of another machine, is named in the next step.`}</span>
            </Notice>
          );
        }}
      </Load>
    </>
  );
}

function ClaimNew({ osd: o, reason }: { osd: OSD; reason: string | undefined }) {
  const submit = useSubmit();
  const [form, setForm] = useState(emptyDevice);
  const replace = async () => {
    const now = await call("POST /osds/{osd}/replace", { path: { osd: o.number }, body: deviceOf(form) });
    toast("ok", msg`Device ${now.number} is claimed in the place of device ${o.number}`);
    setQuery({ new: String(now.number) }, { replace: true });
    devicesChanged();
  };
  return (
    <form
      class="stack form-narrow"
      aria-label={msg`New device`}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!reason) {
          void submit.run(replace);
        }
      }}
    >
      <DeviceField form={form} onForm={setForm} submit={submit} />
      <FormError submit={submit} fields={deviceErrors} />
      <div class="row">
        <Button type="submit" kind="primary" needs="manage" reason={reason} busy={submit.busy}>
          {msg`Claim it and empty device ${o.number}`}
        </Button>
      </div>
    </form>
  );
}

function Rebuild({ osd: o, begun }: { osd: OSD; begun: boolean }) {
  const job = useJob(`empty-${o.number}`);
  const [retire, setRetire] = useState(false);
  if (!begun) {
    return <p class="muted">{msg`What it holds is stored anew on the other devices; then its disk may be taken out.`}</p>;
  }
  if (o.state === "in-use") {
    return (
      <>
        <Notice tone="warn">{msg`The new device is in, but emptying the old one was not begun.`}</Notice>
        <div class="row">
          <Button kind="primary" needs="manage" onClick={() => setRetire(true)}>
            {msg`Empty device ${o.number}`}
          </Button>
        </div>
        {retire && <RetireDialog osd={o} onClose={() => setRetire(false)} />}
      </>
    );
  }
  return (
    <>
      {job.data ? <JobLine job={job.data} /> : <p class="muted">{msg`It begins with the next survey.`}</p>}
      <p class="muted small">{msg`You may leave this page: the work goes on, also after a restart of the node.`}</p>
    </>
  );
}
