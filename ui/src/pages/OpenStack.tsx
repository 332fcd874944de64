import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Cloud, CloudVolume, Orphan } from "../api/gen";
import { bytes, plural } from "../format";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useCloudVolumes, useClouds, useOrphans } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ErrorPanel } from "../parts/Notice";
import { Card, Empty, Page } from "../parts/Page";
import { Tag } from "../parts/StateTag";
import { RemoteTest } from "../parts/RemoteTest";

/** OpenStack clouds, their volumes with the vDisks, and what lost its other half. */
export function OpenStackPage({ create = false }: { create?: boolean }) {
  const clouds = useClouds();
  return (
    <Page
      title="OpenStack"
      actions={
        <Button kind="primary" needs="manage" onClick={() => navigate("/openstack/new")}>
          Add cloud
        </Button>
      }
    >
      <div class="stack-wide">
        <Load query={clouds}>
          {(list) =>
            list.items.length === 0 ? (
              <Empty
                title="No clouds yet"
                text="Cinder uses vDisks through its driver. Tell ovgate of the cloud, and it keeps volume types and shows which volume is which vDisk."
                command="ovgate openstack cloud create NAME --auth-url URL --user USER --project PROJECT --secret-stdin"
              >
                <Button kind="primary" needs="manage" onClick={() => navigate("/openstack/new")}>
                  Add cloud
                </Button>
              </Empty>
            ) : (
              <>
                <Card title="Clouds">
                  <DataTable label="Clouds" columns={cloudColumns} rows={list.items} rowKey={(c) => c.id} />
                </Card>
                {list.items.map((c) => (
                  <Volumes key={c.id} cloud={c} />
                ))}
                <Orphans />
              </>
            )
          }
        </Load>
        <Card title="Driver of Cinder">
          <div class="stack">
            <p class="muted">On the controller of the cloud: puts the driver where Cinder finds it, and writes the block for cinder.conf.</p>
            <CopyBlock
              label="Commands"
              name="driver"
              text={`ovgate openstack driver install\novgate openstack driver config --endpoint ${location.origin}`}
            />
          </div>
        </Card>
      </div>
      {create && <AddCloud onClose={() => navigate("/openstack")} />}
    </Page>
  );
}

const cloudColumns: Column<Cloud>[] = [
  { key: "name", title: "Name", cell: (c) => c.name },
  {
    key: "state",
    title: "State",
    cell: (c) =>
      c.warnings.length > 0 ? <Tag tone="warn" word={plural(c.warnings.length, "warning")} title={c.warnings.join(". ")} /> : <Tag tone="ok" word="Works" />,
  },
  { key: "url", title: "Keystone", wrap: true, cell: (c) => <span class="mono">{c.options.url}</span> },
  { key: "backends", title: "Backends here", wrap: true, cell: (c) => c.backends.join(", ") || "none" },
  { key: "types", title: "Volume types", wrap: true, cell: (c) => c.types.map((t) => `${t.name} (${t.vpool})`).join(", ") || "one per vPool" },
  { key: "tested", title: "Tested", right: true, cell: (c) => <Age at={c.testedAt} /> },
  { key: "applied", title: "Types applied", right: true, cell: (c) => <Age at={c.appliedAt} /> },
  { key: "actions", title: "Actions", right: true, cell: (c) => <CloudActions cloud={c} /> },
];

function CloudActions({ cloud: c }: { cloud: Cloud }) {
  const [open, setOpen] = useState<"test" | "change" | "apply" | "forget" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="manage" label={`Test ${c.name}`} onClick={() => setOpen("test")}>
        Test
      </Button>{" "}
      <Button small needs="manage" label={`Change ${c.name}`} onClick={() => setOpen("change")}>
        Change
      </Button>{" "}
      <Button small needs="manage" label={`Apply types of ${c.name}`} onClick={() => setOpen("apply")}>
        Apply types
      </Button>{" "}
      <Button small kind="danger" needs="manage" label={`Forget ${c.name}`} onClick={() => setOpen("forget")}>
        Forget
      </Button>
      {open === "change" && <ChangeCloud cloud={c} onClose={close} />}
      {open === "test" && <TestDialog cloud={c} onClose={close} />}
      {open === "apply" && <ApplyDialog cloud={c} onClose={close} />}
      {open === "forget" && (
        <Confirm
          title={`Forget ${c.name}`}
          verb="Forget"
          danger
          typeName={c.name}
          consequences={["Address, user and password are forgotten.", "Nothing at the cloud changes."]}
          onClose={close}
          act={async () => {
            await call("DELETE /openstack/clouds/{cloud}", { path: { cloud: c.id } });
            toast("ok", `${c.name} is forgotten`);
            reload("clouds?", "orphans?");
          }}
        />
      )}
    </>
  );
}

function TestDialog({ cloud, onClose }: { cloud: Cloud; onClose: () => void }) {
  const test = async () => {
    const { steps } = await call("POST /openstack/clouds/{cloud}/test", { path: { cloud: cloud.id } });
    reload("clouds?");
    return steps;
  };
  const facts: [string, string][] = [["User", cloud.options.user], ["Project", cloud.options.project], ["Cinder's microversion", cloud.version]];
  return <RemoteTest name={cloud.name} facts={facts} warnings={cloud.warnings} test={test} onClose={onClose} />;
}

/** What would change of types and QoS specs, then the change. */
function ApplyDialog({ cloud, onClose }: { cloud: Cloud; onClose: () => void }) {
  const submit = useSubmit();
  const [plan, setPlan] = useState<{ action: string; kind: string; name: string; detail: string }[] | undefined>(undefined);
  const apply = async (dryRun: boolean) => {
    const done = await call("POST /openstack/clouds/{cloud}/apply", { path: { cloud: cloud.id }, body: { dryRun } });
    if (dryRun) {
      setPlan(done.actions);
      return;
    }
    toast("ok", `${plural(done.changes, "change")} made at ${cloud.name}`);
    reload("clouds?");
    onClose();
  };
  return (
    <Dialog title={`Volume types of ${cloud.name}`} onClose={onClose}>
      {plan?.map((a) => (
        <p key={`${a.kind} ${a.name}`}>
          <b>{a.action}</b> {a.kind} {a.name}
          {a.detail && `: ${a.detail}`}
        </p>
      ))}
      {submit.error && <ErrorPanel error={submit.error} />}
      <div class="dialog-foot">
        <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(() => apply(plan === undefined))}>
          {plan ? "Apply this" : "Show what would change"}
        </Button>
      </div>
    </Dialog>
  );
}

function Volumes({ cloud }: { cloud: Cloud }) {
  const cursor = query.value.get(cloud.id) ?? undefined;
  const volumes = useCloudVolumes(cloud.id, cursor);
  return (
    <Card title={`Volumes of ${cloud.name}`}>
      <Load query={volumes}>
        {(list) =>
          list.items.length === 0 && !cursor ? (
            <p class="muted">It has no volume on this node.</p>
          ) : (
            <DataTable label={`Volumes of ${cloud.name}`} columns={volumeColumns} rows={list.items} rowKey={(v) => v.id} next={list.next} cursor={cloud.id} />
          )
        }
      </Load>
    </Card>
  );
}

const volumeColumns: Column<CloudVolume>[] = [
  { key: "name", title: "Volume", wrap: true, cell: (v) => v.name || v.id },
  { key: "status", title: "Status", cell: (v) => v.status },
  { key: "project", title: "Project", cell: (v) => v.projectName || v.project },
  { key: "type", title: "Type", cell: (v) => v.type },
  {
    key: "vdisk",
    title: "vDisk",
    cell: (v) => (v.vdisk ? <Link to={`/vdisks/${encodeURIComponent(v.vdiskName)}`}>{v.vdiskName}</Link> : <Tag tone="bad" word="None" title={`It should be ${v.vdiskName}`} />),
  },
  { key: "attached", title: "Attached to", wrap: true, cell: (v) => v.attached.join(", ") || "–" },
  { key: "size", title: "Size", right: true, cell: (v) => bytes(v.size) },
  { key: "stored", title: "Stored", right: true, cell: (v) => bytes(v.stored) },
];

function Orphans() {
  const cursor = query.value.get("orphans") ?? undefined;
  const orphans = useOrphans(cursor);
  return (
    <Card title="Orphans">
      <Load query={orphans}>
        {(list) =>
          list.items.length === 0 && !cursor ? (
            <p class="muted">None: every volume has its vDisk, and every vDisk of Cinder its volume.</p>
          ) : (
            <DataTable label="Orphans" columns={orphanColumns} rows={list.items} rowKey={(o) => `${o.kind} ${o.id}`} next={list.next} cursor="orphans" />
          )
        }
      </Load>
    </Card>
  );
}

const orphanColumns: Column<Orphan>[] = [
  { key: "kind", title: "Kind", cell: (o) => o.kind },
  { key: "name", title: "Name", wrap: true, cell: (o) => o.name },
  { key: "cloud", title: "Cloud", cell: (o) => o.cloud || "–" },
  { key: "reason", title: "Why", wrap: true, cell: (o) => o.reason },
  { key: "size", title: "Size", right: true, cell: (o) => bytes(o.size) },
  { key: "stored", title: "Stored", right: true, cell: (o) => bytes(o.stored) },
];

function AddCloud({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [url, setUrl] = useState("https://");
  const [user, setUser] = useState("");
  const [project, setProject] = useState("");
  const [secret, setSecret] = useState("");
  const save = async (key: string) => {
    const options = { url: url.trim(), user: user.trim(), project: project.trim() };
    const made = await call("POST /openstack/clouds", { key, body: { name: name.trim(), options, secret } });
    toast("ok", `${made.cloud.name} is added`);
    reload("clouds?", "orphans?");
    onClose();
  };
  return (
    <FormDialog title="Add cloud" verb="Add" submit={submit} fields={["name", "url", "user", "project", "secret"]} save={save} onClose={onClose}>
      <TextField label="Name" name="name" value={name} onValue={setName} error={submit.at("name")} input={{ autofocus: true }} />
      <TextField label="Keystone" name="url" value={url} onValue={setUrl} hint="Where users sign in, such as https://keystone.example.org:5000/v3" error={submit.at("url")} />
      <TextField label="User" name="user" value={user} onValue={setUser} hint="One that administers Cinder." error={submit.at("user")} />
      <TextField label="Project" name="project" value={project} onValue={setProject} hint="That the user administers, admin for one." error={submit.at("project")} />
      <TextField label="Password" name="secret" value={secret} onValue={setSecret} error={submit.at("secret")} input={{ type: "password" }} />
    </FormDialog>
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
    toast("ok", `${changed.cloud.name} is changed, and works`);
    reload("clouds?", "orphans?");
    onClose();
  };
  return (
    <FormDialog
      title={`Change ${cloud.name}`}
      verb="Test and save"
      needs="manage"
      submit={submit}
      fields={["name", "url", "user", "project", "region", "secret"]}
      save={save}
      onClose={onClose}
    >
      <TextField label="Name" name="name" value={name} onValue={setName} error={submit.at("name")} />
      <TextField label="Keystone" name="url" value={url} onValue={setUrl} error={submit.at("url")} />
      <TextField label="User" name="user" value={user} onValue={setUser} error={submit.at("user")} />
      <TextField label="Project" name="project" value={project} onValue={setProject} error={submit.at("project")} />
      <TextField label="Region" name="region" value={region} onValue={setRegion} hint="Of the catalog. Empty: its first." error={submit.at("region")} />
      <TextField label="Password" name="secret" value={secret} onValue={setSecret} hint="Empty: the one that is kept." error={submit.at("secret")} input={{ type: "password" }} />
    </FormDialog>
  );
}
