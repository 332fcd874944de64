/** A line of values, oldest first, from 0 to their greatest; null is a gap. It has no axes: label says what it is. */
export function Sparkline({ label, values }: { label: string; values: (number | null)[] }) {
  const most = Math.max(1, ...values.map((v) => v ?? 0));
  const points = (v: number, i: number) => `${i} ${(1 - v / most).toFixed(3)}`;
  let path = "";
  let drawing = false;
  for (const [i, v] of values.entries()) {
    if (v === null) {
      drawing = false;
      continue;
    }
    path += (drawing ? "L" : "M") + points(v, i);
    drawing = true;
  }
  return (
    <svg class="spark" role="img" aria-label={label} viewBox={`0 -0.05 ${Math.max(1, values.length - 1)} 1.1`} preserveAspectRatio="none">
      <path d={path} />
    </svg>
  );
}
