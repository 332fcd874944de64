import { GiB, MiB, TiB } from "../format";
import { Field } from "./Field";
import { msg } from "../text";

const units = { MiB, GiB, TiB };
export type SizeUnit = keyof typeof units;

/** A size as it is typed; parse it with sizeBytes. */
export type SizeInput = { amount: string; unit: SizeUnit };

/** The whole number of bytes a size means; NaN when it is no number or not above 0. */
export function sizeBytes({ amount, unit }: SizeInput): number {
  const n = Number(amount.trim().replace(",", "."));
  return amount.trim() !== "" && n > 0 ? Math.round(n * units[unit]) : NaN;
}

/** Bytes in the largest unit that keeps them whole. */
export function sizeInput(n: number): SizeInput {
  const unit: SizeUnit = n % TiB === 0 ? "TiB" : n % GiB === 0 ? "GiB" : "MiB";
  return { amount: String(n / units[unit]), unit };
}

type Props = {
  label: string;
  name: string;
  value: SizeInput;
  onValue: (value: SizeInput) => void;
  hint?: string;
  error?: string | undefined;
};

/** A field for a size with its unit. */
export function SizeField({ label, name, value, onValue, hint, error }: Props) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(control) => (
        <div class="with-unit">
          <input
            {...control}
            name={name}
            inputMode="decimal"
            autocomplete="off"
            value={value.amount}
            onInput={(event) => onValue({ ...value, amount: event.currentTarget.value })}
          />
          <select
            class="input"
            aria-label={msg`Unit of ${label.toLowerCase()}`}
            value={value.unit}
            onChange={(event) => onValue({ ...value, unit: event.currentTarget.value as SizeUnit })}
          >
            {Object.keys(units).map((u) => (
              <option key={u}>{u}</option>
            ))}
          </select>
        </div>
      )}
    </Field>
  );
}
