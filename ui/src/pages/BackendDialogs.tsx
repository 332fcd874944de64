import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { RemoteBackend, RemoteBackendResult, RemoteKind, RemoteStep } from "../api/gen";
import { navigate } from "../router";
import { backendKey } from "../store/objects";
import { ending, reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { NameField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { ErrorPanel, Notice } from "../parts/Notice";
import { changedOptions, emptyRemote, remoteErrors, RemoteFields, remoteForm } from "../parts/RemoteFields";
import { Tag } from "../parts/StateTag";
import { msg } from "../text";

function changed(): void {
  reload("backends?", "backend:");
}

const stepColumns: Column<RemoteStep>[] = [
  { key: "step", title: msg`Step`, cell: (s) => s.step },
  { key: "ok", title: msg`Result`, cell: (s) => (s.ok ? <Tag tone="ok" word={msg`Works`} /> : <Tag tone="bad" word={msg`Failed`} />) },
  { key: "detail", title: msg`Found`, wrap: true, cell: (s) => s.detail },
  { key: "time", title: msg`Time`, right: true, cell: (s) => msg`${s.millis.toFixed(s.millis < 10 ? 1 : 0)} ms` },
];

const silentColumns = stepColumns.filter((c) => c.key !== "detail");

/** What a test tried and found. */
function Report({ result: { backend: b, steps } }: { result: RemoteBackendResult }) {
  const failed = steps.filter((s) => !s.ok).length;
  const told = steps.some((s) => s.detail);
  return (
    <>
      {failed > 0 ? (
        <Notice tone="bad" alert>
          <b>{failed === 1 ? msg`A step does not work` : msg`${failed} steps do not work`}</b>
        </Notice>
      ) : (
        <Notice tone="ok">
          <b>{msg`Every operation works`}</b>
        </Notice>
      )}
      {b.warnings.map((w) => (
        <Notice key={w} tone="warn">
          {w}
        </Notice>
      ))}
      <DataTable label={msg`What was tried`} columns={told ? stepColumns : silentColumns} rows={steps} rowKey={(s) => s.step + s.detail} />
    </>
  );
}

function ReportDialog({ title, result, onClose }: { title: string; result: RemoteBackendResult; onClose: () => void }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <div class="stack-wide">
        <Report result={result} />
        <DoneFoot onClose={onClose} />
      </div>
    </Dialog>
  );
}

/** Registers a store after the node tried every operation on it. */
export function CreateBackendDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [form, setForm] = useState(emptyRemote("s3"));
  const [made, setMade] = useState<RemoteBackendResult | undefined>(undefined);
  const save = async (key: string) => {
    const body = {
      name: name.trim(),
      kind: form.kind,
      options: changedOptions(form, emptyRemote(form.kind)),
      secret: form.secret || undefined,
    };
    setMade(await call("POST /backends", { key, body }));
    changed();
  };
  if (made) {
    const done = () => navigate(`/backends/${encodeURIComponent(made.backend.name)}`);
    return <ReportDialog title={msg`Backend ${made.backend.name} is registered`} result={made} onClose={done} />;
  }
  return (
    <FormDialog
      title={msg`Register backend`}
      verb={submit.busy ? msg`Trying every operation…` : msg`Test and register`}
      needs="manage"
      submit={submit}
      fields={["name", ...remoteErrors]}
      save={save}
      onClose={onClose}
    >
      <NameField value={name} onValue={setName} error={submit.at("name")} />
      <SelectField
        label={msg`Store`}
        name="kind"
        value={form.kind}
        onValue={(kind) => {
          submit.clear();
          setForm(emptyRemote(kind as RemoteKind));
        }}
        options={[
          { value: "s3", text: msg`Amazon S3, or a store that speaks like it` },
          { value: "swift", text: "OpenStack Swift" },
        ]}
      />
      <RemoteFields form={form} onForm={setForm} submit={submit} />
      <p class="muted small">{msg`Every operation is tried first, on objects that are made for it and removed.`}</p>
    </FormDialog>
  );
}

type Props = { backend: RemoteBackend; onClose: () => void };

/** Changes how a store is reached: tried before it is kept. */
export function ChangeBackendDialog({ backend: b, onClose }: Props) {
  const submit = useSubmit();
  const before = remoteForm(b.kind, b.options);
  const [name, setName] = useState(b.name);
  const [form, setForm] = useState(before);
  const [result, setResult] = useState<RemoteBackendResult | undefined>(undefined);
  const save = async () => {
    const options = changedOptions(form, before);
    const body = {
      name: name.trim() === b.name ? undefined : name.trim(),
      options: Object.keys(options).length > 0 ? options : undefined,
      secret: form.secret || undefined,
    };
    setResult(await call("PATCH /backends/{backend}", { path: { backend: b.id }, body }));
  };
  if (result) {
    const done = () => {
      changed();
      onClose();
      navigate(`/backends/${encodeURIComponent(result.backend.name)}`, { replace: true });
    };
    return <ReportDialog title={msg`Backend ${result.backend.name} is changed`} result={result} onClose={done} />;
  }
  return (
    <FormDialog
      title={msg`Change backend ${b.name}`}
      verb={submit.busy ? msg`Trying every operation…` : msg`Test and save`}
      needs="manage"
      submit={submit}
      fields={["name", ...remoteErrors]}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} />
      <RemoteFields form={form} onForm={setForm} submit={submit} change />
      <p class="muted small">
        {msg`It is tried before it is kept, and has to show the objects of the vPools on it, which go on without a stop.`}
      </p>
    </FormDialog>
  );
}

/** Tries every operation of a store and shows the report. */
export function TestBackendButton({ backend: b }: { backend: RemoteBackend }) {
  const submit = useSubmit();
  const [result, setResult] = useState<RemoteBackendResult | undefined>(undefined);
  const test = () =>
    void submit.run(async () => {
      setResult(await call("POST /backends/{backend}/test", { path: { backend: b.id } }));
      changed();
    });
  return (
    <>
      <Button needs="manage" busy={submit.busy} onClick={test}>
        {submit.busy ? msg`Testing…` : msg`Test`}
      </Button>
      {result && <ReportDialog title={msg`Test of ${b.name}`} result={result} onClose={() => setResult(undefined)} />}
      {submit.error && (
        <Dialog title={msg`Test of ${b.name}`} onClose={submit.clear}>
          <ErrorPanel error={submit.error} />
        </Dialog>
      )}
    </>
  );
}

/** Forgets a store; nothing at it changes. */
export function DeleteBackendDialog({ backend: b, onClose }: Props) {
  return (
    <Confirm
      title={msg`Delete backend ${b.name}`}
      verb={msg`Delete backend`}
      danger
      typeName={b.name}
      consequences={[
        msg`The node forgets how the store is reached, with the secret.`,
        msg`Nothing at the store changes: objects in ${b.options.container} stay.`,
      ]}
      onClose={onClose}
      act={async () => {
        await ending(backendKey(b.name), async () => {
          await call("DELETE /backends/{backend}", { path: { backend: b.id } });
        });
        toast("ok", msg`Backend ${b.name} deleted`);
        reload("backends?");
        navigate("/backends");
      }}
    />
  );
}
