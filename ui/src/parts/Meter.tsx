import { useEffect, useRef } from "preact/hooks";

type Part = { share: number; class?: string };

/** A bar filled by shares between 0 and 1. Widths go through the CSSOM: the policy forbids style attributes. */
export function Meter({ label, parts }: { label: string; parts: Part[] }) {
  return (
    <div class="meter" role="img" aria-label={label}>
      {parts.map((p, i) => (
        <Fill key={i} {...p} />
      ))}
    </div>
  );
}

function Fill({ share, class: name }: Part) {
  const ref = useRef<HTMLElement>(null);
  const width = `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(2)}%`;
  useEffect(() => {
    ref.current?.style.setProperty("width", width);
  }, [width]);
  return <i ref={ref} class={name} />;
}

/** The tone of a fill level: full is trouble. */
export function fillTone(share: number): string {
  return share >= 0.95 ? "tone-bad" : share >= 0.8 ? "tone-warn" : "";
}
