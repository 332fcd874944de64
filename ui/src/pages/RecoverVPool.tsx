import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Recovered, VPoolRecovery } from "../api/gen";
import { bytes, plural } from "../format";
import { navigate } from "../router";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { Age } from "../parts/Age";
import { backendErrors, BackendField, backendOf, type BackendForm } from "../parts/BackendField";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Dialog } from "../parts/Dialog";
import { CheckField, TextField } from "../parts/Field";
import { FormError } from "../parts/Notice";
import { Tag, VDiskTag } from "../parts/StateTag";
import { msg, noun, rich } from "../text";

/** Registers a vPool and its vDisks from what a backend holds. */
export function RecoverVPool({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [backend, setBackend] = useState<BackendForm>({ where: "local", path: "", preset: "" });
  const [key, setKey] = useState("");
  const [acceptLoss, setAcceptLoss] = useState(false);
  const [found, setFound] = useState<VPoolRecovery | undefined>(undefined);
  const recover = async (once: string) => {
    const body = { name: name.trim(), backend: backendOf(backend), key: key.trim() || undefined, acceptLoss };
    setFound(await call("POST /vpools/recover", { key: once, body }));
    reload("vpools?", "vdisks?", "status");
  };
  if (found) {
    return <Found found={found} onClose={onClose} />;
  }
  return (
    <Dialog title={msg`Recover a vPool`} onClose={onClose}>
      <form
        class="stack-wide"
        aria-label={msg`Recover a vPool`}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(recover);
        }}
      >
        <p class="muted">
          {msg`For a node that lost its data directory: reads what a backend holds and registers the vDisks again. vDisks that this node knows already stay as they are.`}
        </p>
        <TextField
          label={msg`Name`}
          name="name"
          value={name}
          onValue={setName}
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <BackendField form={backend} onForm={setBackend} submit={submit} recover />
        <TextField
          label={msg`Key`}
          name="key"
          value={key}
          onValue={setKey}
          hint={msg`Only for one whose objects are encrypted: what ovgate vpool key printed.`}
          error={submit.at("key")}
          input={{ type: "password", autocomplete: "off" }}
        />
        <CheckField name="acceptLoss" checked={acceptLoss} onValue={setAcceptLoss}>
          {msg`Serve vDisks that may miss acknowledged writes`}
        </CheckField>
        <FormError submit={submit} fields={["name", "key", ...backendErrors]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
            {submit.busy ? msg`Reading the backend…` : msg`Recover`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

const columns: Column<Recovered>[] = [
  { key: "name", title: msg`vDisk`, cell: (r) => r.name },
  { key: "size", title: msg`Size`, right: true, cell: (r) => bytes(r.size) },
  { key: "state", title: msg`State`, cell: (r) => (r.known ? <Tag tone="idle" word={msg`Known`} /> : <VDiskTag state={r.state} />) },
  {
    key: "clean",
    title: msg`Content`,
    cell: (r) => (r.clean ? <Tag tone="ok" word={msg`Complete`} /> : <Tag tone="warn" word={msg`May miss writes`} />),
  },
  { key: "time", title: msg`As of`, right: true, cell: (r) => <Age at={r.time} /> },
];

function Found({ found, onClose }: { found: VPoolRecovery; onClose: () => void }) {
  return (
    <Dialog title={msg`vPool ${found.vpool.name} is back`} onClose={onClose}>
      <p>{rich`${plural(found.vdisks.length, noun`vDisk`)} found on its backend.`}</p>
      {found.vdisks.length > 0 && (
        <DataTable label={msg`vDisks found`} columns={columns} rows={found.vdisks} rowKey={(r) => r.id} />
      )}
      <div class="dialog-foot">
        <Button kind="primary" onClick={() => navigate(`/vpools/${encodeURIComponent(found.vpool.name)}`)}>
          {rich`Open ${found.vpool.name}`}
        </Button>
      </div>
    </Dialog>
  );
}
