import { useState } from "preact/hooks";
import { call } from "../api/client";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormError } from "../parts/Notice";
import {
  changedSettings,
  defaults,
  settingsFields,
  settingsForm,
  VPoolSettingsFields,
} from "../parts/VPoolSettingsFields";

/** Creates a vPool on the node's object store, or on a directory of the node. */
export function CreateVPool({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [kind, setKind] = useState<"alba" | "local">("alba");
  const [path, setPath] = useState("");
  const [preset, setPreset] = useState("");
  const [settings, setSettings] = useState(settingsForm(defaults));
  const create = async (key: string) => {
    const vpool = await call("POST /vpools", {
      key,
      body: {
        name: name.trim(),
        backend:
          kind === "local" ? { kind, path: path.trim(), preset: "" } : { kind, path: "", preset: preset.trim() },
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
        <SelectField
          label="Backend"
          name="kind"
          value={kind}
          onValue={(v) => setKind(v === "local" ? "local" : "alba")}
          hint={
            kind === "alba"
              ? "Erasure-coded over the node's devices: survives the loss of disks as its preset says."
              : "Objects are files; nothing is kept twice."
          }
          options={[
            { value: "alba", text: "Object store of the node" },
            { value: "local", text: "Directory of the node" },
          ]}
        />
        {kind === "local" ? (
          <TextField
            label="Directory on the node"
            name="path"
            value={path}
            onValue={setPath}
            hint="An absolute path, created when missing, best on a disk of its own. Empty: a place in the node's data directory."
            error={submit.at("path") ?? submit.at("backend")}
            input={{ placeholder: "/srv/ovgate/default" }}
          />
        ) : (
          <TextField
            label="Preset"
            name="preset"
            value={preset}
            onValue={setPreset}
            hint="How objects are stored. Empty: the default preset, which follows the devices that there are."
            error={submit.at("preset") ?? submit.at("path") ?? submit.at("backend")}
            input={{ placeholder: "default" }}
          />
        )}
        <details class="more">
          <summary>Settings</summary>
          <VPoolSettingsFields form={settings} onForm={setSettings} submit={submit} />
        </details>
        <FormError submit={submit} fields={["name", "path", "preset", "backend", ...settingsFields]} />
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
