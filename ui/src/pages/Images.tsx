import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { badField } from "../api/client";
import type { VDisk } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { reload, unread } from "../store/query";
import { useAllSnapshots, useVPoolChoices } from "../store/reads";
import { useSubmit, type Submit } from "../store/submit";
import { toast } from "../store/toasts";
import { exportImage, exportMax, importImage, type Watch } from "../store/transfer";
import { Button } from "../parts/Button";
import { Field, NameField, SelectField } from "../parts/Field";
import { DialogForm } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Meter } from "../parts/Meter";
import { msg, rich } from "../text";

type Transfer = { share: number; watch: () => Watch; stop: () => void };

/** How far a transfer of this dialog is. It stops when the dialog goes, and leaving the console while it runs is asked about. */
function useTransfer(running: boolean): Transfer {
  const [share, setShare] = useState(0);
  const stopped = useRef(false);
  const stop = () => {
    stopped.current = true;
  };
  const watch = () => {
    stopped.current = false;
    setShare(0);
    return { progress: setShare, stopped: () => stopped.current };
  };
  useEffect(() => stop, []);
  useEffect(() => {
    if (!running) {
      return;
    }
    const ask = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [running]);
  return { share, watch, stop };
}

type DialogProps = {
  title: string;
  verb: string;
  going: string;
  submit: Submit;
  transfer: Transfer;
  fields: string[];
  reason?: string | undefined;
  save: () => Promise<void>;
  onClose: () => void;
  children: ComponentChildren;
};

/** A dialog with a form, then with how far the transfer is that it began. */
function TransferDialog({ title, verb, going, submit, transfer, fields, reason, save, onClose, children }: DialogProps) {
  const percent = Math.floor(100 * transfer.share);
  const close = () => (submit.busy ? toast("info", msg`It goes on. Stop it first`) : onClose());
  const foot = submit.busy ? (
    <Button onClick={transfer.stop}>{msg`Stop`}</Button>
  ) : (
    <>
      <Button onClick={onClose}>{msg`Cancel`}</Button>
      <Button type="submit" kind="primary" needs="write" reason={reason}>
        {verb}
      </Button>
    </>
  );
  return (
    <DialogForm title={title} submit={submit} fields={fields} save={save} onClose={close} foot={foot}>
      {submit.busy ? (
        <div class="stack">
          <div class="row">
            <b>{going}</b>
            <span class="spacer" />
            {percent} %
          </div>
          <Meter label={msg`${percent} % done`} parts={[{ share: transfer.share }]} />
          <span class="muted small">{msg`Leave this page open until it has ended.`}</span>
        </div>
      ) : (
        children
      )}
    </DialogForm>
  );
}

/** Makes a vDisk with the content of a raw image of this computer. */
export function ImportImage({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const transfer = useTransfer(submit.busy);
  const vpools = useVPoolChoices();
  const [file, setFile] = useState<File | undefined>(undefined);
  const [name, setName] = useState("");
  const [vpool, setVPool] = useState(query.value.get("vpool") ?? "");
  const pools = vpools.data?.items.map((p) => p.name) ?? [];
  const save = async () => {
    if (!file) {
      throw badField("file", msg`Choose a file`);
    }
    const made = await importImage(file, name.trim(), vpool || (pools[0] ?? ""), transfer.watch());
    toast("ok", msg`${made.name} has the content of ${file.name}`);
    reload("vdisks?", "vpools?", "status");
    navigate(`/vdisks/${encodeURIComponent(made.name)}`);
  };
  return (
    <TransferDialog
      title={msg`Import image`}
      verb={msg`Import`}
      going={msg`Sending ${file?.name ?? msg`the file`}`}
      submit={submit}
      transfer={transfer}
      fields={["file", "name", "vpool"]}
      reason={unread(vpools)}
      save={save}
      onClose={onClose}
    >
      <Field label={msg`Raw image`} hint={msg`What is zero in it is not sent, and takes no space. ovgate vdisk import reads qcow2, too.`} error={submit.at("file")}>
        {(control) => <input {...control} type="file" name="file" onChange={(event) => setFile(event.currentTarget.files?.[0])} />}
      </Field>
      <NameField value={name} onValue={setName} error={submit.at("name")} />
      <Load query={vpools} lines={1}>
        {() => (
          <SelectField label={msg`vPool`} name="vpool" value={vpool || (pools[0] ?? "")} onValue={setVPool} options={pools.map((p) => ({ value: p, text: p }))} error={submit.at("vpool")} />
        )}
      </Load>
      {file && <p class="muted">{rich`A vDisk of ${bytes(file.size)}, rounded up to whole clusters.`}</p>}
    </TransferDialog>
  );
}

/** Saves the content of a vDisk as a raw image on this computer. */
export function ExportDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const transfer = useTransfer(submit.busy);
  const snapshots = useAllSnapshots(vdisk.id);
  const [snapshot, setSnapshot] = useState("");
  const large = vdisk.size > exportMax ? msg`It has ${bytes(vdisk.size)}, and a browser saves up to ${bytes(exportMax)}: use ovgate vdisk export` : undefined;
  const save = async () => {
    await exportImage(vdisk, snapshot ? { snapshot } : {}, transfer.watch());
    toast("ok", msg`The image of ${vdisk.name} is there`);
    onClose();
  };
  return (
    <TransferDialog
      title={msg`Export ${vdisk.name}`}
      verb={msg`Export`}
      going={msg`Reading ${vdisk.name}`}
      submit={submit}
      transfer={transfer}
      fields={["snapshot"]}
      reason={large}
      save={save}
      onClose={onClose}
    >
      <Load query={snapshots} lines={1}>
        {(list) => (
          <SelectField
            label={msg`As of`}
            name="snapshot"
            value={snapshot}
            onValue={setSnapshot}
            options={[{ value: "", text: msg`Now` }, ...list.items.map((s) => ({ value: s.id, text: msg`Snapshot ${s.name}` }))]}
            hint={msg`Hosts go on; what they write meanwhile is not in the image.`}
            error={submit.at("snapshot")}
          />
        )}
      </Load>
      {large ? <p>{large}.</p> : <p class="muted">{rich`A raw image of ${bytes(vdisk.size)}, zeros and all.`}</p>}
      <code>ovgate vdisk export {vdisk.name} FILE --format qcow2</code>
    </TransferDialog>
  );
}
