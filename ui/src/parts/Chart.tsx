import type uPlot from "uplot";
import { useEffect, useRef, useState } from "preact/hooks";
import { time } from "../format";
import { theme } from "../theme";
import type { Range } from "../store/history";
import type { Sample } from "../store/metrics";
import { Button } from "./Button";

export type Series = {
  label: string;
  color: "c1" | "c2" | "c3" | "c4";
  dashed?: boolean;
  value: (sample: Sample) => number | null;
};

type Props = {
  title: string;
  class?: string;
  samples: Sample[];
  range: Range;
  series: Series[];
  format: (n: number) => string;
  /** Top of the axis at least, so that an idle line does not look busy. */
  least: number;
  /** Whether values are bytes: the axis then steps by powers of two. */
  binary?: boolean;
};

/** Steps of an axis of bytes: 1 B to 1 PiB. */
const binarySteps = Array.from({ length: 51 }, (_, i) => 2 ** i);

/** px: the plot's height, and room for "1023 MiB/s" beside it. */
const height = 148;
const gutter = 68;

/** Rows of the table form: the newest, so that it stays readable. */
const tableRows = 30;

/** All charts of a page share one crosshair. */
const crosshair = "performance";

/** Lines of a range from zero up, with their newest values and a table form. */
export function Chart({ class: name, ...plot }: Props) {
  const { title, samples, range, series, format } = plot;
  const [table, setTable] = useState(false);
  const last = samples.at(-1);
  const newest = (s: Series) => (last ? format(s.value(last) ?? 0) : "–");
  return (
    <figure class={`card ${name ?? ""}`}>
      <div class="card-head">
        <h2>{title}</h2>
        <span class="spacer" />
        <Button small kind="quiet" label={`${title} as ${table ? "chart" : "table"}`} onClick={() => setTable(!table)}>
          {table ? "Chart" : "Table"}
        </Button>
      </div>
      <div class="chart-legend">
        {series.map((s) => (
          <span key={s.label}>
            <span class={`swatch ${s.color}`} aria-hidden="true" />
            {s.label} <b class="num">{newest(s)}</b>
          </span>
        ))}
      </div>
      {table ? (
        <Numbers {...plot} />
      ) : (
        <Plot
          {...plot}
          title={`${title}, last ${range.words}: ${series.map((s) => `${s.label} ${newest(s)}`).join(", ")}`}
        />
      )}
    </figure>
  );
}

function Plot(props: Omit<Props, "class">) {
  const { title, samples, series, range } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const data = align(samples, series);
  const shown = useRef(data);
  shown.current = data;

  useEffect(() => {
    const element = place.current;
    if (!element) {
      return;
    }
    let library: typeof uPlot | undefined;
    let gone = false;
    const draw = () => {
      plot.current?.destroy();
      plot.current = library && new library(options(element.clientWidth, props), shown.current, element);
    };
    const load = async () => {
      library = (await import("../plot")).default;
      if (!gone) {
        draw();
      }
    };
    // Without the library the legend and the table form still show every value.
    load().catch(() => {});
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    // A canvas does not follow custom properties: draw again when the system's scheme changes.
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      gone = true;
      resized.disconnect();
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [theme.value, range]);

  useEffect(() => plot.current?.setData(data));
  return <div ref={place} class="chart-plot" role="img" aria-label={title} />;
}

function align(samples: Sample[], series: Series[]): uPlot.AlignedData {
  return [samples.map((s) => s.time), ...series.map((line) => samples.map((s) => (s.gap ? null : line.value(s))))] as uPlot.AlignedData;
}

function options(width: number, { series, range, format, least, binary }: Omit<Props, "class">): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const axis: uPlot.Axis = {
    stroke: resolve("ink-3"),
    grid: { stroke: resolve("line"), width: 1 },
    ticks: { show: false },
    font: `11px ${style.getPropertyValue("--font-ui")}`,
  };
  return {
    width,
    height,
    padding: [8, 28, 0, 0], // half of the last time stands right of the plot
    legend: { show: false },
    cursor: { sync: { key: crosshair }, points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      // What the library gives is no end when there is one sample.
      x: {
        range: (plot) => {
          const end = plot.data[0].at(-1) ?? Date.now() / 1000;
          return [end - range.seconds, end];
        },
      },
      y: { range: (_, __, max) => [0, Math.max(least, max * 1.1)] },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map((at) => moment(at, range)) },
      {
        ...axis,
        size: gutter,
        space: 36,
        values: (_, ticks) => ticks.map((n) => (n === 0 ? "0" : format(n))),
        ...(binary ? { incrs: binarySteps } : {}),
      },
    ],
    series: [
      {},
      ...series.map((s) => ({
        label: s.label,
        stroke: resolve(s.color),
        width: 1.5,
        dash: s.dashed ? [4, 4] : undefined,
        points: { show: false },
      })),
    ],
  };
}

/** The colour a token has now; light-dark() is only resolved on an element. */
function resolve(token: string): string {
  const probe = document.createElement("i");
  probe.style.setProperty("color", `var(--${token})`);
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** Ranges up to this long name seconds, up to the next one minutes, longer ones days. */
const secondsMost = 3600;
const minutesMost = 24 * 3600;

const two = (n: number): string => String(n).padStart(2, "0");

function moment(at: number, { seconds }: Range): string {
  const d = new Date(at * 1000);
  if (seconds > minutesMost) {
    return `${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  }
  return [d.getHours(), d.getMinutes(), ...(seconds > secondsMost ? [] : [d.getSeconds()])].map(two).join(":");
}

function Numbers({ title, samples, range, series, format }: Omit<Props, "class">) {
  return (
    <div class="chart-table" role="region" aria-label={`${title} as table`} tabIndex={0}>
      <table class="table">
        <thead>
          <tr>
            <th>Time</th>
            {series.map((s) => (
              <th key={s.label} class="right">
                {s.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {samples
            .filter((s) => !s.gap)
            .slice(-tableRows)
            .reverse()
            .map((sample) => (
              <tr key={sample.time}>
                <td class="num">{range.seconds > minutesMost ? time(new Date(sample.time * 1000).toISOString()) : moment(sample.time, range)}</td>
                {series.map((s) => (
                  <td key={s.label} class="right num">
                    {format(s.value(sample) ?? 0)}
                  </td>
                ))}
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
