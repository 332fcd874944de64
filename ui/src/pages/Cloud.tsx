import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Cloud, CloudAction, CloudBackend, CloudList, CloudPool, CloudUsage, CloudVolume, VolumeLimits, VolumeType } from "../api/gen";
import { bytes, count, MiB, plural, rate } from "../format";
import { navigate, query } from "../router";
import { ending, patch, reload } from "../store/query";
import { cloudKey, useCloud, useCloudBackends, useCloudUsage, useCloudVolumes, useVPoolChoices } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog } from "../parts/Dialog";
import { CheckField, SelectField, TextField } from "../parts/Field";
import { ForgetDialog } from "../parts/ForgetDialog";
import { FormDialog } from "../parts/FormDialog";
import { amount, LimitFields, limitsOf, limitText } from "../parts/LimitFields";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ErrorPanel, Notice } from "../parts/Notice";
import { Empty, Facts, Page } from "../parts/Page";
import { Tag, type Tone } from "../parts/StateTag";
import { Tabs } from "../parts/Tabs";
import { RemoteTest } from "../parts/RemoteTest";
import { TableTools } from "../parts/TableTools";
import { msg, noun, rich } from "../text";

/** One cloud: its volumes and their vDisks, the volume types that it should have, and how Cinder sees this node. */
export function CloudPage({ name }: { name: string }) {
  const cloud = useCloud(name);
  const c = cloud.data;
  useEffect(() => {
    if (c && c.name !== name && c.id !== name) {
      navigate(`/openstack/${encodeURIComponent(c.name)}`, { replace: true });
    }
  }, [c?.name]);
  return (
    <Page title={name} crumbs={[{ to: "/openstack", text: msg`OpenStack` }]} state={c && <CloudTag cloud={c} />} actions={c && <Actions cloud={c} />}>
      <Load query={cloud} lines={8}>
        {(shown) => (
          <div class="stack-wide">
            {shown.warnings.map((w) => (
              <Notice key={w} tone="warn">
                {w}
              </Notice>
            ))}
            <Tabs
              label={msg`Parts of the cloud`}
              param="tab"
              tabs={[
                { id: "volumes", title: msg`Volumes`, content: <VolumesTab cloud={shown} /> },
                { id: "types", title: msg`Volume types`, content: <TypesTab cloud={shown} /> },
                { id: "backends", title: msg`Backends`, content: <BackendsTab cloud={shown} /> },
                { id: "projects", title: msg`Projects`, content: <ProjectsTab cloud={shown} /> },
                { id: "access", title: msg`Access`, content: <AccessTab cloud={shown} /> },
              ]}
            />
          </div>
        )}
      </Load>
    </Page>
  );
}

export function CloudTag({ cloud: c }: { cloud: Cloud }) {
  return c.warnings.length > 0 ? <Tag tone="warn" word={plural(c.warnings.length, noun`warning`)} title={c.warnings.join(". ")} /> : <Tag tone="ok" word={msg`Works`} />;
}

function Actions({ cloud: c }: { cloud: Cloud }) {
  const [open, setOpen] = useState<"test" | "change" | "apply" | "forget" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button kind="primary" needs="manage" onClick={() => setOpen("apply")}>
        {msg`Apply types`}
      </Button>
      <Button needs="manage" onClick={() => setOpen("test")}>
        {msg`Test`}
      </Button>
      <Button needs="manage" onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>
      <Button kind="danger" needs="manage" onClick={() => setOpen("forget")}>
        {msg`Forget`}
      </Button>
      {open === "change" && <ChangeCloud cloud={c} onClose={close} />}
      {open === "test" && <TestDialog cloud={c} onClose={close} />}
      {open === "apply" && <ApplyDialog cloud={c} onClose={close} />}
      {open === "forget" && (
        <ForgetDialog
          name={c.name}
          what="cloud"
          onClose={close}
          forget={async () => {
            await ending(cloudKey(c.name), () => call("DELETE /openstack/clouds/{cloud}", { path: { cloud: c.id } }));
            // Before the page of all is shown, which asks for orphans where there is a cloud.
            patch<CloudList>("clouds?", (list) => ({ ...list, items: list.items.filter((x) => x.id !== c.id) }));
            navigate("/openstack");
          }}
        />
      )}
    </>
  );
}

function VolumesTab({ cloud }: { cloud: Cloud }) {
  const cursor = query.value.get("cursor") ?? undefined;
  const volumes = useCloudVolumes(cloud.id, cursor);
  return (
    <Load query={volumes}>
      {(list) =>
        list.items.length === 0 && !cursor ? (
          <Empty title={msg`No volumes yet`} text={msg`It has no volume on this node. A volume is a vDisk of the vPool that its type names.`} command="openstack volume create --type ovgate-VPOOL --size 10 NAME" />
        ) : (
          <>
            <div class="toolbar">
              <TableTools
                table="cloud.volumes"
                noun={noun`volume`}
                columns={volumeColumns}
                read={(cursor, limit) => call("GET /openstack/clouds/{cloud}/volumes", { path: { cloud: cloud.id }, query: { cursor, limit } })}
              />
            </div>
            <DataTable label={msg`Volumes`} table="cloud.volumes" columns={volumeColumns} rows={list.items} rowKey={(v) => v.id} next={list.next} />
          </>
        )
      }
    </Load>
  );
}

const volumeColumns: Column<CloudVolume>[] = [
  { key: "name", csv: (v) => v.name || v.id, title: msg`Volume`, wrap: true, cell: (v) => v.name || v.id },
  { key: "status", csv: (v) => v.status, title: msg`Status`, cell: (v) => v.status },
  { key: "project", csv: (v) => v.projectName || v.project, title: msg`Project`, cell: (v) => v.projectName || v.project },
  { key: "type", csv: (v) => v.type, title: msg`Type`, cell: (v) => v.type },
  {
    key: "vdisk",
    csv: (v) => v.vdiskName,
    title: msg`vDisk`,
    cell: (v) => (v.vdisk ? <Link to={`/vdisks/${encodeURIComponent(v.vdiskName)}`}>{v.vdiskName}</Link> : <Tag tone="bad" word={msg`None`} title={msg`It should be ${v.vdiskName}`} />),
  },
  { key: "attached", csv: (v) => v.attached.join("; "), title: msg`Attached to`, wrap: true, cell: (v) => v.attached.join(", ") || "–" },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (v) => v.size }, title: msg`Size`, right: true, cell: (v) => bytes(v.size) },
  { key: "stored", csv: { title: msg`Stored (bytes)`, value: (v) => v.stored }, title: msg`Stored`, right: true, cell: (v) => bytes(v.stored) },
];


/** Limits of a volume type, in words. */
function limitsText(l: VolumeLimits): string {
  const all = [
    l.iops && msg`${count(l.iops)} IOPS`,
    l.iopsPerGib && msg`${count(l.iopsPerGib)} IOPS per GiB`,
    l.bytesPerSecond && rate(l.bytesPerSecond),
    l.bytesPerSecondPerGib && msg`${rate(l.bytesPerSecondPerGib)} per GiB`,
    l.burstMs && msg`burst ${l.burstMs / 1000} s`,
  ].filter(Boolean);
  return all.join(", ") || msg`none`;
}

/** The volume types that are declared, which Apply types makes. */
function TypesTab({ cloud }: { cloud: Cloud }) {
  const [add, setAdd] = useState(false);
  const button = (
    <Button small needs="manage" onClick={() => setAdd(true)}>
      {msg`Declare volume type`}
    </Button>
  );
  return (
    <>
      {cloud.types.length === 0 ? (
        <Empty title={msg`None declared`} text={msg`Then Apply types gives the cloud one per pool, ovgate-VPOOL. Declare types to have other names, and limits.`} command="ovgate openstack type set CLOUD TYPE --vpool VPOOL --iops 20000">
          {button}
        </Empty>
      ) : (
        <>
          <div class="row">
            {button}
            <span class="muted">{rich`Nothing changes at the cloud before Apply types${cloud.appliedAt ? msg`, the last time ` : "."}`}</span>
            {cloud.appliedAt && <Age at={cloud.appliedAt} />}
          </div>
          <DataTable label={msg`Volume types`} columns={typeColumns(cloud)} rows={cloud.types} rowKey={(t) => t.name} />
        </>
      )}
      {add && <TypeDialog cloud={cloud} onClose={() => setAdd(false)} />}
    </>
  );
}

const typeColumns = (cloud: Cloud): Column<VolumeType>[] => [
  { key: "name", title: msg`Type`, wrap: true, cell: (t) => t.name },
  { key: "vpool", title: msg`vPool`, cell: (t) => <Link to={`/vpools/${encodeURIComponent(t.vpool)}`}>{t.vpool}</Link> },
  { key: "backend", title: msg`Backend`, wrap: true, cell: (t) => t.backend || <span class="muted">{msg`the only one`}</span> },
  { key: "limits", title: msg`Limits`, wrap: true, cell: (t) => limitsText(t.limits) },
  { key: "multiattach", title: msg`Several hosts`, cell: (t) => (t.multiattach ? "yes" : "no") },
  { key: "actions", title: msg`Actions`, right: true, cell: (t) => <TypeActions cloud={cloud} type={t} /> },
];

function TypeActions({ cloud, type: t }: { cloud: Cloud; type: VolumeType }) {
  const [open, setOpen] = useState<"change" | "take" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="manage" label={msg`Change type ${t.name}`} onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>{" "}
      <Button small kind="danger" needs="manage" label={msg`Take back type ${t.name}`} onClick={() => setOpen("take")}>
        {msg`Take back`}
      </Button>
      {open === "change" && <TypeDialog cloud={cloud} type={t} onClose={close} />}
      {open === "take" && (
        <Confirm
          title={msg`Take volume type ${t.name} back`}
          verb={msg`Take it back`}
          danger
          consequences={[msg`It is not declared any more.`, msg`At the cloud it stays until types are applied with the deletion of those that are not declared. Volumes keep it.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /openstack/clouds/{cloud}/types/{volumeType}", { path: { cloud: cloud.id, volumeType: t.name } });
            toast("ok", msg`${t.name} is not declared any more`);
            reload("clouds?", "cloud:");
          }}
        />
      )}
    </>
  );
}

/** Fields of a request that the form shows the errors of. */
const typeErrors = ["name", "volumeType", "vpool", "backend", "iops", "bytesPerSecond", "burstMs", "iopsPerGib", "bytesPerSecondPerGib"];

/** Declares a volume type, or changes one: all of it is given anew. */
function TypeDialog({ cloud, type, onClose }: { cloud: Cloud; type?: VolumeType; onClose: () => void }) {
  const submit = useSubmit();
  const vpools = useVPoolChoices();
  const l = type?.limits;
  const [name, setName] = useState(type?.name ?? "");
  const [vpool, setVPool] = useState(type?.vpool ?? "");
  const [backend, setBackend] = useState(type?.backend ?? "");
  const [multiattach, setMultiattach] = useState(type?.multiattach ?? false);
  const [limits, setLimits] = useState(limitText(l ?? null));
  const [iopsPerGib, setIopsPerGib] = useState(l?.iopsPerGib ? String(l.iopsPerGib) : "");
  const [ratePerGib, setRatePerGib] = useState(l?.bytesPerSecondPerGib ? String(l.bytesPerSecondPerGib / MiB) : "");
  const [tried, setTried] = useState(false);
  const pools = vpools.data?.items.map((p) => p.name) ?? [];
  const problem = (text: string) => (Number.isNaN(amount(text)) ? msg`Enter a number, or leave it empty` : undefined);
  const save = async () => {
    setTried(true);
    const flat = limitsOf(limits);
    if (!flat || !name.trim() || !vpool || problem(iopsPerGib) || problem(ratePerGib)) {
      return;
    }
    await call("PUT /openstack/clouds/{cloud}/types/{volumeType}", {
      path: { cloud: cloud.id, volumeType: name.trim() },
      body: {
        vpool,
        multiattach,
        ...(backend.trim() ? { backend: backend.trim() } : {}),
        limits: { ...flat, iopsPerGib: Math.round(amount(iopsPerGib)), bytesPerSecondPerGib: Math.round(amount(ratePerGib) * MiB) },
      },
    });
    toast("ok", msg`${name.trim()} is declared: apply types to have it at the cloud`);
    reload("clouds?", "cloud:");
    onClose();
  };
  return (
    <FormDialog title={type ? msg`Change volume type ${type.name}` : msg`Declare volume type`} verb={type ? msg`Save` : msg`Declare`} needs="manage" submit={submit} fields={typeErrors} save={save} onClose={onClose}>
      {!type && (
        <TextField
          label={msg`Name`}
          name="name"
          value={name}
          onValue={setName}
          hint={msg`As users of the cloud choose it.`}
          error={(tried && !name.trim() ? msg`Enter a name` : undefined) ?? submit.at("name") ?? submit.at("volumeType")}
          input={{ autofocus: true }}
        />
      )}
      <Load query={vpools} lines={1}>
        {() => (
          <SelectField
            label={msg`vPool`}
            name="vpool"
            value={vpool}
            onValue={setVPool}
            options={[{ value: "", text: msg`Choose a vPool` }, ...pools.map((p) => ({ value: p, text: p })), ...(vpool && !pools.includes(vpool) ? [{ value: vpool, text: vpool }] : [])]}
            error={(tried && !vpool ? msg`Choose a vPool` : undefined) ?? submit.at("vpool")}
          />
        )}
      </Load>
      <TextField label={msg`Backend`} name="backend" value={backend} onValue={setBackend} hint={msg`volume_backend_name, where several backends have this vPool. Empty: the only one.`} error={submit.at("backend")} />
      <CheckField name="multiattach" checked={multiattach} onValue={setMultiattach}>
        {msg`Its volumes may be attached to several hosts at once`}
      </CheckField>
      <details class="more" open={Boolean(l && limitsText(l) !== "none")}>
        <summary>{msg`Limits of each volume`}</summary>
        <div class="stack-wide">
          <LimitFields value={limits} onValue={setLimits} at={submit.at} />
          <TextField
            label={msg`Commands per second for each GiB`}
            name="iopsPerGib"
            value={iopsPerGib}
            onValue={setIopsPerGib}
            hint={msg`Of a limit and one per GiB the lower counts.`}
            error={problem(iopsPerGib) ?? submit.at("iopsPerGib")}
            input={{ inputMode: "decimal" }}
          />
          <TextField
            label={msg`MiB per second for each GiB`}
            name="ratePerGib"
            value={ratePerGib}
            onValue={setRatePerGib}
            error={problem(ratePerGib) ?? submit.at("bytesPerSecondPerGib")}
            input={{ inputMode: "decimal" }}
          />
        </div>
      </details>
    </FormDialog>
  );
}

const backendTones: Record<string, Tone> = { up: "ok", down: "bad", disabled: "idle", gone: "bad" };

/** The backends of the cloud that are this node, as Cinder sees them. */
function BackendsTab({ cloud }: { cloud: Cloud }) {
  const backends = useCloudBackends(cloud.id);
  return (
    <Load query={backends}>
      {(list) =>
        list.items.length === 0 ? (
          <Empty title={msg`No backend is this node`} text={msg`Cinder of this cloud does not use it yet, or has not started with it.`} command="ovgate openstack driver config">
            <Button needs="write" onClick={() => navigate("/openstack/driver")}>
              {msg`Attach to Cinder`}
            </Button>
          </Empty>
        ) : (
          list.items.map((b) => <Backend key={b.host} backend={b} />)
        )
      }
    </Load>
  );
}

function Backend({ backend: b }: { backend: CloudBackend }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2 class="mono">{b.host}</h2>
        <span class="spacer" />
        <Tag tone={backendTones[b.state] ?? "idle"} word={b.state} title={b.reason} />
      </div>
      <div class="stack">
        {b.reason && <Notice tone="warn">{b.reason}</Notice>}
        <Facts
          rows={[
            [msg`Backend name`, b.name || <span class="muted">{msg`told while it is up`}</span>],
            [msg`Driver`, b.version || "–"],
            [msg`Cinder heard of it`, <Age key="seen" at={b.seenAt} />],
          ]}
        />
        {b.pools.length > 0 && <DataTable label={msg`Pools of ${b.host}`} columns={poolColumns} rows={b.pools} rowKey={(p) => p.vpool} />}
      </div>
    </section>
  );
}

const poolColumns: Column<CloudPool>[] = [
  { key: "vpool", title: msg`Pool`, cell: (p) => (p.known ? <Link to={`/vpools/${encodeURIComponent(p.vpool)}`}>{p.vpool}</Link> : <Tag tone="bad" word={p.vpool} title={msg`This node has no such vPool`} />) },
  { key: "volumes", title: msg`vDisks`, right: true, cell: (p) => count(p.volumes) },
  { key: "allocated", title: msg`Allocated`, right: true, cell: (p) => bytes(p.allocated) },
  { key: "free", title: msg`Free`, right: true, cell: (p) => bytes(p.free) },
  { key: "total", title: msg`Total`, right: true, cell: (p) => bytes(p.total) },
];

/** What each project of the cloud has on this node. */
function ProjectsTab({ cloud }: { cloud: Cloud }) {
  const usage = useCloudUsage(cloud.id);
  return (
    <Load query={usage}>
      {(list) =>
        list.items.length === 0 ? (
          <Empty title={msg`No project has volumes here`} text={msg`What each has on this node is summed up here.`} command="ovgate openstack volume usage CLOUD" />
        ) : (
          <DataTable label={msg`Projects`} columns={usageColumns} rows={list.items} rowKey={(u) => u.project} />
        )
      }
    </Load>
  );
}

const usageColumns: Column<CloudUsage>[] = [
  { key: "name", title: msg`Project`, wrap: true, cell: (u) => u.name || u.project },
  { key: "volumes", title: msg`Volumes`, right: true, cell: (u) => count(u.volumes) },
  { key: "size", title: msg`Size`, right: true, cell: (u) => bytes(u.size) },
  { key: "stored", title: msg`Stored`, right: true, cell: (u) => bytes(u.stored) },
];

/** How ovgate signs in to the cloud. */
function AccessTab({ cloud: c }: { cloud: Cloud }) {
  const o = c.options;
  return (
    <Facts
      rows={[
        [msg`Keystone`, <span key="url" class="mono">{o.url}</span>],
        [o.applicationCredential ? msg`Application credential` : msg`User`, o.user],
        [msg`Project`, o.project || "–"],
        [msg`Region`, o.region || msg`the first of the catalog`],
        [msg`Cinder's microversion`, c.version],
        [msg`Tested`, <Age key="tested" at={c.testedAt} />],
        [msg`Id`, <code key="id">{c.id}</code>],
      ]}
    />
  );
}

function TestDialog({ cloud, onClose }: { cloud: Cloud; onClose: () => void }) {
  const test = async () => {
    const { steps } = await call("POST /openstack/clouds/{cloud}/test", { path: { cloud: cloud.id } });
    reload("clouds?", "cloud:");
    return steps;
  };
  const facts: [string, string][] = [[msg`User`, cloud.options.user], [msg`Project`, cloud.options.project], [msg`Cinder's microversion`, cloud.version]];
  return <RemoteTest name={cloud.name} facts={facts} warnings={cloud.warnings} test={test} onClose={onClose} />;
}

/** What would change of types and QoS specs, then the change. */
function ApplyDialog({ cloud, onClose }: { cloud: Cloud; onClose: () => void }) {
  const submit = useSubmit();
  const [prune, setPrune] = useState(false);
  const [plan, setPlan] = useState<CloudAction[] | undefined>(undefined);
  const apply = async (dryRun: boolean) => {
    const done = await call("POST /openstack/clouds/{cloud}/apply", { path: { cloud: cloud.id }, body: { dryRun, prune } });
    if (dryRun) {
      setPlan(done.actions);
      return;
    }
    toast("ok", msg`${plural(done.changes, noun`change`)} made at ${cloud.name}`);
    reload("clouds?", "cloud:");
    onClose();
  };
  return (
    <Dialog title={msg`Apply types of ${cloud.name}`} onClose={onClose}>
      <div class="stack-wide">
        <p>{msg`Makes the volume types, with their QoS specs, what is declared here. What somebody else made is not changed.`}</p>
        <CheckField
          name="prune"
          checked={prune}
          onValue={(on) => {
            setPrune(on);
            setPlan(undefined); // it was of the other choice
          }}
        >
          {msg`Delete types that ovgate made and that are not declared any more`}
        </CheckField>
        {plan && (
          <div role="status">
            {plan.length === 0 ? (
              <p>{msg`Nothing is to be done: the cloud has no pool of this node.`}</p>
            ) : (
              <ul class="stack">
                {plan.map((a) => (
                  <li key={`${a.kind} ${a.name}`}>
                    <b>{a.action}</b> {a.kind} {a.name}
                    {a.detail && `: ${a.detail}`}
                  </li>
                ))}
              </ul>
            )}
          </div>
        )}
        {submit.error && <ErrorPanel error={submit.error} />}
      </div>
      <div class="dialog-foot">
        <Button onClick={onClose}>{msg`Cancel`}</Button>
        <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(() => apply(plan === undefined))}>
          {plan ? msg`Apply this` : msg`Show what would change`}
        </Button>
      </div>
    </Dialog>
  );
}

/** Changes the name of a cloud, or how to sign in to it. */
function ChangeCloud({ cloud, onClose }: { cloud: Cloud; onClose: () => void }) {
  const submit = useSubmit();
  const o = cloud.options;
  const [name, setName] = useState(cloud.name);
  const [url, setUrl] = useState(o.url);
  const [user, setUser] = useState(o.user);
  const [project, setProject] = useState(o.project);
  const [region, setRegion] = useState(o.region);
  const [secret, setSecret] = useState("");
  const save = async () => {
    const options = { url: url.trim(), user: user.trim(), project: project.trim(), region: region.trim() };
    const changed = await call("PATCH /openstack/clouds/{cloud}", { path: { cloud: cloud.id }, body: { name: name.trim(), options, ...(secret ? { secret } : {}) } });
    toast("ok", msg`${changed.cloud.name} is changed, and works`);
    reload("clouds?", "cloud:", "orphans?");
    onClose();
    navigate(`/openstack/${encodeURIComponent(changed.cloud.name)}`, { replace: true });
  };
  return (
    <FormDialog
      title={msg`Change ${cloud.name}`}
      verb={msg`Test and save`}
      needs="manage"
      submit={submit}
      fields={["name", "url", "user", "project", "region", "secret"]}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} />
      <TextField label={msg`Keystone`} name="url" value={url} onValue={setUrl} error={submit.at("url")} />
      <TextField label={msg`User`} name="user" value={user} onValue={setUser} error={submit.at("user")} />
      <TextField label={msg`Project`} name="project" value={project} onValue={setProject} error={submit.at("project")} />
      <TextField label={msg`Region`} name="region" value={region} onValue={setRegion} hint={msg`Of the catalog. Empty: its first.`} error={submit.at("region")} />
      <TextField label={msg`Password`} name="secret" value={secret} onValue={setSecret} hint={msg`Empty: the one that is kept.`} error={submit.at("secret")} input={{ type: "password" }} />
    </FormDialog>
  );
}
