import { count, percent, plural } from "../format";
import { Meter } from "./Meter";
import type { Tone } from "./StateTag";

/** The tone of how many more devices may be lost; null: nothing was surveyed, or is stored. */
export function safetyTone(tolerates: number | null): Tone {
  return tolerates === null ? "idle" : tolerates < 0 ? "bad" : tolerates === 0 ? "warn" : "ok";
}

function colour(losses: number): string {
  return losses < 0 ? "tone-bad" : losses === 0 ? "tone-warn" : losses === 1 ? "second" : "";
}

function words(losses: number): string {
  return losses < 0
    ? "cannot be read now"
    : losses === 0
      ? "survive no further loss"
      : `survive the loss of ${plural(losses, "more device")}`;
}

/** Objects by how many more devices they may lose: the poorest first. */
export function SafetyBar({ survives }: { survives: Record<string, number> }) {
  const all = Object.entries(survives)
    .map(([losses, objects]) => ({ losses: Number(losses), objects }))
    .filter((g) => g.objects > 0)
    .sort((a, b) => a.losses - b.losses);
  const total = all.reduce((sum, g) => sum + g.objects, 0);
  if (total === 0) {
    return null;
  }
  return (
    <div class="stack-tight">
      <Meter
        label={all.map((g) => `${count(g.objects)} ${words(g.losses)}`).join(", ")}
        parts={all.map((g) => ({ share: g.objects / total, class: colour(g.losses) }))}
      />
      <ul class="chart-legend">
        {all.map((g) => (
          <li key={g.losses}>
            <i class={`swatch ${colour(g.losses) || "c1"}`} /> <b class="num">{count(g.objects)}</b> {words(g.losses)} (
            {percent(g.objects, total)})
          </li>
        ))}
      </ul>
    </div>
  );
}
