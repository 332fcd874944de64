import { useState } from "preact/hooks";
import { call } from "../api/client";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { alba, backendErrors, BackendField, backendOf, type BackendForm } from "../parts/BackendField";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { CheckField, NameField } from "../parts/Field";
import { FormError, Notice } from "../parts/Notice";
import {
  changedSettings,
  defaults,
  settingsFields,
  settingsForm,
  VPoolSettingsFields,
} from "../parts/VPoolSettingsFields";
import { msg } from "../text";

/** Creates a vPool on the node's object store, on a directory of the node, or on a registered store. */
export function CreateVPool({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [backend, setBackend] = useState<BackendForm>({ where: alba, path: "", preset: "" });
  const [encrypt, setEncrypt] = useState(false);
  const [settings, setSettings] = useState(settingsForm(defaults));
  const create = async (key: string) => {
    const vpool = await call("POST /vpools", {
      key,
      body: {
        name: name.trim(),
        backend: backendOf(backend),
        encrypt,
        settings: changedSettings(settings, defaults),
      },
    });
    toast("ok", msg`vPool ${vpool.name} is ready`);
    reload("vpools?", "status");
    navigate(`/vpools/${encodeURIComponent(vpool.name)}`);
  };
  return (
    <Dialog title={msg`Create vPool`} onClose={onClose}>
      <form
        class="stack-wide"
        aria-label={msg`Create vPool`}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(create);
        }}
      >
        <NameField value={name} onValue={setName} error={submit.at("name")} />
        <BackendField form={backend} onForm={setBackend} submit={submit} />
        <CheckField name="encrypt" checked={encrypt} onValue={setEncrypt}>
          {msg`Encrypt its objects with a key of its own`}
        </CheckField>
        {encrypt && (
          <Notice tone="info">
            <b>{msg`Keep the key apart from this node`}</b>
            <span>
              {msg`Without it the objects cannot be read again when the node's data directory is lost. Once the vPool is made, its page gives it to you.`}
            </span>
          </Notice>
        )}
        <details class="more">
          <summary>{msg`Settings`}</summary>
          <VPoolSettingsFields form={settings} onForm={setSettings} submit={submit} />
        </details>
        <FormError submit={submit} fields={["name", ...backendErrors, ...settingsFields]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
            {submit.busy ? msg`Creating…` : msg`Create`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
