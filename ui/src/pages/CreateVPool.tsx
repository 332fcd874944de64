import { useState } from "preact/hooks";
import { call } from "../api/client";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormError } from "../parts/Notice";
import {
  changedSettings,
  defaults,
  settingsFields,
  settingsForm,
  VPoolSettingsFields,
} from "../parts/VPoolSettingsFields";

/** Creates a vPool on a directory of the node. */
export function CreateVPool({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [path, setPath] = useState("");
  const [settings, setSettings] = useState(settingsForm(defaults));
  const create = async (key: string) => {
    const vpool = await call("POST /vpools", {
      key,
      body: {
        name: name.trim(),
        backend: { kind: "local", path: path.trim() },
        settings: changedSettings(settings, defaults),
      },
    });
    toast("ok", `vPool ${vpool.name} is ready`);
    reload("vpools?", "status");
    navigate(`/vpools/${encodeURIComponent(vpool.name)}`);
  };
  return (
    <Dialog title="Create vPool" onClose={onClose}>
      <form
        class="stack-wide"
        aria-label="Create vPool"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(create);
        }}
      >
        <TextField
          label="Name"
          name="name"
          value={name}
          onValue={setName}
          hint="Letters, digits, dot, dash and underscore."
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <TextField
          label="Directory on the node"
          name="path"
          value={path}
          onValue={setPath}
          hint="An absolute path, created when missing, best on a disk of its own. Empty: a place in the node's data directory."
          error={submit.at("path") ?? submit.at("backend")}
          input={{ placeholder: "/srv/ovgate/default" }}
        />
        <details class="more">
          <summary>Settings</summary>
          <VPoolSettingsFields form={settings} onForm={setSettings} submit={submit} />
        </details>
        <FormError submit={submit} fields={["name", "path", "backend", ...settingsFields]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
            {submit.busy ? "Creating…" : "Create"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
