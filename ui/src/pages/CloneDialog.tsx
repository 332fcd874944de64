import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Moment, VDisk } from "../api/gen";
import { bytes } from "../format";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSnapshots } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Field, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { LabelsField, parseLabels } from "../parts/LabelsField";
import { SizeField, sizeBytes, sizeInput } from "../parts/SizeField";
import { msg, rich } from "../text";

type From = "now" | "moment" | "snapshot";

type Props = { vdisk: VDisk; from?: Moment; onClose: () => void };

/** Makes a clone: from now, a snapshot, or a moment. */
export function CloneDialog({ vdisk, from, onClose }: Props) {
  const submit = useSubmit();
  const snapshots = useSnapshots(vdisk.id);
  const [name, setName] = useState("");
  const [kind, setKind] = useState<From>(!from ? "now" : from.snapshot ? "snapshot" : "moment");
  const [snapshot, setSnapshot] = useState(from?.snapshot ?? "");
  const [moment, setMoment] = useState(from && !from.snapshot ? from.pointAt : vdisk.observedAt);
  const [size, setSize] = useState(sizeInput(vdisk.size));
  const [grow, setGrow] = useState(false);
  const [labels, setLabels] = useState("");
  const names = [...new Set([...(from?.snapshot ? [from.snapshot] : []), ...(snapshots.data?.items.map((s) => s.name) ?? [])])];
  const chosen = snapshot || names[0] || "";
  const wanted = sizeBytes(size);
  const sizeError = grow && Number.isNaN(wanted) ? msg`Enter a size, such as 200` : undefined;
  const at = new Date(moment);
  const momentError = kind === "moment" && Number.isNaN(at.getTime()) ? msg`Enter a date and a time` : undefined;
  const save = async (key: string) => {
    if (sizeError || momentError) {
      return;
    }
    const point = kind === "now" ? {} : kind === "snapshot" ? { snapshot: chosen } : { pointAt: moment };
    const made = await call("POST /vdisks/{vdisk}/clone", {
      key,
      path: { vdisk: vdisk.id },
      body: {
        name: name.trim(),
        ...point,
        ...(grow ? { size: wanted } : {}),
        ...(labels.trim() ? { labels: parseLabels(labels) } : {}),
      },
    });
    toast("ok", msg`${made.name} is made`);
    reload("vdisks?", "vpools?", "status");
    onClose();
    navigate(`/vdisks/${encodeURIComponent(made.name)}`);
  };
  return (
    <FormDialog
      title={msg`Clone ${vdisk.name}`}
      verb={msg`Clone`}
      submit={submit}
      fields={["name", "size", "snapshot", "pointAt", "labels"]}
      save={save}
      onClose={onClose}
    >
      <TextField
        label={msg`Name`}
        name="name"
        value={name}
        onValue={setName}
        hint={msg`It is there at once, in vPool ${vdisk.vpool}: nothing is copied. To have it in another vPool, flatten and move it later.`}
        error={submit.at("name")}
        input={{ autofocus: true }}
      />
      <SelectField
        label={msg`From`}
        name="from"
        value={kind}
        onValue={(value) => setKind(value as From)}
        options={[
          { value: "now", text: msg`Now` },
          ...(names.length > 0 ? [{ value: "snapshot", text: msg`A snapshot` }] : []),
          { value: "moment", text: msg`A moment of its history` },
        ]}
      />
      {kind === "snapshot" && (
        <SelectField
          label={msg`Snapshot`}
          name="snapshot"
          value={chosen}
          onValue={setSnapshot}
          options={names.map((n) => ({ value: n, text: n }))}
          error={submit.at("snapshot")}
        />
      )}
      {kind === "moment" && (
        <Field
          label={msg`Moment`}
          hint={msg`The newest moment at or before it counts.`}
          error={momentError ?? submit.at("pointAt")}
        >
          {(control) => (
            <input
              {...control}
              type="datetime-local"
              step={1}
              name="moment"
              value={local(at)}
              onChange={(event) => {
                const value = new Date(event.currentTarget.value);
                setMoment(Number.isNaN(value.getTime()) ? "" : value.toISOString());
              }}
            />
          )}
        </Field>
      )}
      <details class="more" open={grow} onToggle={(event) => setGrow(event.currentTarget.open)}>
        <summary>{rich`Larger than its source (${bytes(vdisk.size)})`}</summary>
        <SizeField label={msg`Size`} name="size" value={size} onValue={setSize} error={sizeError ?? submit.at("size")} />
      </details>
      <LabelsField value={labels} onValue={setLabels} error={submit.at("labels")} />
    </FormDialog>
  );
}

/** A time as the field of a date and time wants it, in the reader's zone. */
function local(d: Date): string {
  return Number.isNaN(d.getTime()) ? "" : new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
