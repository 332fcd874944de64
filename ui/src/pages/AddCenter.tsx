import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, CenterResult } from "../api/gen";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Facts } from "../parts/Page";
import { Steps } from "../parts/RemoteTest";
import { msg } from "../text";

/** Registers a vCenter: its certificate is compared, or trusted by a choice of its own. */
export function AddCenter({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [url, setUrl] = useState("https://");
  const [user, setUser] = useState("");
  const [secret, setSecret] = useState("");
  const [thumbprint, setThumbprint] = useState("");
  const [events, setEvents] = useState(true);
  const [mutualChap, setMutualChap] = useState(false);
  const [trust, setTrust] = useState(false);
  const [tried, setTried] = useState(false);
  const [made, setMade] = useState<CenterResult | undefined>(undefined);
  const missing = !trust && !thumbprint.trim();
  const save = async (key: string) => {
    setTried(true);
    if (missing) {
      return;
    }
    const options = { url: url.trim(), user: user.trim(), events, mutualChap, ...(trust ? {} : { thumbprint: thumbprint.trim() }) };
    setMade(await call("POST /vsphere/centers", { key, body: { name: name.trim(), options, secret } }));
    reload("centers?");
  };
  if (made) {
    return (
      <Dialog title={msg`${made.center.name} is added`} onClose={onClose}>
        <Facts rows={[[msg`Certificate trusted from now on, SHA-256`, <code key="thumbprint">{made.center.options.thumbprint}</code>]]} />
        <Steps steps={made.steps} />
        <DoneFoot onClose={onClose} />
      </Dialog>
    );
  }
  return (
    <FormDialog title={msg`Add vCenter`} verb={msg`Add`} submit={submit} fields={["name", "url", "user", "secret", "thumbprint"]} save={save} onClose={onClose}>
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} hint={msg`As ovgate is to call it.`} error={submit.at("name")} input={{ autofocus: true }} />
      <TextField label={msg`Address`} name="url" value={url} onValue={setUrl} hint={msg`Of a vCenter, or of an ESXi host alone, such as https://vcenter.example.org`} error={submit.at("url")} />
      <TextField label={msg`User`} name="user" value={user} onValue={setUser} hint={msg`Such as ovgate@vsphere.local`} error={submit.at("user")} />
      <TextField label={msg`Password`} name="secret" value={secret} onValue={setSecret} error={submit.at("secret")} input={{ type: "password" }} />
      <TextField
        label={msg`Thumbprint of its certificate (SHA-256)`}
        name="thumbprint"
        value={thumbprint}
        onValue={setThumbprint}
        hint={msg`The password is sent only to who has this certificate. The vCenter's administrator knows it.`}
        error={(tried && missing ? msg`Enter the thumbprint, or choose to trust the certificate that is there` : undefined) ?? submit.at("thumbprint")}
      />
      <CheckField name="trust" checked={trust} onValue={setTrust}>
        {msg`Trust the certificate that is there now, without comparing it`}
      </CheckField>
      <CheckField name="events" checked={events} onValue={setEvents}>
        {msg`Tell it, in its events, what happens to datastores of ovgate`}
      </CheckField>
      <CheckField name="mutualChap" checked={mutualChap} onValue={setMutualChap}>
        {msg`Have its hosts demand that the target proves itself (mutual CHAP)`}
      </CheckField>
    </FormDialog>
  );
}

/** Changes the name of a vCenter, or how to sign in to it. */
export function ChangeCenter({ center, onClose }: { center: Center; onClose: () => void }) {
  const submit = useSubmit();
  const o = center.options;
  const [name, setName] = useState(center.name);
  const [url, setUrl] = useState(o.url);
  const [user, setUser] = useState(o.user);
  const [secret, setSecret] = useState("");
  const [thumbprint, setThumbprint] = useState(o.thumbprint);
  const [events, setEvents] = useState(o.events);
  const save = async () => {
    const options = { url: url.trim(), user: user.trim(), thumbprint: thumbprint.trim(), events };
    const changed = await call("PATCH /vsphere/centers/{center}", { path: { center: center.id }, body: { name: name.trim(), options, ...(secret ? { secret } : {}) } });
    toast("ok", msg`${changed.center.name} is changed, and works`);
    reload("centers?", "datastores?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Change ${center.name}`}
      verb={msg`Test and save`}
      needs="manage"
      submit={submit}
      fields={["name", "url", "user", "secret", "thumbprint"]}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} />
      <TextField label={msg`Address`} name="url" value={url} onValue={setUrl} error={submit.at("url")} />
      <TextField label={msg`User`} name="user" value={user} onValue={setUser} error={submit.at("user")} />
      <TextField label={msg`Password`} name="secret" value={secret} onValue={setSecret} hint={msg`Empty: the one that is kept.`} error={submit.at("secret")} input={{ type: "password" }} />
      <TextField
        label={msg`Thumbprint of its certificate (SHA-256)`}
        name="thumbprint"
        value={thumbprint}
        onValue={setThumbprint}
        hint={msg`The password is sent only to who has this certificate.`}
        error={submit.at("thumbprint")}
      />
      <CheckField name="events" checked={events} onValue={setEvents}>
        {msg`Tell it, in its events, what happens to datastores of ovgate`}
      </CheckField>
    </FormDialog>
  );
}
