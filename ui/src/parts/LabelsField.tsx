import { Field } from "./Field";
import { msg } from "../text";

/** Labels out of lines "name=value"; a line without "=" is a name with an empty value. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const [name = "", ...rest] = line.split("=");
    if (name.trim()) {
      labels[name.trim()] = rest.join("=").trim();
    }
  }
  return labels;
}

/** Labels as lines, sorted by name. */
export function labelLines(labels: Record<string, string>): string {
  return Object.keys(labels)
    .sort()
    .map((name) => `${name}=${labels[name]}`)
    .join("\n");
}

type Props = { value: string; onValue: (value: string) => void; error?: string | undefined };

/** A field for labels, one a line. */
export function LabelsField({ value, onValue, error }: Props) {
  return (
    <Field label={msg`Labels`} hint={msg`One a line, such as env=test. They are kept with the vDisk.`} error={error}>
      {(control) => (
        <textarea
          {...control}
          name="labels"
          rows={3}
          spellcheck={false}
          value={value}
          onInput={(event) => onValue(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
