import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk } from "../api/gen";
import { plural } from "../format";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { FormDialog } from "../parts/FormDialog";
import { SnapshotFields } from "./Snapshots";
import { msg, noun, rich } from "../text";

/** A snapshot of several vDisks at one moment. */
export function GroupSnapshot({ vdisks, done }: { vdisks: VDisk[]; done: () => void }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button small needs="write" onClick={() => setOpen(true)}>
        {rich`Snapshot ${plural(vdisks.length, noun`vDisk`)}`}
      </Button>
      {open && <GroupDialog vdisks={vdisks} done={done} onClose={() => setOpen(false)} />}
    </>
  );
}

function GroupDialog({ vdisks, done, onClose }: { vdisks: VDisk[]; done: () => void; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [sticky, setSticky] = useState(false);
  const [consistent, setConsistent] = useState(false);
  const save = async (key: string) => {
    const body = { name: name.trim(), sticky, consistent, vdisks: vdisks.map((v) => v.id) };
    const made = await call("POST /snapshotGroups", { key, body });
    toast("ok", msg`Snapshot ${made.name} of ${plural(made.members.length, noun`vDisk`)} is made`);
    reload("snapshots:", "history:");
    onClose();
    done();
  };
  return (
    <FormDialog title={msg`Snapshot of ${plural(vdisks.length, noun`vDisk`)}`} verb={msg`Create`} submit={submit} fields={["name"]} save={save} onClose={onClose}>
      <p>
        {msg`At one moment, of all of them or of none:`}{" "}{vdisks.slice(0, 10).map((v) => v.name).join(", ")}
        {vdisks.length > 10 && msg` and ${vdisks.length - 10} more`}.
      </p>
      <SnapshotFields
        name={name}
        setName={setName}
        sticky={sticky}
        setSticky={setSticky}
        consistent={consistent}
        setConsistent={setConsistent}
        error={submit.at("name")}
      />
    </FormDialog>
  );
}
