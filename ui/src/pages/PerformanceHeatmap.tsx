// How many commands took how long, over time: a column for each step, a row for each bucket of latency.
import type uPlot from "uplot";
import { useEffect, useRef, useState } from "preact/hooks";
import { count, latency, percent } from "../format";
import { setQuery } from "../router";
import { useHistory, type Past, type Range } from "../store/history";
import type { Sample } from "../store/metrics";
import { Button } from "../parts/Button";
import { rangeWords } from "../parts/Chart";
import { moment, Plot, pointed, resolve } from "../parts/Plot";
import { bucketText, kindWords, refKey, type Feed } from "../store/compare";
import { msg, rich } from "../text";

export type Side = "all" | "reads" | "writes";

export const sideWords: Record<Side, string> = { all: msg`Reads and writes`, reads: msg`Reads`, writes: msg`Writes` };

/** Steps of the colour; each is for half as many commands and again a third less. */
const shades = 8;
const shadeOctaves = 1.5;

/** px, and rows at least, so that one bucket does not fill the picture. */
const height = 232;
const leastRows = 6;

const sum = (rates: number[]): number => rates.reduce((a, b) => a + b, 0);

/** Commands a second in each bucket; undefined: not known. */
export function ratesOf(sample: Sample, side: Side): number[] | undefined {
  const l = sample.latencies;
  if (!l) {
    return undefined;
  }
  if (side !== "all") {
    return l[side];
  }
  return Array.from({ length: Math.max(l.reads.length, l.writes.length) }, (_, i) => (l.reads[i] ?? 0) + (l.writes[i] ?? 0));
}

type Props = { feeds: Feed[]; feed: Feed; side: Side; past: Past; range: Range; end: number | undefined };

/** The heatmap of one object, with its legend and as a table. */
export function Heatmap({ feeds, feed, side, past, range, end }: Props) {
  const [table, setTable] = useState(false);
  const known = past.samples.filter((s) => !s.gap && ratesOf(s, side));
  const unknown = past.samples.some((s) => !s.gap && !s.latencies && (s.performance.readIops > 0 || s.performance.writeIops > 0));
  const buckets = sumsOf(known, side, past.buckets.length);
  const total = sum(buckets.map((b) => b.sum));
  const most = Math.max(0, ...buckets.map((b) => b.most));
  const used = buckets.flatMap((b, i) => (b.sum > 0 ? [i] : []));
  const words = msg`Latency of ${sideWords[side].toLowerCase()} of ${feed.label}, ${rangeWords(range, end)}`;
  const below = (share: number): string => {
    let rest = share * total;
    const i = buckets.findIndex((b) => (rest -= b.sum) <= 0);
    return latency(past.buckets[i + 1] ?? past.buckets[i] ?? 0);
  };
  const title = total > 0 ? msg`${words}: half of the commands below ${below(0.5)}, 99 % below ${below(0.99)}, at most ${count(most)} a second in a bucket` : msg`${words}: no commands`;
  return (
    <figure class="card span-12">
      <div class="card-head">
        <h2>{msg`Latency heatmap`}</h2>
        <span class="spacer" />
        <Button small kind="quiet" label={msg`Latency heatmap as ${table ? msg`chart` : msg`table`}`} onClick={() => setTable(!table)}>
          {table ? msg`Chart` : msg`Table`}
        </Button>
      </div>
      <div class="heat-bar toolbar">
        <select aria-label={msg`Object of the heatmap`} value={refKey(feed.ref)} onChange={(e) => setQuery({ heat: e.currentTarget.value }, { replace: true })}>
          {feeds.map((f) => (
            <option key={refKey(f.ref)} value={refKey(f.ref)}>
              {kindWords[f.ref.kind]} {f.label}
            </option>
          ))}
        </select>
        <select aria-label={msg`Commands of the heatmap`} value={side} onChange={(e) => setQuery({ side: e.currentTarget.value === "all" ? undefined : e.currentTarget.value }, { replace: true })}>
          {(Object.keys(sideWords) as Side[]).map((s) => (
            <option key={s} value={s}>
              {sideWords[s]}
            </option>
          ))}
        </select>
        <Scale most={most} />
        <Readout past={past} side={side} seconds={range.seconds} />
      </div>
      {unknown && <p class="muted small">{msg`Parts of this time are from a version that did not count latencies by bucket: they stay empty.`}</p>}
      {table ? (
        <BucketTable label={words} buckets={buckets} bounds={past.buckets} used={used} total={total} columns={known.length} />
      ) : past.step !== undefined && total === 0 ? (
        <p class="muted" role="status">
          {rich`${feed.label} had no ${side === "all" ? msg`commands` : side} in this time.`}
        </p>
      ) : (
        <Cells title={title} past={past} side={side} used={used} most={most} range={range} end={end} />
      )}
    </figure>
  );
}

/** Reads what the heatmap of an object shows. */
export function useHeat(feed: Feed | undefined, range: Range, until: number | undefined): Past {
  return useHistory(feed?.charted, range, { until, latencies: true });
}

type Bucket = { sum: number; most: number };

function sumsOf(samples: Sample[], side: Side, length: number): Bucket[] {
  const out = Array.from({ length }, () => ({ sum: 0, most: 0 }));
  for (const s of samples) {
    ratesOf(s, side)?.forEach((rate, i) => {
      const b = out[i];
      if (b) {
        b.sum += rate;
        b.most = Math.max(b.most, rate);
      }
    });
  }
  return out;
}

/** The shade of a rate, 1 to shades. */
function shadeOf(rate: number, most: number): number {
  return Math.max(1, shades - Math.floor(Math.log2(most / rate) / shadeOctaves));
}

/** The colour of a shade: from the ground to the first colour of charts. */
function shade(n: number): string {
  return `color-mix(in oklch, var(--c1) ${Math.round(12 + (88 * (n - 1)) / (shades - 1))}%, var(--surface))`;
}

function Scale({ most }: { most: number }) {
  const ref = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    ref.current?.querySelectorAll("i").forEach((cell, i) => cell.style.setProperty("background", shade(i + 1)));
  });
  const perSecond = (n: number) => `${n < 0.1 ? n.toPrecision(1) : count(n)}/s`;
  return (
    <span class="heat-scale" ref={ref} role="img" aria-label={msg`Colours from few commands to ${perSecond(most)}, by powers of two`}>
      <span>{msg`few`}</span>
      {Array.from({ length: shades }, (_, i) => (
        <i key={i} />
      ))}
      <span>{perSecond(most)}</span>
    </span>
  );
}

/** The bucket under the mouse, by its number. */
let under: number | undefined;

/** What is at the crosshair. */
function Readout({ past, side, seconds }: { past: Past; side: Side; seconds: number }) {
  const at = pointed.value;
  const sample = at === undefined ? undefined : past.samples.find((s) => Math.abs(s.time - at) <= (past.step ?? 1) / 2);
  const rates = sample && !sample.gap ? ratesOf(sample, side) : undefined;
  if (!sample || !rates) {
    return <span class="num">{msg`Commands a second; point at the picture for one step`}</span>;
  }
  const some = (rates: number[], i: number) => msg`${count(rates[i] ?? 0)}/s of ${bucketText(past.buckets, i)}`;
  return (
    <span class="num">
      {moment(sample.time, seconds)}: <b>{under === undefined ? msg`${count(sum(rates))}/s in all` : some(rates, under)}</b>
    </span>
  );
}

type CellsProps = { title: string; past: Past; side: Side; used: number[]; most: number; range: Range; end: number | undefined };

function Cells({ title, past, side, used, most, range, end }: CellsProps) {
  const low = Math.min(used[0] ?? 0, past.buckets.length - leastRows);
  const high = Math.max(used.at(-1) ?? 0, low + leastRows - 1);
  const cells = useRef({ past, side, most });
  cells.current = { past, side, most };
  const adapt = (o: uPlot.Options): uPlot.Options => {
    const colours = Array.from({ length: shades }, (_, i) => resolve(shade(i + 1)));
    const [x, y] = o.axes ?? [];
    const bound = (i: number) => (i === 0 ? "0" : latency(past.buckets[i] ?? 2 ** i));
    return {
      ...o,
      scales: { ...o.scales, y: { range: () => [low, high + 1] } },
      axes: [{ ...x }, { ...y, splits: () => Array.from({ length: high - low + 2 }, (_, i) => low + i).filter((i) => high - low < 10 || i % 2 === 0), values: (_, ticks) => ticks.map(bound) }],
      cursor: { ...o.cursor, points: { show: false } },
      hooks: {
        ...o.hooks,
        draw: [(plot) => paint(plot, cells.current, colours)],
        setCursor: [
          (plot) => {
            const top = plot.cursor.top ?? -1;
            under = plot.cursor.event && top >= 0 ? Math.floor(plot.posToVal(top, "y")) : undefined;
          },
          ...(o.hooks?.setCursor ?? []),
        ],
      },
    };
  };
  return (
    <div class="heat">
      <Plot
        title={title}
        data={[past.samples.map((s) => s.time), past.samples.map(() => null)]}
        lines={[{ label: "", color: "c1" }]}
        seconds={range.seconds}
        end={end}
        format={String}
        least={1}
        height={height}
        adapt={adapt}
        again={`${low} ${high} ${past.buckets.length}`}
      />
    </div>
  );
}

function paint(plot: uPlot, { past, side, most }: { past: Past; side: Side; most: number }, colours: string[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const sample of past.samples) {
    const left = Math.round(plot.valToPos(sample.time, "x", true));
    const right = Math.round(plot.valToPos(sample.time + (past.step ?? 1), "x", true));
    (sample.gap ? undefined : ratesOf(sample, side))?.forEach((rate, i) => {
      if (rate > 0) {
        const top = Math.round(plot.valToPos(i + 1, "y", true));
        ctx.fillStyle = colours[shadeOf(rate, most) - 1] ?? "";
        ctx.fillRect(left, top, Math.max(1, right - left), Math.round(plot.valToPos(i, "y", true)) - top);
      }
    });
  }
  ctx.restore();
}

type TableProps = { label: string; buckets: Bucket[]; bounds: number[]; used: number[]; total: number; columns: number };

function BucketTable({ label, buckets, bounds, used, total, columns }: TableProps) {
  return (
    <div class="heat-table" role="region" aria-label={msg`${label}, as table`} tabIndex={0}>
      <table class="table">
        <thead>
          <tr>
            <th>{msg`Latency`}</th>
            <th class="right">{msg`Mean a second`}</th>
            <th class="right">{msg`Share`}</th>
            <th class="right">{msg`Most a second`}</th>
          </tr>
        </thead>
        <tbody>
          {used.map((i) => {
            const b = buckets[i] ?? { sum: 0, most: 0 };
            return (
              <tr key={i}>
                <td>{bucketText(bounds, i)}</td>
                <td class="right num">{count(b.sum / Math.max(1, columns))}</td>
                <td class="right num">{percent(b.sum, total)}</td>
                <td class="right num">{count(b.most)}</td>
              </tr>
            );
          })}
          {used.length === 0 && (
            <tr>
              <td colSpan={4}>{msg`No commands in this time`}</td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

/** The heatmap as columns of a file, beside the others: rates by step, of the buckets that have some. */
export function heatFields(past: Past, side: Side, feed: Feed): { title: string; value: (time: number) => number | undefined }[] {
  const step = past.step ?? 1;
  const at = new Map(past.samples.filter((s) => !s.gap).map((s) => [Math.floor(s.time / step) * step, ratesOf(s, side)]));
  return past.buckets.flatMap((_, i) =>
    [...at.values()].some((rates) => (rates?.[i] ?? 0) > 0)
      ? [{ title: msg`${feed.ref.kind} ${feed.label}: ${sideWords[side]} of ${bucketText(past.buckets, i)} (1/s)`, value: (time: number) => at.has(time) ? (at.get(time) ? at.get(time)?.[i] ?? 0 : undefined) : undefined }]
      : [],
  );
}
