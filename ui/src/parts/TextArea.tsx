import type { ComponentChildren } from "preact";
import { Field } from "./Field";

type Props = {
  label: string;
  name: string;
  value: string;
  onValue: (value: string) => void;
  rows?: number;
  hint?: ComponentChildren;
  error?: string | undefined;
};

/** A field of several lines of text. */
export function TextArea({ name, value, onValue, rows = 3, ...field }: Props) {
  return (
    <Field {...field}>
      {(control) => (
        <textarea
          {...control}
          name={name}
          rows={rows}
          spellcheck={false}
          value={value}
          onInput={(event) => onValue(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
