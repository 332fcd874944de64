import { now } from "../store/clock";
import { ago, duration, time } from "../format";
import { Tag } from "./StateTag";
import { msg, rich } from "../text";

/** How long ago a moment was, counting on; the exact time is its title. */
export function Age({ at }: { at: string | number | null }) {
  if (at === null || at === 0) {
    return <span class="muted">{msg`never`}</span>;
  }
  const iso = typeof at === "number" ? new Date(at).toISOString() : at;
  return (
    <time class="num nowrap" dateTime={iso} title={time(iso)}>
      {ago(Date.parse(iso), now.value)}
    </time>
  );
}

/** How long until a moment, counting on; the exact time is its title. */
export function Until({ at }: { at: string | null }) {
  if (at === null) {
    return <span class="muted">{msg`never`}</span>;
  }
  const left = Date.parse(at) - now.value;
  return left > 0 ? (
    <time class="num nowrap" dateTime={at} title={time(at)}>
      {rich`in ${duration(left)}`}
    </time>
  ) : (
    <Tag tone="bad" word={msg`Expired`} />
  );
}

/** When the values of a card were taken, at its corner. */
export function Seen({ at }: { at: string }) {
  return (
    <span class="muted small">
      {rich`Seen ${<Age at={at} />}`}
    </span>
  );
}
