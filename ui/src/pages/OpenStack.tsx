import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Cloud, NewToken, Orphan } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useClouds, useOrphans, useVPoolChoices } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card, Empty, Page } from "../parts/Page";
import { TableTools } from "../parts/TableTools";
import { CloudTag } from "./Cloud";

/** OpenStack clouds, and what of theirs lost its other half. */
export function OpenStackPage({ dialog }: { dialog?: "cloud" | "driver" }) {
  const clouds = useClouds();
  const close = () => navigate("/openstack");
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
                <Orphans />
              </>
            )
          }
        </Load>
        <Card title="Driver of Cinder">
          <div class="stack">
            <p class="muted">Cinder uses the vPools of this node through its driver, which has a token of its own.</p>
            <div class="row">
              <Button small needs="write" onClick={() => navigate("/openstack/driver")}>
                Attach to Cinder
              </Button>
            </div>
          </div>
        </Card>
      </div>
      {dialog === "cloud" && <AddCloud onClose={close} />}
      {dialog === "driver" && <AttachDialog onClose={close} />}
    </Page>
  );
}

const cloudColumns: Column<Cloud>[] = [
  { key: "name", title: "Name", cell: (c) => <Link to={`/openstack/${encodeURIComponent(c.name)}`}>{c.name}</Link> },
  {
    key: "state",
    title: "State",
    cell: (c) => <CloudTag cloud={c} />,
  },
  { key: "url", title: "Keystone", wrap: true, cell: (c) => <span class="mono">{c.options.url}</span> },
  { key: "backends", title: "Backends here", wrap: true, cell: (c) => c.backends.join(", ") || "none" },
  { key: "types", title: "Volume types", wrap: true, cell: (c) => c.types.map((t) => `${t.name} (${t.vpool})`).join(", ") || "one per vPool" },
  { key: "tested", title: "Tested", right: true, cell: (c) => <Age at={c.testedAt} /> },
  { key: "applied", title: "Types applied", right: true, cell: (c) => <Age at={c.appliedAt} /> },
];

function Orphans() {
  const cursor = query.value.get("orphans") ?? undefined;
  const orphans = useOrphans(cursor);
  return (
    <Card title="Orphans" aside={<TableTools table="openstack.orphans" noun="orphan" columns={orphanColumns} read={(cursor, limit) => call("GET /openstack/orphans", { query: { cursor, limit } })} />}>
      <Load query={orphans}>
        {(list) =>
          list.items.length === 0 && !cursor ? (
            <p class="muted">None: every volume has its vDisk, and every vDisk of Cinder its volume.</p>
          ) : (
            <DataTable label="Orphans" table="openstack.orphans" columns={orphanColumns} rows={list.items} rowKey={(o) => `${o.kind} ${o.id}`} next={list.next} cursor="orphans" />
          )
        }
      </Load>
    </Card>
  );
}

const orphanColumns: Column<Orphan>[] = [
  { key: "kind", csv: (o) => o.kind, title: "Kind", cell: (o) => o.kind },
  { key: "name", csv: (o) => o.name, title: "Name", wrap: true, cell: (o) => o.name },
  { key: "cloud", csv: (o) => o.cloud, title: "Cloud", cell: (o) => o.cloud || "–" },
  { key: "reason", csv: (o) => o.reason, title: "Why", wrap: true, cell: (o) => o.reason },
  { key: "size", csv: { title: "Size (bytes)", value: (o) => o.size }, title: "Size", right: true, cell: (o) => bytes(o.size) },
  { key: "stored", csv: { title: "Stored (bytes)", value: (o) => o.stored }, title: "Stored", right: true, cell: (o) => bytes(o.stored) },
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
    navigate(`/openstack/${encodeURIComponent(made.cloud.name)}`);
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


/** Gives Cinder's driver a token, and tells what is done on the controller of the cloud. */
function AttachDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const vpools = useVPoolChoices();
  const [name, setName] = useState("cinder");
  const [vpool, setVPool] = useState("");
  const [made, setMade] = useState<NewToken | undefined>(undefined);
  const save = async (key: string) => {
    setMade(await call("POST /tokens", { key, body: { name: name.trim(), role: "write" } }));
    reload("tokens");
  };
  if (made) {
    const only = vpool ? ` --vpool ${vpool}` : "";
    return (
      <Dialog title="Attach to Cinder" onClose={onClose}>
        <div class="stack-wide">
          <p>On the controller of the cloud, where cinder-volume runs.</p>
          <Notice tone="warn">Copy the token now: it is not shown again. It goes into /etc/cinder/ovgate.token, which Cinder alone may read.</Notice>
          <CopyBlock label="Token" name="token" text={made.secret} />
          <CopyBlock
            label="Commands"
            name="driver"
            text={`ovgate openstack driver install\novgate openstack driver config --endpoint ${location.origin}${only} >> /etc/cinder/cinder.conf\nsystemctl restart cinder-volume`}
          />
          <p class="muted">Name the section in enabled_backends of [DEFAULT]. Then add the cloud: its page shows the backend as Cinder sees it, and makes the volume types.</p>
          <DoneFoot onClose={onClose} />
        </div>
      </Dialog>
    );
  }
  return (
    <FormDialog title="Attach to Cinder" verb="Make a token" submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <Load query={vpools} lines={1}>
        {(list) => (
          <SelectField
            label="vPool"
            name="vpool"
            value={vpool}
            onValue={setVPool}
            options={[{ value: "", text: "All, those to come too" }, ...list.items.map((p) => ({ value: p.name, text: p.name }))]}
            hint="Each is a pool of the one backend."
          />
        )}
      </Load>
      <TextField label="Name of the token" name="name" value={name} onValue={setName} hint="It has role write, is yours, and does not expire." error={submit.at("name")} input={{ autofocus: true }} />
    </FormDialog>
  );
}
