import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { msg } from "../text";

/** What ties an input to its label, hint and error. */
export type Control = {
  id: string;
  class: string;
  "aria-describedby": string | undefined;
  "aria-invalid": "true" | undefined;
};

type Props = {
  label: string;
  hint?: ComponentChildren;
  error?: string | undefined;
  children: (control: Control) => ComponentChildren;
};

/** A labelled input with a hint and the message of what is wrong with it. */
export function Field({ label, hint, error, children }: Props) {
  const id = useId();
  const described = [hint && id + "-hint", error && id + "-error"].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({
        id,
        class: "input",
        "aria-describedby": described || undefined,
        "aria-invalid": error ? "true" : undefined,
      })}
      {error && (
        <span id={id + "-error"} class="error" role="alert">
          {error}
        </span>
      )}
      {hint && (
        <span id={id + "-hint"} class="hint">
          {hint}
        </span>
      )}
    </div>
  );
}

type TextProps = Omit<Props, "children"> & {
  name: string;
  value: string;
  onValue: (value: string) => void;
  input?: {
    type?: "text" | "password";
    autocomplete?: "off" | "username" | "current-password" | "new-password";
    autofocus?: boolean;
    inputMode?: "decimal";
    placeholder?: string;
  };
};

/** A field of one line of text. */
export function TextField({ name, value, onValue, input, ...field }: TextProps) {
  // The library types each kind of input apart; the attributes used here are common to both kinds.
  const type = (input?.type ?? "text") as "text";
  const ref = useRef<HTMLInputElement>(null);
  useEffect(() => {
    // The attribute alone only works in a document that is being read, and in a dialog that opens.
    if (input?.autofocus) {
      ref.current?.focus();
    }
  }, []);
  return (
    <Field {...field}>
      {(control) => (
        <input
          spellcheck={false}
          {...control}
          ref={ref}
          type={type}
          autocomplete={input?.autocomplete ?? "off"}
          autofocus={input?.autofocus}
          inputMode={input?.inputMode}
          placeholder={input?.placeholder}
          name={name}
          value={value}
          onInput={(event) => onValue(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

type SelectProps = Omit<Props, "children"> & {
  name: string;
  value: string;
  onValue: (value: string) => void;
  options: { value: string; text: string }[];
};

/** A field with a fixed choice. */
export function SelectField({ name, value, onValue, options, ...field }: SelectProps) {
  return (
    <Field {...field}>
      {(control) => (
        <select {...control} name={name} value={value} onChange={(event) => onValue(event.currentTarget.value)}>
          {options.map((o) => (
            <option key={o.value} value={o.value}>
              {o.text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

type CheckProps = {
  name: string;
  checked: boolean;
  onValue: (checked: boolean) => void;
  children: ComponentChildren;
};

/** A choice that is on or off. */
export function CheckField({ name, checked, onValue, children }: CheckProps) {
  return (
    <label class="check">
      <input
        type="checkbox"
        name={name}
        checked={checked}
        onChange={(event) => onValue(event.currentTarget.checked)}
      />
      <span>{children}</span>
    </label>
  );
}

/** The name of something that is made in a dialog. */
export function NameField({ value, onValue, error }: { value: string; onValue: (value: string) => void; error: string | undefined }) {
  return (
    <TextField
      label={msg`Name`}
      name="name"
      value={value}
      onValue={onValue}
      hint={msg`Letters, digits, dot, dash and underscore.`}
      error={error}
      input={{ autofocus: true }}
    />
  );
}
