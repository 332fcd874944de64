import { Field } from "./Field";
import { msg } from "../text";

/** Who may sign in to a target: anybody with the secret, or the names given. */
export type Access = { open: boolean; names: string };

/** The names of an Access, one a line or separated by commas or blanks. */
export function initiatorNames(text: string): string[] {
  return text.split(/[\s,]+/).filter(Boolean);
}

type Props = { value: Access; onValue: (value: Access) => void; error?: string | undefined };

/** The choice of who may sign in. CHAP is always on; this is about names on top of it. */
export function AccessField({ value, onValue, error }: Props) {
  return (
    <div class="stack">
      <div class="field" role="radiogroup" aria-label={msg`Who may connect`}>
        <span class="label">{msg`Who may connect`}</span>
        <Choice value={value} open onValue={onValue}>
          {msg`Any host that knows the CHAP secret`}
        </Choice>
        <Choice value={value} open={false} onValue={onValue}>
          {msg`Only these initiators, with the CHAP secret`}
        </Choice>
      </div>
      {!value.open && (
        <Field
          label={msg`Initiator names`}
          hint={msg`One a line, such as iqn.1993-08.org.debian:01:abc. More can be added later.`}
          error={error}
        >
          {(control) => (
            <textarea
              {...control}
              name="initiators"
              rows={2}
              spellcheck={false}
              value={value.names}
              onInput={(event) => onValue({ ...value, names: event.currentTarget.value })}
            />
          )}
        </Field>
      )}
    </div>
  );
}

function Choice(props: { value: Access; open: boolean; onValue: (v: Access) => void; children: string }) {
  return (
    <label class="check">
      <input
        type="radio"
        name="access"
        checked={props.value.open === props.open}
        onChange={() => props.onValue({ ...props.value, open: props.open })}
      />
      <span>{props.children}</span>
    </label>
  );
}
