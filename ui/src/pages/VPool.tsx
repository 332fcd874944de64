import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { VPool } from "../api/gen";
import { bytes, count, interval, percent } from "../format";
import { navigate } from "../router";
import { ending, reload, useQuery } from "../store/query";
import { useVPool, vpoolKey } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age, Seen } from "../parts/Age";
import { Button } from "../parts/Button";
import { Charts } from "../parts/Charts";
import { Confirm, Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { Lazy } from "../parts/Lazy";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { FormError, Notice } from "../parts/Notice";
import { EventsOf } from "../parts/ObjectLink";
import { Card, Facts, Page } from "../parts/Page";
import { VPoolTag } from "../parts/StateTag";
import { KeyDialog, SweepCard } from "./VPoolCare";
import { changedSettings, settingsFields, settingsForm, VPoolSettingsFields } from "../parts/VPoolSettingsFields";
import { msg, rich } from "../text";

/** One vPool: where it keeps data, how full that is, its settings. */
export function VPoolPage({ name }: { name: string }) {
  const vpool = useVPool(name);
  const p = vpool.data;
  useEffect(() => {
    if (p && p.name !== name && p.id !== name) {
      navigate(`/vpools/${encodeURIComponent(p.name)}`, { replace: true });
    }
  }, [p?.name]);
  return (
    <Page
      title={name}
      crumbs={[{ to: "/vpools", text: msg`vPools` }]}
      state={
        p && (
          <>
            <VPoolTag state={p.state} reason={p.stateReason} /> <EventsOf object={"vpool " + p.name} />
          </>
        )
      }
      actions={p && <Actions vpool={p} />}
    >
      <Load query={vpool} lines={8}>
        {(shown) => (
          <div class="grid">
            {shown.stateReason && (
              <div class="span-12">
                <Notice tone={shown.state === "offline" ? "bad" : "warn"}>{shown.stateReason}</Notice>
              </div>
            )}
            <Restored vpool={shown} />
            <section class="span-6 stack">
              <CapacityCard vpool={shown} />
              <SweepCard vpool={shown} />
            </section>
            <SettingsCard vpool={shown} />
            <Charts kind="vpool" id={shown.id} name={shown.name} at={shown.node ?? undefined} />
          </div>
        )}
      </Load>
    </Page>
  );
}

const loadRestored = () => import("./Restored");

/** What a restore of the metadata left to do, where there was one. */
function Restored({ vpool }: { vpool: VPool }) {
  const metadata = useQuery("metadata", () => call("GET /metadata"));
  if (!metadata.data?.vpools.some((r) => r.vpool === vpool.name)) {
    return null;
  }
  return <Lazy load={loadRestored}>{(r) => <r.RestoredCards vpool={vpool.name} />}</Lazy>;
}

function Actions({ vpool }: { vpool: VPool }) {
  const [open, setOpen] = useState<"edit" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button
        kind="primary"
        needs="write"
        onClick={() => navigate(`/vdisks/new?vpool=${encodeURIComponent(vpool.name)}`)}
      >
        {msg`Create vDisk`}
      </Button>
      <Button needs="manage" onClick={() => setOpen("edit")}>
        {msg`Edit`}
      </Button>
      <Button onClick={() => navigate(`/schedules?vpool=${encodeURIComponent(vpool.name)}`)}>{msg`Schedules`}</Button>
      <Button
        kind="danger"
        needs="manage"
        reason={vpool.vdisks > 0 ? msg`Delete or move its vDisks first` : undefined}
        onClick={() => setOpen("delete")}
      >
        {msg`Delete`}
      </Button>
      {open === "edit" && <EditDialog vpool={vpool} onClose={close} />}
      {open === "delete" && (
        <Confirm
          title={msg`Delete vPool ${vpool.name}`}
          verb={msg`Delete vPool`}
          danger
          typeName={vpool.name}
          consequences={[msg`It has no vDisks. Its directory is given up and can be used again.`]}
          onClose={close}
          act={async () => {
            await ending(vpoolKey(vpool.name), () => call("DELETE /vpools/{vpool}", { path: { vpool: vpool.id } }));
            toast("ok", msg`vPool ${vpool.name} is deleted`);
            reload("vpools?", "status");
            navigate("/vpools");
          }}
        />
      )}
    </>
  );
}

function EditDialog({ vpool, onClose }: { vpool: VPool; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState(vpool.name);
  const [settings, setSettings] = useState(settingsForm(vpool.settings));
  const save = async () => {
    const changed = await call("PATCH /vpools/{vpool}", {
      path: { vpool: vpool.name },
      body: {
        ...(name.trim() !== vpool.name ? { name: name.trim() } : {}),
        settings: changedSettings(settings, vpool.settings),
      },
    });
    toast("ok", msg`vPool ${changed.name} saved`);
    reload("vpool:", "vpools?", "vdisks?");
    onClose();
    navigate(`/vpools/${encodeURIComponent(changed.name)}`, { replace: true });
  };
  return (
    <Dialog title={msg`Edit vPool ${vpool.name}`} onClose={onClose}>
      <form
        class="stack-wide"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(save);
        }}
      >
        <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} />
        <VPoolSettingsFields form={settings} onForm={setSettings} submit={submit} />
        <FormError submit={submit} fields={["name", ...settingsFields]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" busy={submit.busy}>
            {msg`Save`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function CapacityCard({ vpool: p }: { vpool: VPool }) {
  const used = p.total - p.free;
  return (
    <Card title={msg`Capacity`} aside={<Seen at={p.observedAt} />}>
      <div class="stack-wide">
        {p.total > 0 && (
          <div class="stack">
            <div class="row">
              {rich`${<b>{msg`Disk`}</b>} ${<span class="spacer" />}${bytes(used)} of ${bytes(p.total)} used (${percent(used, p.total)})`}
            </div>
            <Meter
              label={msg`Disk ${percent(used, p.total)} full, ${percent(p.stored, p.total)} by this vPool`}
              parts={[
                { share: p.stored / p.total, class: fillTone(used / p.total) },
                { share: (used - p.stored) / p.total, class: "second" },
              ]}
            />
          </div>
        )}
        <Facts
          rows={[
            [msg`Stored`, bytes(p.stored)],
            [msg`Written`, bytes(p.mapped)],
            [msg`Provisioned`, bytes(p.provisioned)],
            [msg`vDisks`, <Link key="vdisks" to={`/vdisks?vpool=${encodeURIComponent(p.name)}`}>{p.vdisks}</Link>],
          ]}
        />
      </div>
    </Card>
  );
}

const placeWords = { alba: msg`Namespaces`, local: msg`Directory`, s3: msg`Prefix`, swift: msg`Prefix` };

function backendWords(b: VPool["backend"]): string {
  switch (b.kind) {
    case "alba":
      return msg`Object store of the node`;
    case "local":
      return msg`Local directory`;
    default:
      return `${b.store} (${b.kind === "s3" ? "S3" : msg`Swift`})`;
  }
}

/** The key that objects are encrypted with, and a way to keep it. */
function Encrypted({ vpool, id }: { vpool: VPool; id: string }) {
  const [open, setOpen] = useState(false);
  return (
    <span class="row">
      {rich`With key ${<code>{id}</code>}`}
      <Button small needs="manage" onClick={() => setOpen(true)}>
        {msg`Keep the key`}
      </Button>
      {open && <KeyDialog vpool={vpool} onClose={() => setOpen(false)} />}
    </span>
  );
}

function SettingsCard({ vpool: p }: { vpool: VPool }) {
  const s = p.settings;
  return (
    <Card title={msg`Backend and settings`} class="span-6">
      <Facts
        rows={[
          [msg`Backend`, backendWords(p.backend)],
          [placeWords[p.backend.kind], <code key="path">{p.backend.path}</code>],
          [msg`Encryption`, p.keyId ? <Encrypted key="key" vpool={p} id={p.keyId} /> : msg`None by this vPool`],
          ...(p.backend.kind === "alba" ? ([[msg`Preset`, p.backend.preset || msg`The default one`]] as [string, string][]) : []),
          ...p.requests
            .filter((r) => r.requests > 0)
            .map((r): [string, string] => [
              msg`Requests: ${r.kind}`,
              [count(r.requests), r.bytes > 0 ? bytes(r.bytes) : "", r.failed > 0 ? msg`${count(r.failed)} failed` : ""].filter(Boolean).join(", "),
            ]),
          [msg`Cluster size`, bytes(s.clusterSize)],
          [msg`SCO size`, bytes(s.scoSize)],
          [msg`Journal quota`, msg`${bytes(s.journalQuota)} per vDisk`],
          [msg`Commit interval`, interval(s.commitIntervalMs)],
          [msg`Stall timeout`, interval(s.stallTimeoutMs)],
          [msg`History`, s.historyMs ? interval(s.historyMs) : msg`None kept by scrubs`],
          [msg`Verified`, s.verifyIntervalMs ? msg`Each vDisk every ${interval(s.verifyIntervalMs)}` : msg`When it is asked for`],
          [msg`Deleted vDisks`, s.trashMs ? msg`Kept for ${interval(s.trashMs)}` : msg`Gone at once`],
          [msg`Over-subscription`, s.oversubscriptionPercent ? msg`Up to ${s.oversubscriptionPercent} % of the disk` : msg`No bound`],
          [msg`After a lost tail`, s.lostTail === "offline" ? msg`Offline until accepted` : msg`Serve without the lost writes`],
          [msg`Created`, <Age key="created" at={p.created} />],
          [msg`Id`, <code key="id">{p.id}</code>],
        ]}
      />
    </Card>
  );
}
