import { useState } from "preact/hooks";
import { badField, call } from "../api/client";
import type { AlertChannelInput, AlertRule } from "../api/gen";
import { query } from "../router";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { CheckField, NameField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { TextArea } from "../parts/TextArea";
import { msg } from "../text";

/** Words of a text, one a line or separated by commas or blanks. */
function words(text: string): string[] {
  return text.split(/[\s,]+/).filter(Boolean);
}

const minuteMs = 60_000;

/** Minutes that a person typed, in ms. */
function minutes(field: string, text: string): number {
  const n = Number(text.trim().replace(",", "."));
  if (!(n >= 0)) {
    throw badField(field, msg`Enter a number of minutes`);
  }
  return Math.round(n * minuteMs);
}

type Dialog = { onClose: () => void };

/** Changes a rule, or makes one. */
export function RuleDialog({ rule, onClose }: Dialog & { rule?: AlertRule }) {
  const submit = useSubmit();
  const [name, setName] = useState(rule?.name ?? "");
  const [codes, setCodes] = useState(rule?.codes.join("\n") ?? "");
  const [level, setLevel] = useState<"" | "warning" | "error">(rule?.level ?? "");
  const [after, setAfter] = useState(String((rule?.afterMs ?? 0) / minuteMs));
  const [remind, setRemind] = useState(String((rule?.remindMs ?? 24 * 60 * minuteMs) / minuteMs));
  const [on, setOn] = useState(!rule?.off);
  const save = async () => {
    if (name.trim() === "") {
      throw badField("rule", msg`Enter a name`);
    }
    const body = {
      codes: words(codes),
      level,
      afterMs: minutes("afterMs", after),
      remindMs: minutes("remindMs", remind),
      off: !on,
    };
    await call("PUT /alerts/rules/{rule}", { path: { rule: name.trim() }, body });
    toast("ok", msg`Rule ${name.trim()} is saved`);
    reload("alertrules?", "alerts?");
    onClose();
  };
  return (
    <FormDialog
      title={rule ? msg`Change rule ${rule.name}` : msg`New rule`}
      verb={rule ? msg`Save` : msg`Create`}
      submit={submit}
      fields={["rule", "name", "codes", "level", "afterMs", "remindMs"]}
      save={save}
      needs="manage"
      onClose={onClose}
    >
      {!rule && <NameField value={name} onValue={setName} error={submit.at("rule") ?? submit.at("name")} />}
      <TextArea
        label={msg`Causes`}
        name="codes"
        value={codes}
        onValue={setCodes}
        hint={msg`Codes of causes, one a line; * stands for any text, such as osd_*.`}
        error={submit.at("codes")}
      />
      <SelectField
        label={msg`Level`}
        name="level"
        value={level}
        onValue={(value) => setLevel(value as typeof level)}
        options={[
          { value: "", text: msg`Warnings and errors` },
          { value: "warning", text: msg`Warnings` },
          { value: "error", text: msg`Errors` },
        ]}
        error={submit.at("level")}
      />
      <TextField
        label={msg`Told after (minutes)`}
        name="after"
        value={after}
        onValue={setAfter}
        hint={msg`For how long a cause has to last; 0 tells at once.`}
        error={submit.at("afterMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Again every (minutes)`}
        name="remind"
        value={remind}
        onValue={setRemind}
        hint={msg`While it lasts; 0 tells it once.`}
        error={submit.at("remindMs")}
        input={{ inputMode: "decimal" }}
      />
      <CheckField name="on" checked={on} onValue={setOn}>
        {msg`Tell what it matches`}
      </CheckField>
    </FormDialog>
  );
}

/** The port that goes with each kind of encryption (RFC 6409, RFC 8314). */
const ports: Record<string, number> = { starttls: 587, tls: 465, none: 25 };

/** Adds a mail server or a webhook. */
export function ChannelDialog({ onClose }: Dialog) {
  const submit = useSubmit();
  const [kind, setKind] = useState<"webhook" | "email">("webhook");
  const [v, setV] = useState({ name: "", url: "", format: "json", host: "", port: "", security: "starttls", user: "", secret: "", from: "", to: "", ca: "" });
  const set = (key: keyof typeof v) => (text: string) => setV({ ...v, [key]: text });
  const body = (): AlertChannelInput => {
    const ca = v.ca.trim() ? { ca: v.ca.trim() } : {};
    if (kind === "webhook") {
      return { name: v.name.trim(), kind, format: v.format as "json" | "slack", secretUrl: v.url.trim(), ...ca };
    }
    const port = v.port.trim() ? Number(v.port.trim()) : ports[v.security];
    if (!Number.isInteger(port)) {
      throw badField("port", msg`Enter a number`);
    }
    return {
      name: v.name.trim(),
      kind,
      host: v.host.trim(),
      port,
      security: v.security as "starttls" | "tls" | "none",
      ...(v.user.trim() ? { user: v.user.trim(), secret: v.secret } : {}),
      from: v.from.trim(),
      to: words(v.to),
      ...ca,
    };
  };
  const save = async (key: string) => {
    const made = await call("POST /alerts/channels", { key, body: body() });
    toast("ok", msg`Channel ${made.name} is added: test it`);
    reload("channels?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Add channel`}
      verb={msg`Add`}
      submit={submit}
      fields={["kind", "name", "format", "secretUrl", "host", "port", "security", "user", "secret", "from", "to", "ca"]}
      save={save}
      needs="manage"
      onClose={onClose}
    >
      <NameField value={v.name} onValue={set("name")} error={submit.at("name")} />
      <SelectField
        label={msg`Kind`}
        name="kind"
        value={kind}
        onValue={(value) => setKind(value as typeof kind)}
        options={[
          { value: "webhook", text: msg`Webhook` },
          { value: "email", text: msg`Mail` },
        ]}
        error={submit.at("kind")}
      />
      {kind === "webhook" ? (
        <>
          <TextField
            label={msg`Address`}
            name="url"
            value={v.url}
            onValue={set("url")}
            hint={msg`Where messages are posted. Who knows it can post too, so it is kept sealed, and shown nowhere.`}
            error={submit.at("secretUrl")}
            input={{ placeholder: "https://" }}
          />
          <SelectField
            label={msg`Format`}
            name="format"
            value={v.format}
            onValue={set("format")}
            options={[
              { value: "json", text: msg`JSON with every field of the alert` },
              { value: "slack", text: msg`Text, as Slack and those like it take` },
            ]}
            error={submit.at("format")}
          />
        </>
      ) : (
        <MailFields v={v} set={set} at={submit.at} />
      )}
      <details class="more">
        <summary>{msg`Certificates`}</summary>
        <TextArea
          label={msg`Trust these`}
          name="ca"
          value={v.ca}
          onValue={set("ca")}
          hint={msg`In PEM, in place of the system's; empty for the system's.`}
          error={submit.at("ca")}
        />
      </details>
    </FormDialog>
  );
}

type Mail = { host: string; port: string; security: string; user: string; secret: string; from: string; to: string };
type MailProps = { v: Mail; set: (key: keyof Mail) => (text: string) => void; at: (field: string) => string | undefined };

function MailFields({ v, set, at }: MailProps) {
  return (
    <>
      <TextField label={msg`Mail server`} name="host" value={v.host} onValue={set("host")} error={at("host")} input={{ placeholder: "mail.example.com" }} />
      <SelectField
        label={msg`Encryption`}
        name="security"
        value={v.security}
        onValue={set("security")}
        options={[
          { value: "starttls", text: "STARTTLS" },
          { value: "tls", text: msg`TLS from the start` },
          { value: "none", text: msg`None` },
        ]}
        error={at("security")}
      />
      <TextField
        label={msg`Port`}
        name="port"
        value={v.port}
        onValue={set("port")}
        hint={msg`Empty for the one that goes with the encryption.`}
        error={at("port")}
        input={{ inputMode: "decimal" }}
      />
      <TextField label={msg`From`} name="from" value={v.from} onValue={set("from")} error={at("from")} input={{ placeholder: "ovgate@example.com" }} />
      <TextArea label={msg`To`} name="to" value={v.to} onValue={set("to")} rows={2} hint={msg`Addresses, one a line.`} error={at("to")} />
      <TextField label={msg`User`} name="user" value={v.user} onValue={set("user")} hint={msg`Empty without a sign-in.`} error={at("user")} />
      <TextField
        label={msg`Password`}
        name="secret"
        value={v.secret}
        onValue={set("secret")}
        hint={msg`It is kept sealed, and shown nowhere.`}
        error={at("secret")}
        input={{ type: "password", autocomplete: "new-password" }}
      />
    </>
  );
}

const hourMs = 3_600_000;

const spans = [
  { value: "1", text: msg`1 hour` },
  { value: "4", text: msg`4 hours` },
  { value: "12", text: msg`12 hours` },
  { value: "24", text: msg`1 day` },
  { value: "72", text: msg`3 days` },
  { value: "168", text: msg`1 week` },
];

/** Keeps alerts from being told for a while; the address may say which. */
export function SilenceDialog({ onClose }: Dialog) {
  const submit = useSubmit();
  const [object, setObject] = useState(query.value.get("object") ?? "");
  const [code, setCode] = useState(query.value.get("code") ?? "");
  const [hours, setHours] = useState("4");
  const [why, setWhy] = useState("");
  const save = async (key: string) => {
    const untilAt = new Date(Date.now() + Number(hours) * hourMs).toISOString();
    await call("POST /alerts/silences", { key, body: { object: object.trim(), code: code.trim(), untilAt, why: why.trim() } });
    toast("ok", msg`It is silent now`);
    reload("silences?", "alerts?");
    onClose();
  };
  return (
    <FormDialog title={msg`New silence`} verb={msg`Silence`} submit={submit} fields={["object", "code", "until", "why"]} save={save} onClose={onClose}>
      <TextField
        label={msg`Object`}
        name="object"
        value={object}
        onValue={setObject}
        hint={msg`Such as vdisk demo; * stands for any text; empty for any object.`}
        error={submit.at("object")}
      />
      <TextField label={msg`Code`} name="code" value={code} onValue={setCode} hint={msg`Such as osd_*; empty for any code.`} error={submit.at("code")} />
      <SelectField label={msg`For`} name="hours" value={hours} onValue={setHours} options={spans} error={submit.at("until")} />
      <TextField
        label={msg`Why`}
        name="why"
        value={why}
        onValue={setWhy}
        hint={msg`For who wonders why nothing was told.`}
        error={submit.at("why")}
        input={{ autofocus: true }}
      />
    </FormDialog>
  );
}
