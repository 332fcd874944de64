import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { AlbaKey } from "../api/gen";
import { plural } from "../format";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Notice } from "../parts/Notice";
import { Facts } from "../parts/Page";
import { msg, noun } from "../text";

/** Rebuilds the records of namespaces from the devices. */
export function RecoverDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [namespace, setNamespace] = useState("");
  const [force, setForce] = useState(false);
  const save = async () => {
    await call("POST /alba/recover", { body: { namespace: namespace.trim() || undefined, force } });
    toast("ok", msg`Records are being recovered: see the jobs`);
    reload("alba", "jobs?", "namespaces?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Recover records`}
      verb={msg`Recover`}
      needs="manage"
      submit={submit}
      fields={["namespace"]}
      save={save}
      onClose={onClose}
    >
      <p>
        {msg`For a node that lost the records of what is where. They are rebuilt from the devices alone. Objects that were deleted lately may come back.`}
      </p>
      <TextField
        label={msg`Namespace`}
        name="namespace"
        value={namespace}
        onValue={setNamespace}
        hint={msg`Empty: all that lost their records.`}
        error={submit.at("namespace")}
        input={{ autofocus: true }}
      />
      <CheckField name="force" checked={force} onValue={setForce}>
        {msg`Also while devices are away: what only they have is lost`}
      </CheckField>
    </FormDialog>
  );
}

/** Draws a new wrapping key, and names it. */
export function RotateKeyDialog({ onClose }: { onClose: () => void }) {
  const [made, setMade] = useState<AlbaKey | undefined>(undefined);
  // The question closes itself when it was carried out; what was drawn comes in its place.
  const drawn = useRef(false);
  if (made) {
    return (
      <Dialog title={msg`A new wrapping key is drawn`} onClose={onClose}>
        <div class="stack-wide">
          <Notice tone="warn">{msg`Copy the new key file now: copies of the former one open nothing any more.`}</Notice>
          <Facts
            rows={[
              [msg`Id`, <code key="id">{made.id}</code>],
              [msg`Wraps`, plural(made.dataKeys, noun`data key`)],
            ]}
          />
          <DoneFoot onClose={onClose} />
        </div>
      </Dialog>
    );
  }
  return (
    <Confirm
      title={msg`New wrapping key`}
      verb={msg`Draw a new key`}
      consequences={[
        msg`It wraps the data keys of encrypted presets; what is stored stays as it is.`,
        msg`Copies of the former key are of no use any more: make a copy of the new one.`,
      ]}
      onClose={() => drawn.current || onClose()}
      act={async () => {
        setMade(await call("POST /alba/rotate-key"));
        drawn.current = true;
      }}
    />
  );
}
