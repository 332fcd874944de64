import type { Qos } from "../api/gen";
import { MiB } from "../format";
import { TextField } from "./Field";
import { msg } from "../text";

/** Limits as they are typed; empty is none. */
export type LimitText = { iops: string; rate: string; burst: string };

/** Fields of a request that the fields below show the errors of. */
export const limitErrors = ["iops", "bytesPerSecond", "burstMs"];

/** A number that may be left out; NaN when it is none. */
export function amount(text: string): number {
  const n = Number(text.trim().replace(",", "."));
  return n >= 0 ? n : NaN;
}

export function limitText(now: Qos | null): LimitText {
  return {
    iops: now?.iops ? String(now.iops) : "",
    rate: now?.bytesPerSecond ? String(now.bytesPerSecond / MiB) : "",
    burst: now?.burstMs ? String(now.burstMs / 1000) : "",
  };
}

/** The limits that a request sets; undefined while one of them is no number. */
export function limitsOf(text: LimitText): Qos | undefined {
  const [iops, rate, burst] = [amount(text.iops), amount(text.rate), amount(text.burst)];
  if ([iops, rate, burst].some(Number.isNaN)) {
    return undefined;
  }
  return { iops: Math.round(iops), bytesPerSecond: Math.round(rate * MiB), burstMs: Math.round(burst * 1000) };
}

type Props = { value: LimitText; onValue: (value: LimitText) => void; at: (field: string) => string | undefined };

/** Fields for what all hosts together may do to a vDisk. */
export function LimitFields({ value, onValue, at }: Props) {
  const problem = (text: string) => (Number.isNaN(amount(text)) ? msg`Enter a number, or leave it empty` : undefined);
  return (
    <>
      <TextField
        label={msg`Commands per second`}
        name="iops"
        value={value.iops}
        onValue={(iops) => onValue({ ...value, iops })}
        hint={msg`All hosts together, 10 or more; empty for no limit. Commands above a limit wait.`}
        error={problem(value.iops) ?? at("iops")}
        input={{ inputMode: "decimal", autofocus: true }}
      />
      <TextField
        label={msg`MiB per second`}
        name="rate"
        value={value.rate}
        onValue={(rate) => onValue({ ...value, rate })}
        hint={msg`Read and written, 1 or more; empty for no limit.`}
        error={problem(value.rate) ?? at("bytesPerSecond")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Burst in seconds`}
        name="burst"
        value={value.burst}
        onValue={(burst) => onValue({ ...value, burst })}
        hint={msg`How much of a rate that was left unused may be caught up at once, up to 60; empty for 0.1.`}
        error={problem(value.burst) ?? at("burstMs")}
        input={{ inputMode: "decimal" }}
      />
    </>
  );
}
