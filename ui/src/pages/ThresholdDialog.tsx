import { useState } from "preact/hooks";
import { badField, call } from "../api/client";
import type { AlertLevel, MetricUnit, Threshold, ThresholdCompare } from "../api/gen";
import { rate } from "../format";
import { useMetrics } from "../store/operations";
import { reload, unread } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { CheckField, NameField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { msg } from "../text";

/** How values of a unit are typed: in what, and how many of the API's unit that is. */
const typed: Record<MetricUnit, { word: string; factor: number }> = {
  us: { word: "ms", factor: 1000 },
  percent: { word: "%", factor: 1 },
  per_second: { word: msg`per second`, factor: 1 },
  bytes_per_second: { word: msg`MiB per second`, factor: 1024 * 1024 },
};

/** A value of a metric in words. */
export function shown(value: number, unit: MetricUnit): string {
  switch (unit) {
    case "us":
      return msg`${value / typed.us.factor} ms`;
    case "bytes_per_second":
      return rate(value);
    case "percent":
      return `${value} %`;
    default:
      return `${value}/s`;
  }
}

const minuteMs = 60_000;

/** A number that a person typed. */
function number(field: string, text: string, what: string): number {
  const n = Number(text.trim().replace(",", "."));
  if (text.trim() === "" || !(n >= 0)) {
    throw badField(field, msg`Enter a number of ${what}`);
  }
  return n;
}

/** Changes a threshold, or makes one. */
export function ThresholdDialog({ threshold: t, onClose }: { threshold?: Threshold; onClose: () => void }) {
  const submit = useSubmit();
  const metrics = useMetrics();
  const all = metrics.data?.items ?? [];
  const [name, setName] = useState(t?.name ?? "");
  const [chosen, setMetric] = useState(t?.metric);
  const metric = chosen ?? all[0]?.name ?? "";
  const unit = all.find((m) => m.name === metric)?.unit ?? t?.unit ?? "percent";
  const { word, factor } = typed[unit];
  const was = (value?: number) => (t && value !== undefined ? String(value / typed[t.unit].factor) : "");
  const [object, setObject] = useState(t?.object ?? "");
  const [compare, setCompare] = useState<ThresholdCompare>(t?.compare ?? "above");
  const [value, setValue] = useState(was(t?.value));
  const [clear, setClear] = useState(was(t?.clear));
  const [during, setDuring] = useState(String((t?.forMs ?? 5 * minuteMs) / minuteMs));
  const [level, setLevel] = useState<AlertLevel>(t?.level ?? "warning");
  const [on, setOn] = useState(!t?.off);
  const save = async () => {
    if (name.trim() === "") {
      throw badField("threshold", msg`Enter a name`);
    }
    const body = {
      metric,
      object: object.trim(),
      compare,
      value: number("value", value, word) * factor,
      ...(clear.trim() === "" ? {} : { clear: number("clear", clear, word) * factor }),
      forMs: Math.round(number("forMs", during, "minutes") * minuteMs),
      level,
      off: !on,
    };
    await call("PUT /alerts/thresholds/{threshold}", { path: { threshold: name.trim() }, body });
    toast("ok", msg`Threshold ${name.trim()} is saved`);
    reload("thresholds?", "alerts?");
    onClose();
  };
  return (
    <FormDialog
      title={t ? msg`Change threshold ${t.name}` : msg`New threshold`}
      verb={t ? msg`Save` : msg`Create`}
      submit={submit}
      fields={["threshold", "name", "metric", "object", "compare", "value", "clear", "forMs", "level"]}
      save={save}
      needs="manage"
      reason={unread(metrics)}
      onClose={onClose}
    >
      {!t && <NameField value={name} onValue={setName} error={submit.at("threshold") ?? submit.at("name")} />}
      <SelectField
        label={msg`Metric`}
        name="metric"
        value={metric}
        onValue={setMetric}
        options={all.map((m) => ({ value: m.name, text: `${m.name}: ${m.means}` }))}
        error={submit.at("metric")}
      />
      <TextField
        label={msg`Of`}
        name="object"
        value={object}
        onValue={setObject}
        hint={msg`Such as ${metric.split(".")[0] || msg`vdisk`} NAME; * stands for any text; empty for all.`}
        error={submit.at("object")}
      />
      <SelectField
        label={msg`When it is`}
        name="compare"
        value={compare}
        onValue={(v) => setCompare(v as ThresholdCompare)}
        options={[
          { value: "above", text: msg`Above` },
          { value: "below", text: msg`Below` },
        ]}
        error={submit.at("compare")}
      />
      <TextField label={msg`Value (${word})`} name="value" value={value} onValue={setValue} error={submit.at("value")} input={{ inputMode: "decimal" }} />
      <TextField
        label={msg`Over at (${word})`}
        name="clear"
        value={clear}
        onValue={setClear}
        hint={msg`Empty for the value itself; apart from it, so that it does not come and go.`}
        error={submit.at("clear")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`For (minutes)`}
        name="for"
        value={during}
        onValue={setDuring}
        hint={msg`0 tells at once.`}
        error={submit.at("forMs")}
        input={{ inputMode: "decimal" }}
      />
      <SelectField
        label={msg`Level`}
        name="level"
        value={level}
        onValue={(v) => setLevel(v as AlertLevel)}
        options={[
          { value: "warning", text: msg`Warning` },
          { value: "error", text: msg`Error` },
        ]}
        error={submit.at("level")}
      />
      <CheckField name="on" checked={on} onValue={setOn}>
        {msg`Look at it`}
      </CheckField>
    </FormDialog>
  );
}
