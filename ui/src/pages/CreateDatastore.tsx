import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, HostAction } from "../api/gen";
import { reload } from "../store/query";
import { useCenterHosts, useVPoolChoices } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { SizeField, sizeBytes, type SizeInput } from "../parts/SizeField";

/** Makes a datastore: first the plan is shown, then the same is asked for in earnest. */
export function CreateDatastore({ centers, onClose }: { centers: Center[]; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [center, setCenter] = useState(centers[0]?.id ?? "");
  const [cluster, setCluster] = useState("");
  const [vpool, setVPool] = useState("");
  const [size, setSize] = useState<SizeInput>({ amount: "1", unit: "TiB" });
  const [plan, setPlan] = useState<HostAction[] | undefined>(undefined);
  const hosts = useCenterHosts(center);
  const vpools = useVPoolChoices();
  const clusters = [...new Map((hosts.data?.items ?? []).map((h) => [h.clusterId, h.cluster]))];
  const pools = vpools.data?.items.map((p) => p.name) ?? [];
  const problem = Number.isNaN(sizeBytes(size)) ? "Enter a size, such as 2" : undefined;
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
      center,
      cluster: cluster || clusters[0]?.[0],
      vpool: vpool || (pools[0] ?? ""),
      size: sizeBytes(size),
      dryRun: plan === undefined,
    };
    const made = await call("POST /vsphere/datastores", { key: plan ? key : undefined, body });
    if (plan === undefined) {
      setPlan(made.actions);
      return;
    }
    toast("ok", `${made.datastore.name} is being made`);
    reload("datastores?", "centers?");
    onClose();
  };
  return (
    <FormDialog
      title="Create datastore"
      verb={plan ? "Create it" : "Show the plan"}
      submit={submit}
      fields={["name", "center", "cluster", "vpool", "size"]}
      save={save}
      onClose={onClose}
    >
      <TextField label="Name" name="name" value={name} onValue={changed(setName)} error={submit.at("name")} input={{ autofocus: true }} />
      <SelectField label="vCenter" name="center" value={center} onValue={changed(setCenter)} options={centers.map((c) => ({ value: c.id, text: c.name }))} error={submit.at("center")} />
      <Load query={hosts} lines={1}>
        {() => (
          <SelectField
            label="Cluster"
            name="cluster"
            value={cluster || (clusters[0]?.[0] ?? "")}
            onValue={changed(setCluster)}
            options={clusters.map(([id, text]) => ({ value: id, text }))}
            hint="Every host of it gets the datastore."
            error={submit.at("cluster")}
          />
        )}
      </Load>
      <SelectField label="vPool" name="vpool" value={vpool || (pools[0] ?? "")} onValue={changed(setVPool)} options={pools.map((p) => ({ value: p, text: p }))} error={submit.at("vpool")} />
      <SizeField label="Size" name="size" value={size} onValue={changed(setSize)} hint="2 GiB to 64 TiB. It can grow later." error={problem ?? submit.at("size")} />
      {plan && <Plan actions={plan} />}
    </FormDialog>
  );
}

/** What is to be done where, in order. */
export function Plan({ actions }: { actions: HostAction[] }) {
  if (actions.length === 0) {
    return <p role="status">Nothing is to be done: everything is as it should be.</p>;
  }
  return (
    <div role="status" class="stack">
      <b>This is to be done</b>
      <ol class="stack">
        {actions.map((a, i) => (
          <li key={i}>
            <b>{a.host || "this node"}</b>: {a.action}
            {a.detail && `, ${a.detail}`}
          </li>
        ))}
      </ol>
    </div>
  );
}
