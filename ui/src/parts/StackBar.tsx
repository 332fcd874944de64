import { percent } from "../format";
import { Link } from "./Link";
import { Meter } from "./Meter";

/** A part of a whole: how much, in words; colour is a class of meters, empty for the usual one. */
export type Layer = { key: string; value: number; text: string; colour: string; to?: string | undefined };

type Props = {
  /** Those of nothing are left out. */
  layers: Layer[];
  format: (n: number) => string;
  /** More than the layers together where the rest is to stay empty. */
  whole?: number;
};

/** A bar of what something consists of, with the same in words below; a part may lead to what it counts. */
export function StackBar({ layers, format, whole }: Props) {
  const shown = layers.filter((l) => l.value > 0);
  const total = whole ?? shown.reduce((sum, l) => sum + l.value, 0);
  if (total === 0) {
    return null;
  }
  return (
    <div class="stack-tight">
      <Meter label={shown.map((l) => `${format(l.value)} ${l.text}`).join(", ")} parts={shown.map((l) => ({ share: l.value / total, class: l.colour }))} />
      <ul class="chart-legend">
        {shown.map((l) => (
          <li key={l.key}>
            <i class={`swatch ${l.colour || "c1"}`} />{" "}
            {l.to ? (
              <Link to={l.to}>
                <b class="num">{format(l.value)}</b> {l.text}
              </Link>
            ) : (
              <>
                <b class="num">{format(l.value)}</b> {l.text}
              </>
            )}{" "}
            ({percent(l.value, total)})
          </li>
        ))}
      </ul>
    </div>
  );
}
