import type { Labels } from "../api/gen";
import { msg } from "../text";

/** The labels of an object, all of them. */
export function LabelChips({ labels }: { labels: Labels }) {
  const all = Object.entries(labels);
  if (all.length === 0) {
    return <span class="muted">{msg`none`}</span>;
  }
  return (
    <span class="row">
      {all.map(([name, value]) => (
        <span key={name} class="chip">
          {value ? `${name}=${value}` : name}
        </span>
      ))}
    </span>
  );
}
