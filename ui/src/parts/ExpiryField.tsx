import type { Submit } from "../store/submit";
import { SelectField } from "./Field";
import { msg } from "../text";

const lifetimes = [
  { value: "7", text: msg`7 days` },
  { value: "30", text: msg`30 days` },
  { value: "90", text: msg`90 days` },
  { value: "365", text: msg`1 year` },
  { value: "", text: msg`Never` },
];

const dayMs = 86_400_000;

/** The part of a request that says when something expires, in so many days; empty: never. */
export function expiresIn(days: string): { expires?: string } {
  return days ? { expires: new Date(Date.now() + Number(days) * dayMs).toISOString() } : {};
}

/** Chooses after how many days a token or client expires. */
export function ExpiryField({ days, onDays, submit }: { days: string; onDays: (days: string) => void; submit: Submit }) {
  return <SelectField label={msg`Expires after`} name="expires" value={days} onValue={onDays} options={lifetimes} error={submit.at("expires")} />;
}
