import type { DoomedObject } from "../api/gen";
import { bytes, plural } from "../format";
import { msg, noun, rich } from "../text";

/** Most objects that are listed. */
const shownMax = 100;

/** Objects that would be deleted, and why, when they are asked for; more: there are others. */
export function Doomed({ objects, more }: { objects: DoomedObject[]; more: boolean }) {
  if (objects.length === 0) {
    return null;
  }
  const others = more || objects.length > shownMax;
  return (
    <details class="more">
      <summary>
        {rich`${plural(objects.length, noun`object`)} it would delete${more && msg`, and others`}`}
      </summary>
      <ul class="stack">
        {objects.slice(0, shownMax).map((d) => (
          <li key={d.name}>
            <code>{d.name}</code> {bytes(d.bytes)}, {d.reason}
          </li>
        ))}
        {others && <li class="muted">{rich`The first ${Math.min(shownMax, objects.length)} are shown.`}</li>}
      </ul>
    </details>
  );
}
