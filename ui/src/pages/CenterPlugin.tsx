import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, CenterPlugin } from "../api/gen";
import { reload, useQuery } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { Facts } from "../parts/Page";
import { msg } from "../text";

/** The plug-in of ovgate in a vCenter's vSphere Client: whether it is there, registering it, taking it away. */
export function PluginDialog({ center, onClose }: { center: Center; onClose: () => void }) {
  const plugin = useQuery<CenterPlugin>("plugin:" + center.id, () => call("GET /vsphere/centers/{center}/plugin", { path: { center: center.id } }));
  return (
    <Dialog title={msg`Plug-in at ${center.name}`} onClose={onClose}>
      <div class="stack-wide">
        <p>{msg`The vSphere Client of the vCenter shows ovgate in a view of its own and at each datastore, which lead to this console.`}</p>
        <Load query={plugin}>{(p) => <Registration center={center} plugin={p} onClose={onClose} />}</Load>
      </div>
    </Dialog>
  );
}

function Registration({ center, plugin: p, onClose }: { center: Center; plugin: CenterPlugin; onClose: () => void }) {
  const submit = useSubmit();
  const leave = useSubmit();
  const [url, setUrl] = useState<string>(location.origin);
  const path = { center: center.id };
  const register = async () => {
    await call("PUT /vsphere/centers/{center}/plugin", { path, body: { url: url.trim() } });
    toast("ok", msg`${center.name} has the plug-in: it is there once the vSphere Client is loaded anew`);
    reload("plugin:");
  };
  const unregister = async () => {
    await call("DELETE /vsphere/centers/{center}/plugin", { path });
    toast("ok", msg`${center.name} does not have the plug-in any more`);
    reload("plugin:");
  };
  return (
    <form
      class="stack-wide"
      aria-label={msg`Plug-in at ${center.name}`}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void submit.run(register);
      }}
    >
      {p.problem && (
        <Notice tone="bad">
          <b>{msg`The vSphere Client does not get it.`}</b>
          <span>{p.problem}</span>
        </Notice>
      )}
      <Facts
        rows={
          p.registered
            ? [
                [msg`Registered`, msg`Yes, version ${p.version}`],
                [msg`Manifest`, <code key="url">{p.url}</code>],
                [msg`Certificate that is taken there, SHA-256`, <code key="thumbprint">{p.thumbprint}</code>],
              ]
            : [[msg`Registered`, msg`No`]]
        }
      />
      <TextField
        label={msg`Address of a node`}
        name="url"
        value={url}
        onValue={setUrl}
        hint={msg`Of its API and console, as the vCenter reaches it. Its certificate of now is taken: after that changed, register it again.`}
        error={submit.at("url")}
      />
      <FormError submit={submit} fields={["url"]} />
      <FormError submit={leave} fields={[]} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{msg`Close`}</Button>
        {p.registered && (
          <Button kind="danger" needs="manage" busy={leave.busy} onClick={() => void leave.run(unregister)}>
            {msg`Unregister`}
          </Button>
        )}
        <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
          {p.registered ? msg`Register again` : msg`Register`}
        </Button>
      </div>
    </form>
  );
}
