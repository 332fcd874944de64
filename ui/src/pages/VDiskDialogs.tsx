import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Connection, VDisk } from "../api/gen";
import { bytes } from "../format";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSubmit, type Submit } from "../store/submit";
import { toast } from "../store/toasts";
import { AccessField, initiatorNames, type Access } from "../parts/AccessField";
import { Button } from "../parts/Button";
import { ConnectPanel } from "../parts/ConnectPanel";
import { Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { LabelsField, labelLines, parseLabels } from "../parts/LabelsField";
import { FormError } from "../parts/Notice";
import { SizeField, sizeBytes, sizeInput } from "../parts/SizeField";

type Props = { vdisk: VDisk; onClose: () => void };

type FrameProps = {
  title: string;
  verb: string;
  submit: Submit;
  fields: string[];
  save: () => Promise<void>;
  onClose: () => void;
  children: ComponentChildren;
};

/** A dialog with one form that changes a vDisk. */
function Frame({ title, verb, submit, fields, save, onClose, children }: FrameProps) {
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        class="stack-wide"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(save);
        }}
      >
        {children}
        <FormError submit={submit} fields={fields} />
        <div class="dialog-foot">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" busy={submit.busy}>
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** Makes a vDisk larger. */
export function GrowDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [size, setSize] = useState(sizeInput(vdisk.size));
  const wanted = sizeBytes(size);
  const problem = Number.isNaN(wanted) ? "Enter a size, such as 200" : undefined;
  const save = async () => {
    if (problem) {
      return;
    }
    await call("PATCH /vdisks/{vdisk}", { path: { vdisk: vdisk.name }, body: { size: wanted } });
    toast("ok", `${vdisk.name} has ${bytes(wanted)} now`);
    reload("vdisk:", "vdisks?", "status");
    onClose();
  };
  return (
    <Frame title={`Grow ${vdisk.name}`} verb="Grow" submit={submit} fields={["size"]} save={save} onClose={onClose}>
      <SizeField
        label="New size"
        name="size"
        value={size}
        onValue={setSize}
        hint={`Now ${bytes(vdisk.size)}. A host sees the new size after a rescan; a vDisk never shrinks.`}
        error={problem ?? submit.at("size")}
      />
    </Frame>
  );
}

/** Gives a vDisk another name. */
export function RenameVDiskDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [name, setName] = useState(vdisk.name);
  const save = async () => {
    const changed = await call("PATCH /vdisks/{vdisk}", { path: { vdisk: vdisk.name }, body: { name: name.trim() } });
    toast("ok", `${vdisk.name} is called ${changed.name} now`);
    reload("vdisks?", "targets?", "target:");
    onClose();
    navigate(`/vdisks/${encodeURIComponent(changed.name)}`, { replace: true });
  };
  return (
    <Frame title={`Rename ${vdisk.name}`} verb="Rename" submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <TextField
        label="Name"
        name="name"
        value={name}
        onValue={setName}
        hint="A published vDisk keeps its target name, so hosts notice nothing."
        error={submit.at("name")}
      />
    </Frame>
  );
}

/** Replaces the labels of a vDisk. */
export function LabelsDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [labels, setLabels] = useState(labelLines(vdisk.labels));
  const save = async () => {
    await call("PATCH /vdisks/{vdisk}", { path: { vdisk: vdisk.name }, body: { labels: parseLabels(labels) } });
    toast("ok", `Labels of ${vdisk.name} saved`);
    reload("vdisk:", "vdisks?");
    onClose();
  };
  return (
    <Frame
      title={`Labels of ${vdisk.name}`}
      verb="Save"
      submit={submit}
      fields={["labels"]}
      save={save}
      onClose={onClose}
    >
      <LabelsField value={labels} onValue={setLabels} error={submit.at("labels")} />
    </Frame>
  );
}

/** Publishes a vDisk and shows how to connect. */
export function PublishDialog({ vdisk, onClose }: Props) {
  const submit = useSubmit();
  const [access, setAccess] = useState<Access>({ open: true, names: "" });
  const [connection, setConnection] = useState<Connection | undefined>(undefined);
  const save = async () => {
    const body = access.open ? { open: true } : { open: false, initiators: initiatorNames(access.names) };
    setConnection(await call("POST /vdisks/{vdisk}/publish", { path: { vdisk: vdisk.name }, body }));
    reload("vdisk:", "vdisks?", "targets?", "target:", "status");
  };
  if (connection) {
    return (
      <Dialog title={`${vdisk.name} is published`} onClose={onClose}>
        <ConnectPanel connection={connection} />
        <div class="dialog-foot">
          <Button kind="primary" onClick={onClose}>
            Done
          </Button>
        </div>
      </Dialog>
    );
  }
  return (
    <Frame
      title={`Publish ${vdisk.name} over iSCSI`}
      verb="Publish"
      submit={submit}
      fields={["initiators"]}
      save={save}
      onClose={onClose}
    >
      <AccessField value={access} onValue={setAccess} error={submit.at("initiators")} />
    </Frame>
  );
}
