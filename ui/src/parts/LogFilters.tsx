// Filters of what a node keeps: the audit log and the events. They live in the address.
import { query, setQuery } from "../router";
import { useNodes } from "../store/reads";
import { msg } from "../text";

/** Hours back that the filter offers. */
const spans = [
  { value: "1", text: msg`Last hour` },
  { value: "24", text: msg`Last day` },
  { value: "168", text: msg`Last week` },
  { value: "720", text: msg`Last 30 days` },
];

/** Hours back that are asked for; undefined: all times. */
export function hoursAsked(): number | undefined {
  const asked = spans.find((s) => s.value === query.value.get("hours"));
  return asked && Number(asked.value);
}

type Option = { value: string; text: string };

/** A choice that is a parameter of the address; none is what the first entry says. */
export function Choice({ label, param, none, options }: { label: string; param: string; none: string; options: Option[] }) {
  return (
    <select
      aria-label={label}
      value={query.value.get(param) ?? ""}
      onChange={(event) => setQuery({ [param]: event.currentTarget.value, cursor: undefined }, { replace: true })}
    >
      <option value="">{none}</option>
      {options.map((o) => (
        <option key={o.value} value={o.value}>
          {o.text}
        </option>
      ))}
    </select>
  );
}

export function TimeFilter() {
  return <Choice label={msg`Time`} param="hours" none={msg`All times`} options={spans} />;
}

/** Which node's, where there are several; none is what no choice stands for. */
export function NodeFilter({ none = msg`The node that is asked` }: { none?: string }) {
  const members = useNodes().data?.items ?? [];
  if (members.length < 2) {
    return null;
  }
  return <Choice label={msg`Node`} param="node" none={none} options={members.map((m) => ({ value: m.name, text: m.name }))} />;
}
