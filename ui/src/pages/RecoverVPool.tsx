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
    <Dialog title="Recover a vPool" onClose={onClose}>
      <form
        class="stack-wide"
        aria-label="Recover a vPool"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(recover);
        }}
      >
        <p class="muted">
          For a node that lost its data directory: reads what a backend holds and registers the vDisks again. vDisks
          that this node knows already stay as they are.
        </p>
        <TextField
          label="Name"
          name="name"
          value={name}
          onValue={setName}
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <BackendField form={backend} onForm={setBackend} submit={submit} recover />
        <TextField
          label="Key"
          name="key"
          value={key}
          onValue={setKey}
          hint="Only for one whose objects are encrypted: what ovgate vpool key printed."
          error={submit.at("key")}
          input={{ type: "password", autocomplete: "off" }}
        />
        <CheckField name="acceptLoss" checked={acceptLoss} onValue={setAcceptLoss}>
          Serve vDisks that may miss acknowledged writes
        </CheckField>
        <FormError submit={submit} fields={["name", "key", ...backendErrors]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
            {submit.busy ? "Reading the backend…" : "Recover"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

const columns: Column<Recovered>[] = [
  { key: "name", title: "vDisk", cell: (r) => r.name },
  { key: "size", title: "Size", right: true, cell: (r) => bytes(r.size) },
  { key: "state", title: "State", cell: (r) => (r.known ? <Tag tone="idle" word="Known" /> : <VDiskTag state={r.state} />) },
  {
    key: "clean",
    title: "Content",
    cell: (r) => (r.clean ? <Tag tone="ok" word="Complete" /> : <Tag tone="warn" word="May miss writes" />),
  },
  { key: "time", title: "As of", right: true, cell: (r) => <Age at={r.time} /> },
];

function Found({ found, onClose }: { found: VPoolRecovery; onClose: () => void }) {
  return (
    <Dialog title={`vPool ${found.vpool.name} is back`} onClose={onClose}>
      <p>{plural(found.vdisks.length, "vDisk")} found on its backend.</p>
      {found.vdisks.length > 0 && (
        <DataTable label="vDisks found" columns={columns} rows={found.vdisks} rowKey={(r) => r.id} />
      )}
      <div class="dialog-foot">
        <Button kind="primary" onClick={() => navigate(`/vpools/${encodeURIComponent(found.vpool.name)}`)}>
          Open {found.vpool.name}
        </Button>
      </div>
    </Dialog>
  );
}
