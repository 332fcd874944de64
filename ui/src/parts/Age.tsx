import { now } from "../store/clock";
import { ago, time } from "../format";

/** How long ago a moment was, counting on; the exact time is its title. */
export function Age({ at }: { at: string | number | null }) {
  if (at === null || at === 0) {
    return <span class="muted">never</span>;
  }
  const iso = typeof at === "number" ? new Date(at).toISOString() : at;
  return (
    <time class="num nowrap" dateTime={iso} title={time(iso)}>
      {ago(Date.parse(iso), now.value)}
    </time>
  );
}

/** When the values of a card were taken, at its corner. */
export function Seen({ at }: { at: string }) {
  return (
    <span class="muted small">
      Seen <Age at={at} />
    </span>
  );
}
