import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Connection, VDisk } from "../api/gen";
import { changeLabels, undoLabels } from "../store/labels";
import { bytes, MiB } from "../format";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useTargets } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { AccessField, initiatorNames, type Access } from "../parts/AccessField";
import { ConnectPanel } from "../parts/ConnectPanel";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { amount, limitErrors, LimitFields, limitsOf, limitText } from "../parts/LimitFields";
import { LabelsField, labelLines, parseLabels } from "../parts/LabelsField";
import { SizeField, sizeBytes, sizeInput } from "../parts/SizeField";
import { milliseconds } from "../parts/VPoolSettingsFields";
import { msg } from "../text";

type Props = { vdisk: VDisk; onClose: () => void };

/** Makes a vDisk larger. */
export function GrowDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [size, setSize] = useState(sizeInput(vdisk.size));
  const wanted = sizeBytes(size);
  const problem = Number.isNaN(wanted) ? msg`Enter a size, such as 200` : undefined;
  const save = async () => {
    if (problem) {
      return;
    }
    await call("PATCH /vdisks/{vdisk}", { path: { vdisk: vdisk.name }, body: { size: wanted } });
    toast("ok", msg`${vdisk.name} has ${bytes(wanted)} now`);
    reload("vdisk:", "vdisks?", "status");
    onClose();
  };
  return (
    <FormDialog title={msg`Grow ${vdisk.name}`} verb={msg`Grow`} submit={submit} fields={["size"]} save={save} onClose={onClose}>
      <SizeField
        label={msg`New size`}
        name="size"
        value={size}
        onValue={setSize}
        hint={msg`Now ${bytes(vdisk.size)}. A host sees the new size after a rescan; a vDisk never shrinks.`}
        error={problem ?? submit.at("size")}
      />
    </FormDialog>
  );
}

/** Gives a vDisk another name. */
export function RenameVDiskDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [name, setName] = useState(vdisk.name);
  const save = async () => {
    const changed = await call("PATCH /vdisks/{vdisk}", { path: { vdisk: vdisk.name }, body: { name: name.trim() } });
    toast("ok", msg`${vdisk.name} is called ${changed.name} now`);
    reload("vdisks?", "targets?", "target:");
    onClose();
    navigate(`/vdisks/${encodeURIComponent(changed.name)}`, { replace: true });
  };
  return (
    <FormDialog title={msg`Rename ${vdisk.name}`} verb={msg`Rename`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <TextField
        label={msg`Name`}
        name="name"
        value={name}
        onValue={setName}
        hint={msg`A published vDisk keeps its target name, so hosts notice nothing.`}
        error={submit.at("name")}
      />
    </FormDialog>
  );
}

/** Replaces the labels of a vDisk. */
export function LabelsDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [labels, setLabels] = useState(labelLines(vdisk.labels));
  const save = async () => {
    const next = parseLabels(labels);
    const before = await changeLabels(vdisk.id, () => next);
    const changed = [...Object.keys(before), ...Object.keys(next)].filter((name) => before[name] !== next[name]);
    undoLabels(msg`Labels of ${vdisk.name} saved`, new Map([[vdisk.id, before]]), new Set(changed));
    reload("vdisk:", "vdisks?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Labels of ${vdisk.name}`}
      verb={msg`Save`}
      submit={submit}
      fields={["labels"]}
      save={save}
      onClose={onClose}
    >
      <LabelsField value={labels} onValue={setLabels} error={submit.at("labels")} />
    </FormDialog>
  );
}

/** Limits what all hosts together do to a vDisk. */
export function LimitsDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [limits, setLimits] = useState(limitText(vdisk.qos));
  const save = async () => {
    const body = limitsOf(limits);
    if (!body) {
      return;
    }
    await call("PUT /vdisks/{vdisk}/qos", { path: { vdisk: vdisk.name }, body });
    toast("ok", msg`Limits of ${vdisk.name} saved`);
    reload("vdisk:", "vdisks?", "target:");
    onClose();
  };
  return (
    <FormDialog title={msg`Limits of ${vdisk.name}`} verb={msg`Save`} submit={submit} fields={limitErrors} save={save} onClose={onClose}>
      <LimitFields value={limits} onValue={setLimits} at={submit.at} />
    </FormDialog>
  );
}

/** Says how far back the moments of a vDisk are kept. */
export function HistoryDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [own, setOwn] = useState(vdisk.history.inherited ? "no" : "yes");
  const [hours, setHours] = useState(String(vdisk.history.keepMs / 3_600_000));
  const save = async () => {
    const body = own === "yes" ? { keepMs: milliseconds(hours, 3_600_000, -1) } : {};
    await call("PUT /vdisks/{vdisk}/history", { path: { vdisk: vdisk.id }, body });
    toast("ok", msg`History of ${vdisk.name} saved`);
    reload("vdisk:", "vdisks?", "history:" + vdisk.id);
    onClose();
  };
  return (
    <FormDialog title={msg`History of ${vdisk.name}`} verb={msg`Save`} submit={submit} fields={["keepMs"]} save={save} onClose={onClose}>
      <SelectField
        label={msg`Keep every moment`}
        name="own"
        value={own}
        onValue={setOwn}
        options={[
          { value: "no", text: msg`As its vPool says` },
          { value: "yes", text: msg`For a time of its own` },
        ]}
        hint={msg`Counts from the next scrub on. What a scrub took already does not come back.`}
      />
      {own === "yes" && (
        <TextField
          label={msg`For (h)`}
          name="keepMs"
          value={hours}
          onValue={setHours}
          hint={msg`1 minute to 366 days; 0: scrubs keep its snapshots alone.`}
          error={submit.at("keepMs")}
          input={{ inputMode: "decimal" }}
        />
      )}
    </FormDialog>
  );
}

/** Says what the read cache keeps of a vDisk. */
export function CacheDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [mode, setMode] = useState(vdisk.cache.mode);
  const [quota, setQuota] = useState(vdisk.cache.quota ? String(vdisk.cache.quota / MiB) : "");
  const most = amount(quota);
  const problem = Number.isNaN(most) ? msg`Enter a number, or leave it empty` : undefined;
  const save = async () => {
    if (problem) {
      return;
    }
    const body = { mode, quota: Math.round(most * MiB) };
    await call("PUT /vdisks/{vdisk}/cache", { path: { vdisk: vdisk.name }, body });
    toast("ok", msg`Read cache of ${vdisk.name} saved`);
    reload("vdisk:", "vdisks?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Read cache of ${vdisk.name}`}
      verb={msg`Save`}
      submit={submit}
      fields={["mode", "quota"]}
      save={save}
      onClose={onClose}
    >
      <SelectField
        label={msg`Keep`}
        name="mode"
        value={mode}
        onValue={(value) => setMode(value as VDisk["cache"]["mode"])}
        options={[
          { value: "on-read", text: msg`What is read` },
          { value: "on-write", text: msg`What is read and written` },
          { value: "none", text: msg`Nothing` },
        ]}
        hint={msg`What the cache holds stays until something takes its place.`}
        error={submit.at("mode")}
      />
      <TextField
        label={msg`At most (MiB)`}
        name="quota"
        value={quota}
        onValue={setQuota}
        hint={msg`In memory and on the READ disks together, 16 or more; empty for no bound of its own.`}
        error={problem ?? submit.at("quota")}
        input={{ inputMode: "decimal" }}
      />
    </FormDialog>
  );
}

/** Publishes a vDisk and shows how to connect. */
export function PublishDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [access, setAccess] = useState<Access>({ open: true, names: "" });
  const [connection, setConnection] = useState<Connection | undefined>(undefined);
  const [target, setTarget] = useState("");
  const shared = useTargets().data?.items.filter((t) => t.shared) ?? [];
  const save = async () => {
    const own = access.open ? { open: true } : { open: false, initiators: initiatorNames(access.names) };
    const body = target ? { target } : own;
    setConnection(await call("POST /vdisks/{vdisk}/publish", { path: { vdisk: vdisk.name }, body }));
    reload("vdisk:", "vdisks?", "targets?", "target:", "status");
  };
  if (connection) {
    return (
      <Dialog title={msg`${vdisk.name} is published`} onClose={onClose}>
        <ConnectPanel connection={connection} />
        <DoneFoot onClose={onClose} />
      </Dialog>
    );
  }
  return (
    <FormDialog
      title={msg`Publish ${vdisk.name} over iSCSI`}
      verb={msg`Publish`}
      submit={submit}
      fields={["initiators", "target"]}
      save={save}
      onClose={onClose}
    >
      {shared.length > 0 && (
        <SelectField
          label={msg`Target`}
          name="target"
          value={target}
          onValue={setTarget}
          options={[
            { value: "", text: msg`A target of its own` },
            ...shared.map((t) => ({ value: t.iqn, text: msg`Shared target ${t.name}` })),
          ]}
          error={submit.at("target")}
        />
      )}
      {target ? (
        <p class="muted">{msg`The groups of the shared target say who may connect.`}</p>
      ) : (
        <AccessField value={access} onValue={setAccess} error={submit.at("initiators")} />
      )}
    </FormDialog>
  );
}
