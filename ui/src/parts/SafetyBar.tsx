import { count, plural } from "../format";
import { StackBar } from "./StackBar";
import type { Tone } from "./StateTag";
import { msg, noun } from "../text";

/** The tone of how many more devices may be lost; null: nothing was surveyed, or is stored. */
export function safetyTone(tolerates: number | null): Tone {
  return tolerates === null ? "idle" : tolerates < 0 ? "bad" : tolerates === 0 ? "warn" : "ok";
}

function colour(losses: number): string {
  return losses < 0 ? "tone-bad" : losses === 0 ? "tone-warn" : losses === 1 ? "second" : "";
}

function words(losses: number): string {
  return losses < 0
    ? msg`cannot be read now`
    : losses === 0
      ? msg`survive no further loss`
      : msg`survive the loss of ${plural(losses, noun`more device`)}`;
}

/** Objects by how many more devices they may lose: the poorest first. */
export function SafetyBar({ survives }: { survives: Record<string, number> }) {
  const layers = Object.entries(survives)
    .map(([losses, objects]) => ({ losses: Number(losses), objects }))
    .sort((a, b) => a.losses - b.losses)
    .map(({ losses, objects }) => ({ key: String(losses), value: objects, text: words(losses), colour: colour(losses) }));
  return <StackBar layers={layers} format={count} />;
}
