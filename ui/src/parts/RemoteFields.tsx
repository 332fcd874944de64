import { badField } from "../api/client";
import type { RemoteKind, RemoteOptions, RemoteOptionsInput } from "../api/gen";
import { MiB } from "../format";
import type { Submit } from "../store/submit";
import { CheckField, Field, SelectField, TextField } from "./Field";
import { msg } from "../text";

type Key = keyof RemoteOptionsInput;

type Spec = {
  key: Key;
  label: string;
  hint?: string;
  placeholder?: string;
  /** A whole number; with unit, that many bytes each. */
  number?: boolean;
  unit?: number;
  options?: { value: string; text: string }[];
  lines?: boolean;
};

function choices(...all: string[]): { value: string; text: string }[] {
  return all.map((value) => ({ value, text: value }));
}

const first: Record<RemoteKind, Spec[]> = {
  s3: [
    { key: "url", label: msg`Endpoint`, hint: msg`Empty: Amazon's of the region.`, placeholder: "https://s3.example.org" },
    { key: "region", label: msg`Region` },
    { key: "container", label: msg`Bucket`, hint: msg`It is there already.` },
    { key: "user", label: msg`Access key` },
  ],
  swift: [
    { key: "url", label: msg`Where users sign in`, placeholder: "https://keystone.example.org:5000/v3" },
    { key: "container", label: msg`Container`, hint: msg`Made when it is missing.` },
    { key: "project", label: msg`Project` },
    { key: "domain", label: msg`Domain` },
    { key: "user", label: msg`User`, hint: msg`Or the id of an application credential.` },
  ],
};

const shared: Spec[] = [
  { key: "connections", label: msg`Connections at a time`, hint: "0: 64.", number: true },
  { key: "uploadBytes", label: msg`Upload limit, MiB/s`, hint: msg`Of each vPool. 0: no bound.`, number: true, unit: MiB },
  { key: "downloadBytes", label: msg`Download limit, MiB/s`, hint: msg`Of each vPool. 0: no bound.`, number: true, unit: MiB },
  { key: "proxy", label: msg`HTTP proxy`, placeholder: "http://proxy.example.org:3128" },
  { key: "ca", label: msg`Certificates to trust`, hint: msg`PEM, in place of the system's.`, lines: true },
];

const more: Record<RemoteKind, Spec[]> = {
  s3: [
    {
      key: "addressing",
      label: msg`Place of the bucket's name`,
      options: [
        { value: "auto", text: msg`found out` },
        { value: "path", text: msg`in the path` },
        { value: "virtual", text: msg`in the host's name` },
      ],
    },
    { key: "sse", label: msg`Encryption by the store`, options: choices("none", "AES256", "aws:kms") },
    { key: "sseKey", label: msg`Id of the key with aws:kms` },
    ...shared,
  ],
  swift: [
    {
      key: "authVersion",
      label: msg`Version of the sign-in`,
      number: true,
      options: [{ value: "0", text: msg`by the URL` }, ...choices("1", "2", "3")],
    },
    { key: "projectDomain", label: msg`Domain of the project`, hint: msg`Empty: the user's.` },
    { key: "region", label: msg`Region` },
    { key: "endpoint", label: msg`Endpoint of the catalogue`, options: choices("public", "internal", "admin") },
    { key: "policy", label: msg`Storage policy`, hint: msg`Of containers that are made. Empty: the cluster's default.` },
    {
      key: "shards",
      label: msg`Containers that vDisks spread over`,
      hint: msg`1 to 256. Not to be changed while vPools are on it.`,
      number: true,
    },
    { key: "trust", label: msg`Id of a trust` },
    ...shared,
  ],
};

/** The options of a store as a form holds them; secret is empty unless one is typed. */
export type RemoteForm = { kind: RemoteKind; text: Partial<Record<Key, string>>; flag: boolean; secret: string };

/** S3: keys of the machine's role; Swift: the user is the id of an application credential. */
function flagKey(kind: RemoteKind): "iam" | "applicationCredential" {
  return kind === "s3" ? "iam" : "applicationCredential";
}

const defaults: Partial<Record<Key, string>> = {
  addressing: "auto",
  sse: "none",
  authVersion: "0",
  endpoint: "public",
  shards: "1",
  connections: "0",
  uploadBytes: "0",
  downloadBytes: "0",
};

export function emptyRemote(kind: RemoteKind): RemoteForm {
  return { kind, text: defaults, flag: false, secret: "" };
}

/** The form of the options that a store has. */
export function remoteForm(kind: RemoteKind, options: RemoteOptions): RemoteForm {
  const text: RemoteForm["text"] = {};
  for (const s of [...first[kind], ...more[kind]]) {
    const value = options[s.key];
    text[s.key] = s.unit ? String(Number(value) / s.unit) : String(value);
  }
  return { kind, text, flag: options[flagKey(kind)], secret: "" };
}

/** The options in which a form differs from before; a number that is none is refused at its field. */
export function changedOptions(form: RemoteForm, before: RemoteForm): RemoteOptionsInput {
  const out: Record<string, string | number | boolean> = {};
  for (const s of [...first[form.kind], ...more[form.kind]]) {
    const now = (form.text[s.key] ?? "").trim();
    if (now === (before.text[s.key] ?? "")) {
      continue;
    }
    const n = Math.round(Number(now) * (s.unit ?? 1));
    if (s.number && (now === "" || !Number.isFinite(n))) {
      throw badField(s.key, msg`Enter a number`);
    }
    out[s.key] = s.number ? n : now;
  }
  if (form.flag !== before.flag) {
    out[flagKey(form.kind)] = form.flag;
  }
  return out as RemoteOptionsInput;
}

/** Fields of a request that the part below shows the errors of. */
export const remoteErrors = ["kind", "secret", ...new Set(Object.values(first).concat(Object.values(more)).flat().map((s) => s.key))];

type Props = { form: RemoteForm; onForm: (form: RemoteForm) => void; submit: Submit; change?: boolean };

/** How a store is reached: what is always needed, and the rest behind a fold. */
export function RemoteFields({ form, onForm, submit, change }: Props) {
  const one = (s: Spec) => {
    const value = form.text[s.key] ?? "";
    const onValue = (text: string) => onForm({ ...form, text: { ...form.text, [s.key]: text } });
    const field = { label: s.label, hint: s.hint, error: submit.at(s.key) };
    if (s.options) {
      return <SelectField key={s.key} {...field} name={s.key} value={value} onValue={onValue} options={s.options} />;
    }
    if (s.lines) {
      return (
        <Field key={s.key} {...field}>
          {(control) => (
            <textarea
              {...control}
              name={s.key}
              rows={3}
              spellcheck={false}
              value={value}
              onInput={(event) => onValue(event.currentTarget.value)}
            />
          )}
        </Field>
      );
    }
    return (
      <TextField key={s.key} {...field} name={s.key} value={value} onValue={onValue} input={{ placeholder: s.placeholder }} />
    );
  };
  const noSecret = form.kind === "s3" && form.flag;
  return (
    <>
      {first[form.kind].filter((s) => !noSecret || s.key !== "user").map(one)}
      {!noSecret && (
        <TextField
          label={form.kind === "s3" ? msg`Secret key` : msg`Password`}
          name="secret"
          value={form.secret}
          onValue={(secret) => onForm({ ...form, secret })}
          hint={change ? msg`Empty: it stays. It is kept sealed, and shown nowhere.` : msg`It is kept sealed, and shown nowhere.`}
          error={submit.at("secret")}
          input={{ type: "password", autocomplete: "new-password" }}
        />
      )}
      <CheckField name="flag" checked={form.flag} onValue={(flag) => onForm({ ...form, flag })}>
        {form.kind === "s3"
          ? msg`Keys of the environment or of the machine's role, no access key`
          : msg`The user is the id of an application credential`}
      </CheckField>
      <details class="more">
        <summary>{msg`More options`}</summary>
        <div class="stack-wide">{more[form.kind].map(one)}</div>
      </details>
    </>
  );
}
