import { useState } from "preact/hooks";
import { badField, call } from "../api/client";
import type { Preset } from "../api/gen";
import { bytes, KiB, MiB } from "../format";
import { reload } from "../store/query";
import { useSubmit, type Submit } from "../store/submit";
import { toast } from "../store/toasts";
import { CheckField, Field, NameField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { msg } from "../text";

/** Sizes of fragments that the form offers; the node takes every multiple of 64 KiB to 64 MiB. */
const fragmentSizes = [256 * KiB, MiB, 4 * MiB, 16 * MiB, 64 * MiB];
const pieceSizes = [4 * KiB, 16 * KiB, 64 * KiB];

type Form = { policies: string; fragmentSize: string; pieceSize: string };

function words(text: string): string[] {
  return text.split(/[\s;]+/).filter(Boolean);
}

function PresetFields({ form, onForm, submit, auto }: { form: Form; onForm: (f: Form) => void; submit: Submit; auto: string }) {
  const sizes = (all: number[], now: string) => {
    const values = all.includes(Number(now)) ? all : [...all, Number(now)];
    return values.map((n) => ({ value: String(n), text: bytes(n) }));
  };
  return (
    <>
      <Field
        label={msg`Policies`}
        hint={msg`One a line, the first that can be met is used: k,m,c,x are data and parity fragments, how many to wait for, how many on one node or in one domain at most. ${auto}`}
        error={submit.at("policies")}
      >
        {(control) => (
          <textarea
            {...control}
            name="policies"
            rows={3}
            spellcheck={false}
            placeholder={"4,2,5,3"}
            value={form.policies}
            onInput={(event) => onForm({ ...form, policies: event.currentTarget.value })}
          />
        )}
      </Field>
      <SelectField
        label={msg`Size of a fragment`}
        name="fragmentSize"
        value={form.fragmentSize}
        onValue={(fragmentSize) => onForm({ ...form, fragmentSize })}
        options={sizes(fragmentSizes, form.fragmentSize)}
        error={submit.at("fragmentSize")}
      />
      <SelectField
        label={msg`Least that a read moves`}
        name="pieceSize"
        value={form.pieceSize}
        onValue={(pieceSize) => onForm({ ...form, pieceSize })}
        hint={msg`Small pieces make short reads fast, and records long.`}
        options={sizes(pieceSizes, form.pieceSize)}
        error={submit.at("pieceSize")}
      />
    </>
  );
}

const fields = ["name", "policies", "spread", "fragmentSize", "pieceSize", "compression", "osds"];

/** Creates a preset. */
export function CreatePresetDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [form, setForm] = useState<Form>({ policies: "", fragmentSize: String(4 * MiB), pieceSize: String(16 * KiB) });
  const [spread, setSpread] = useState<"node" | "domain">("node");
  const [compression, setCompression] = useState("none");
  const [encrypt, setEncrypt] = useState(false);
  const [osds, setOsds] = useState("");
  const save = async (key: string) => {
    const policies = words(form.policies);
    const numbers = osds.split(/[\s,;]+/).filter(Boolean).map(Number);
    if (!numbers.every(Number.isInteger)) {
      throw badField("osds", msg`Enter numbers of devices, such as 1 2 3, or nothing`);
    }
    const preset = await call("POST /presets", {
      key,
      body: {
        name: name.trim(),
        policies: policies.length > 0 ? policies : undefined,
        spread,
        fragmentSize: Number(form.fragmentSize),
        pieceSize: Number(form.pieceSize),
        compression,
        encrypt,
        osds: numbers.length > 0 ? numbers : undefined,
      },
    });
    toast("ok", msg`Preset ${preset.name} created`);
    reload("presets?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`New preset`}
      verb={msg`Create`}
      needs="manage"
      submit={submit}
      fields={fields}
      save={save}
      onClose={onClose}
    >
      <NameField value={name} onValue={setName} error={submit.at("name")} />
      <PresetFields form={form} onForm={setForm} submit={submit} auto={msg`Empty: what suits the devices, following them.`} />
      <SelectField
        label={msg`Spread by`}
        name="spread"
        value={spread}
        onValue={(value) => setSpread(value === "domain" ? "domain" : "node")}
        hint={msg`What x counts: fragments on a node, or in what fails together, such as a rack. It stays as it is.`}
        options={[
          { value: "node", text: msg`Node` },
          { value: "domain", text: msg`Domain of the nodes` },
        ]}
        error={submit.at("spread")}
      />
      <SelectField
        label={msg`Compression`}
        name="compression"
        value={compression}
        onValue={setCompression}
        options={["none", "snappy", "s2", "zstd", "bz2"].map((value) => ({ value, text: value }))}
        error={submit.at("compression")}
      />
      <CheckField name="encrypt" checked={encrypt} onValue={setEncrypt}>
        {msg`Encrypt fragments (AES-256) with a data key of its own`}
      </CheckField>
      <TextField
        label={msg`Devices`}
        name="osds"
        value={osds}
        onValue={setOsds}
        hint={msg`Numbers of the devices to use. Empty: all.`}
        error={submit.at("osds")}
      />
    </FormDialog>
  );
}

/** Changes policies and sizes of a preset. */
export function ChangePresetDialog({ preset: p, onClose }: { preset: Preset; onClose: () => void }) {
  const submit = useSubmit();
  const [form, setForm] = useState<Form>({
    policies: p.automatic ? "" : p.policies.join("\n"),
    fragmentSize: String(p.fragmentSize),
    pieceSize: String(p.pieceSize),
  });
  const save = async () => {
    const policies = words(form.policies);
    const body = {
      policies: policies.length > 0 ? policies : undefined,
      fragmentSize: Number(form.fragmentSize),
      pieceSize: Number(form.pieceSize),
    };
    const preset = await call("PATCH /presets/{preset}", { path: { preset: p.name }, body });
    toast("ok", msg`Preset ${preset.name} changed`);
    reload("presets?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Change preset ${p.name}`}
      verb={msg`Save`}
      needs="manage"
      submit={submit}
      fields={fields}
      save={save}
      onClose={onClose}
    >
      <PresetFields form={form} onForm={setForm} submit={submit} auto={msg`Empty: they stay as they are.`} />
      <p class="muted small">
        {msg`It is for what is written from now on. Objects are brought to the best policy by themselves, and keep their sizes until then.`}
      </p>
    </FormDialog>
  );
}
