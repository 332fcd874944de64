import { useEffect, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, HostAction } from "../api/gen";
import { reload, unread } from "../store/query";
import { useCenterHosts, useVPoolChoices } from "../store/reads";
import { useSubmit, type Submit } from "../store/submit";
import { toast } from "../store/toasts";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { SizeField, sizeBytes, type SizeInput } from "../parts/SizeField";
import { msg } from "../text";

/** Makes a datastore: first the plan is shown, then the same is asked for in earnest. */
export function CreateDatastore({ centers, onClose }: { centers: Center[]; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [place, setPlace] = useState<Place>({ center: centers[0]?.id ?? "", cluster: "" });
  const [vpool, setVPool] = useState("");
  const [size, setSize] = useState<SizeInput>({ amount: "1", unit: "TiB" });
  const [plan, setPlan] = useState<HostAction[] | undefined>(undefined);
  const vpools = useVPoolChoices();
  const placing = usePlacing(place);
  const pools = vpools.data?.items.map((p) => p.name) ?? [];
  const problem = Number.isNaN(sizeBytes(size)) ? msg`Enter a size, such as 2` : undefined;
  // A plan is of the values that were asked about.
  const changed = <T,>(set: (value: T) => void) => (value: T) => {
    setPlan(undefined);
    set(value);
  };
  const save = async (key: string) => {
    if (problem) {
      return;
    }
    const body = {
      name: name.trim(),
      ...place,
      vpool: vpool || (pools[0] ?? ""),
      size: sizeBytes(size),
      dryRun: plan === undefined,
    };
    const made = await call("POST /vsphere/datastores", { key: plan ? key : undefined, body });
    if (plan === undefined) {
      setPlan(made.actions);
      return;
    }
    toast("ok", msg`${made.datastore.name} is being made`);
    reload("datastores?", "centers?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Create datastore`}
      verb={plan ? msg`Create it` : msg`Show the plan`}
      submit={submit}
      fields={["name", "center", "cluster", "vpool", "size"]}
      reason={placing ?? unread(vpools)}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={changed(setName)} error={submit.at("name")} input={{ autofocus: true }} />
      <PlaceFields centers={centers} place={place} onPlace={changed(setPlace)} submit={submit} />
      <SelectField label={msg`vPool`} name="vpool" value={vpool || (pools[0] ?? "")} onValue={changed(setVPool)} options={pools.map((p) => ({ value: p, text: p }))} error={submit.at("vpool")} />
      <SizeField label={msg`Size`} name="size" value={size} onValue={changed(setSize)} hint={msg`2 GiB to 64 TiB. It can grow later.`} error={problem ?? submit.at("size")} />
      {plan && <Plan actions={plan} />}
    </FormDialog>
  );
}

/** Makes the volume on a clone of a datastore's vDisk a datastore of its own. */
export function ImportDatastore({ centers, onClose }: { centers: Center[]; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [place, setPlace] = useState<Place>({ center: centers[0]?.id ?? "", cluster: "" });
  const [vdisk, setVDisk] = useState("");
  const placing = usePlacing(place);
  const save = async (key: string) => {
    const body = { name: name.trim(), cluster: place.cluster, vdisk: vdisk.trim() };
    const made = await call("POST /vsphere/centers/{center}/import", { path: { center: place.center }, key, body });
    toast("ok", msg`${made.name} is being imported`);
    reload("datastores?", "centers?");
    onClose();
  };
  return (
    <FormDialog title={msg`Import datastore`} verb={msg`Import`} needs="manage" submit={submit} fields={["name", "center", "cluster", "vdisk"]} reason={placing} save={save} onClose={onClose}>
      <p>
        {msg`To go back to a snapshot of a datastore: clone its vDisk from that snapshot, and import the clone. It becomes a datastore beside the original, which is not touched.`}
      </p>
      <TextField label={msg`vDisk`} name="vdisk" value={vdisk} onValue={setVDisk} hint={msg`The clone, which is not published.`} error={submit.at("vdisk")} input={{ autofocus: true }} />
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} hint={msg`Of the new datastore.`} error={submit.at("name")} />
      <PlaceFields centers={centers} place={place} onPlace={setPlace} submit={submit} />
    </FormDialog>
  );
}

/** Where a datastore is: ids of a vCenter and of a cluster there. */
type Place = { center: string; cluster: string };

/** Why a place is not chosen yet, by itself. */
function usePlacing(place: Place): string | undefined {
  const hosts = useCenterHosts(place.center);
  return unread(hosts) ?? (!place.cluster && hosts.data?.items.some((h) => h.clusterId) ? msg`Choose a cluster` : undefined);
}

type PlaceProps = { centers: Center[]; place: Place; onPlace: (place: Place) => void; submit: Submit };

/** Chooses a vCenter, and one of its clusters: the first, until another one is. */
function PlaceFields({ centers, place, onPlace, submit }: PlaceProps) {
  const hosts = useCenterHosts(place.center);
  const clusters = [...new Map((hosts.data?.items ?? []).map((h) => [h.clusterId, h.cluster]))];
  const first = clusters[0]?.[0];
  useEffect(() => {
    if (first && !clusters.some(([id]) => id === place.cluster)) {
      onPlace({ ...place, cluster: first });
    }
  }, [place.center, first]);
  return (
    <>
      <SelectField
        label={msg`vCenter`}
        name="center"
        value={place.center}
        onValue={(center) => onPlace({ center, cluster: "" })}
        options={centers.map((c) => ({ value: c.id, text: c.name }))}
        error={submit.at("center")}
      />
      <Load query={hosts} lines={1}>
        {() => (
          <SelectField
            label={msg`Cluster`}
            name="cluster"
            value={place.cluster}
            onValue={(cluster) => onPlace({ ...place, cluster })}
            options={clusters.map(([id, text]) => ({ value: id, text }))}
            hint={msg`Every host of it gets the datastore.`}
            error={submit.at("cluster")}
          />
        )}
      </Load>
    </>
  );
}

/** What is to be done where, in order. */
export function Plan({ actions }: { actions: HostAction[] }) {
  if (actions.length === 0) {
    return <p role="status">{msg`Nothing is to be done: everything is as it should be.`}</p>;
  }
  return (
    <div role="status" class="stack">
      <b>{msg`This is to be done`}</b>
      <ol class="stack">
        {actions.map((a, i) => (
          <li key={i}>
            <b>{a.host || msg`this node`}</b>: {a.action}
            {a.detail && `, ${a.detail}`}
          </li>
        ))}
      </ol>
    </div>
  );
}
