import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Disk, OSD } from "../api/gen";
import { navigate } from "../router";
import { asApiError, reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DeviceField, deviceErrors, deviceOf, emptyDevice } from "../parts/DeviceField";
import { label, place } from "../parts/DeviceParts";
import { Confirm, Dialog } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { msg, rich } from "../text";

/** What a change of a device may have changed on the pages. */
export function devicesChanged(): void {
  reload("osds?", "osd:", "disks?", "alba", "jobs?", "job:");
}

/** Makes a directory or an ASD part of the object store. */
export function ClaimDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [form, setForm] = useState(emptyDevice);
  const save = async (key: string) => {
    const osd = await call("POST /osds", { key, body: deviceOf(form) });
    toast("ok", msg`Device ${osd.number} is part of the object store`);
    devicesChanged();
    navigate(`/disks/${osd.number}`);
  };
  return (
    <FormDialog
      title={msg`Claim device`}
      verb={msg`Claim`}
      needs="manage"
      submit={submit}
      fields={deviceErrors}
      save={save}
      onClose={onClose}
    >
      <DeviceField form={form} onForm={setForm} submit={submit} />
    </FormDialog>
  );
}

/** Says how a blank disk becomes a device: that takes root on its machine. */
export function PrepareDialog({ disk: d, onClose }: { disk: Disk; onClose: () => void }) {
  return (
    <Dialog title={msg`Use disk ${d.name}`} onClose={onClose}>
      <div class="stack-wide">
        <p>
          {rich`Run this as root on the disk's machine. It puts a file system on ${label(d) || d.path} and serves it; then claim it by the address, fingerprint and key that it prints.`}
        </p>
        <CopyBlock
          label={msg`Serve the disk`}
          name="asd"
          text={`ovgate asd --disk ${d.link ?? d.path} --listen ${location.hostname}:8500`}
        />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Close`}</Button>
          <Button kind="primary" needs="manage" onClick={() => navigate("/disks/claim")}>
            {msg`Claim it`}
          </Button>
        </div>
      </div>
    </Dialog>
  );
}

type Props = { osd: OSD; onClose: () => void };

/** Says where a device is reached now, after its disk was mounted elsewhere or its ASD got another address. */
export function MoveDialog({ osd: o, onClose }: Props) {
  const submit = useSubmit();
  const [where, setWhere] = useState(place(o));
  const local = o.kind === "local";
  const save = async () => {
    const body = local ? { directory: where.trim() } : { address: where.trim() };
    await call("PATCH /osds/{osd}", { path: { osd: o.number }, body });
    toast("ok", msg`Device ${o.number} is reached at ${where.trim()}`);
    devicesChanged();
    onClose();
  };
  return (
    <FormDialog
      title={msg`Move device ${o.number}`}
      verb={msg`Save`}
      needs="manage"
      submit={submit}
      fields={["directory", "address"]}
      save={save}
      onClose={onClose}
    >
      <p>{msg`Nothing is copied: this says where the same device is found now. Another one that is there is not taken for it.`}</p>
      <TextField
        label={local ? msg`Directory on the node` : msg`Address`}
        name="place"
        value={where}
        onValue={setWhere}
        error={submit.at("directory") ?? submit.at("address")}
        input={{ autofocus: true }}
      />
    </FormDialog>
  );
}

/** Empties a device that works. */
export function RetireDialog({ osd: o, onClose }: Props) {
  return (
    <Confirm
      title={msg`Retire device ${o.number}`}
      verb={msg`Retire`}
      consequences={[
        msg`What it holds is stored anew on the other devices; it leaves when nothing is on it any more.`,
        msg`Nothing becomes less safe meanwhile. This is not taken back: to use the disk again, claim it anew.`,
      ]}
      onClose={onClose}
      act={async () => {
        await call("POST /osds/{osd}/decommission", { path: { osd: o.number } });
        toast("ok", msg`Device ${o.number} is being emptied`);
        devicesChanged();
      }}
    />
  );
}

/** Gives up a device that does not come back; asks for its number. */
export function PurgeDialog({ osd: o, onClose }: Props) {
  const [acceptLoss, setAcceptLoss] = useState(false);
  return (
    <Confirm
      title={msg`Give up device ${o.number}`}
      verb={msg`Give it up`}
      danger
      typeName={String(o.number)}
      consequences={[
        msg`For a disk that does not come back: what it held is made anew from the others.`,
        msg`It never comes back into the object store, even when it works again.`,
        <CheckField key="loss" name="acceptLoss" checked={acceptLoss} onValue={setAcceptLoss}>
          {msg`Also when objects cannot be read without it: they are lost for good`}
        </CheckField>,
      ]}
      onClose={onClose}
      act={async () => {
        await call("POST /osds/{osd}/purge", { path: { osd: o.number }, body: { acceptLoss } });
        toast("ok", msg`Device ${o.number} is given up`);
        devicesChanged();
      }}
    />
  );
}

/** Buttons that switch the light at the place of a device's disk. */
export function LocateButtons({ osd }: { osd: OSD }) {
  const { light, busy, reason } = useLight(osd);
  return (
    <>
      <Button needs="manage" reason={reason} busy={busy} onClick={() => light(true)}>
        {msg`Light on`}
      </Button>
      <Button needs="manage" reason={reason} busy={busy} onClick={() => light(false)}>
        {msg`Light off`}
      </Button>
    </>
  );
}

/** The light of a device, and why it cannot be switched. */
export function useLight(o: OSD): { light: (on: boolean) => void; busy: boolean; reason: string | undefined } {
  const submit = useSubmit();
  const light = (on: boolean) =>
    void submit.run(async () => {
      try {
        await call("POST /osds/{osd}/locate", { path: { osd: o.number }, body: { on } });
        toast("ok", msg`The light of device ${o.number} is ${on ? msg`on` : msg`off`}`);
      } catch (error) {
        const failure = asApiError(error);
        toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
      }
    });
  const reason = o.disk ? undefined : msg`It is on no disk of this node that is known: find it by ${o.directory ?? o.address}`;
  return { light, busy: submit.busy, reason };
}
