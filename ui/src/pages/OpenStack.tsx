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
import { msg, noun } from "../text";

/** OpenStack clouds, and what of theirs lost its other half. */
export function OpenStackPage({ dialog }: { dialog?: "cloud" | "driver" }) {
  const clouds = useClouds();
  const close = () => navigate("/openstack");
  return (
    <Page
      title={msg`OpenStack`}
      actions={
        <Button kind="primary" needs="manage" onClick={() => navigate("/openstack/new")}>
          {msg`Add cloud`}
        </Button>
      }
    >
      <div class="stack-wide">
        <Load query={clouds}>
          {(list) =>
            list.items.length === 0 ? (
              <Empty
                title={msg`No clouds yet`}
                text={msg`Cinder uses vDisks through its driver. Tell ovgate of the cloud, and it keeps volume types and shows which volume is which vDisk.`}
                command="ovgate openstack cloud create NAME --auth-url URL --user USER --project PROJECT --secret-stdin"
              >
                <Button kind="primary" needs="manage" onClick={() => navigate("/openstack/new")}>
                  {msg`Add cloud`}
                </Button>
              </Empty>
            ) : (
              <>
                <Card title={msg`Clouds`}>
                  <DataTable label={msg`Clouds`} columns={cloudColumns} rows={list.items} rowKey={(c) => c.id} />
                </Card>
                <Orphans />
              </>
            )
          }
        </Load>
        <Card title={msg`Driver of Cinder`}>
          <div class="stack">
            <p class="muted">{msg`Cinder uses the vPools of this node through its driver, which has a token of its own.`}</p>
            <div class="row">
              <Button small needs="write" onClick={() => navigate("/openstack/driver")}>
                {msg`Attach to Cinder`}
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
  { key: "name", title: msg`Name`, cell: (c) => <Link to={`/openstack/${encodeURIComponent(c.name)}`}>{c.name}</Link> },
  {
    key: "state",
    title: msg`State`,
    cell: (c) => <CloudTag cloud={c} />,
  },
  { key: "url", title: msg`Keystone`, wrap: true, cell: (c) => <span class="mono">{c.options.url}</span> },
  { key: "backends", title: msg`Backends here`, wrap: true, cell: (c) => c.backends.join(", ") || msg`none` },
  { key: "types", title: msg`Volume types`, wrap: true, cell: (c) => c.types.map((t) => `${t.name} (${t.vpool})`).join(", ") || msg`one per vPool` },
  { key: "tested", title: msg`Tested`, right: true, cell: (c) => <Age at={c.testedAt} /> },
  { key: "applied", title: msg`Types applied`, right: true, cell: (c) => <Age at={c.appliedAt} /> },
];

function Orphans() {
  const cursor = query.value.get("orphans") ?? undefined;
  const orphans = useOrphans(cursor);
  return (
    <Card title={msg`Orphans`} aside={<TableTools table="openstack.orphans" noun={noun`orphan`} columns={orphanColumns} read={(cursor, limit) => call("GET /openstack/orphans", { query: { cursor, limit } })} />}>
      <Load query={orphans}>
        {(list) =>
          list.items.length === 0 && !cursor ? (
            <p class="muted">{msg`None: every volume has its vDisk, and every vDisk of Cinder its volume.`}</p>
          ) : (
            <DataTable label={msg`Orphans`} table="openstack.orphans" columns={orphanColumns} rows={list.items} rowKey={(o) => `${o.kind} ${o.id}`} next={list.next} cursor="orphans" />
          )
        }
      </Load>
    </Card>
  );
}

const orphanColumns: Column<Orphan>[] = [
  { key: "kind", csv: (o) => o.kind, title: msg`Kind`, cell: (o) => o.kind },
  { key: "name", csv: (o) => o.name, title: msg`Name`, wrap: true, cell: (o) => o.name },
  { key: "cloud", csv: (o) => o.cloud, title: msg`Cloud`, cell: (o) => o.cloud || "–" },
  { key: "reason", csv: (o) => o.reason, title: msg`Why`, wrap: true, cell: (o) => o.reason },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (o) => o.size }, title: msg`Size`, right: true, cell: (o) => bytes(o.size) },
  { key: "stored", csv: { title: msg`Stored (bytes)`, value: (o) => o.stored }, title: msg`Stored`, right: true, cell: (o) => bytes(o.stored) },
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
    toast("ok", msg`${made.cloud.name} is added`);
    reload("clouds?", "orphans?");
    navigate(`/openstack/${encodeURIComponent(made.cloud.name)}`);
  };
  return (
    <FormDialog title={msg`Add cloud`} verb={msg`Add`} submit={submit} fields={["name", "url", "user", "project", "secret"]} save={save} onClose={onClose}>
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} input={{ autofocus: true }} />
      <TextField label={msg`Keystone`} name="url" value={url} onValue={setUrl} hint={msg`Where users sign in, such as https://keystone.example.org:5000/v3`} error={submit.at("url")} />
      <TextField label={msg`User`} name="user" value={user} onValue={setUser} hint={msg`One that administers Cinder.`} error={submit.at("user")} />
      <TextField label={msg`Project`} name="project" value={project} onValue={setProject} hint={msg`That the user administers, admin for one.`} error={submit.at("project")} />
      <TextField label={msg`Password`} name="secret" value={secret} onValue={setSecret} error={submit.at("secret")} input={{ type: "password" }} />
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
      <Dialog title={msg`Attach to Cinder`} onClose={onClose}>
        <div class="stack-wide">
          <p>{msg`On the controller of the cloud, where cinder-volume runs.`}</p>
          <Notice tone="warn">{msg`Copy the token now: it is not shown again. It goes into /etc/cinder/ovgate.token, which Cinder alone may read.`}</Notice>
          <CopyBlock label={msg`Token`} name="token" text={made.secret} />
          <CopyBlock
            label={msg`Commands`}
            name="driver"
            text={`ovgate openstack driver install\novgate openstack driver config --endpoint ${location.origin}${only} >> /etc/cinder/cinder.conf\nsystemctl restart cinder-volume`}
          />
          <p class="muted">{msg`Name the section in enabled_backends of [DEFAULT]. Then add the cloud: its page shows the backend as Cinder sees it, and makes the volume types.`}</p>
          <DoneFoot onClose={onClose} />
        </div>
      </Dialog>
    );
  }
  return (
    <FormDialog title={msg`Attach to Cinder`} verb={msg`Make a token`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <Load query={vpools} lines={1}>
        {(list) => (
          <SelectField
            label={msg`vPool`}
            name="vpool"
            value={vpool}
            onValue={setVPool}
            options={[{ value: "", text: msg`All, those to come too` }, ...list.items.map((p) => ({ value: p.name, text: p.name }))]}
            hint={msg`Each is a pool of the one backend.`}
          />
        )}
      </Load>
      <TextField label={msg`Name of the token`} name="name" value={name} onValue={setName} hint={msg`It has role write, is yours, and does not expire.`} error={submit.at("name")} input={{ autofocus: true }} />
    </FormDialog>
  );
}
