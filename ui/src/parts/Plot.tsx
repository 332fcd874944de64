import type uPlot from "uplot";
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { theme } from "../theme";
import { msg } from "../text";

export type Line = {
  label: string;
  /** A token of a colour, such as c1. */
  color: string;
  dashed?: boolean | undefined;
};

type Props = {
  /** What it shows, for those who do not see it. */
  title: string;
  data: uPlot.AlignedData;
  lines: Line[];
  /** The time it shows, s, and when that ends, s since 1970: with the newest value, unless it is given. */
  seconds: number;
  end?: number | undefined;
  format: (n: number) => string;
  /** Top of the axis at least, so that an idle line does not look busy. */
  least: number;
  /** The most there can be: the top of the axis then. */
  most?: number | undefined;
  /** Whether values are bytes: the axis then steps by powers of two. */
  binary?: boolean | undefined;
  /** px; 148 unless given. */
  height?: number;
  /** Changes the options of the library; called when it is drawn anew, which again asks for. */
  adapt?: (options: uPlot.Options) => uPlot.Options;
  again?: unknown;
};

/** Steps of an axis of bytes: 1 B to 1 PiB. */
const binarySteps = Array.from({ length: 51 }, (_, i) => 2 ** i);

/** px: the plot's height, and room for "1023 MiB/s" beside it. */
const usualHeight = 148;
const gutter = 68;

/** All charts of a page share one crosshair. */
const crosshair = "performance";

/** The time at the crosshair, s since 1970; undefined: it is on no chart. */
export const pointed = signal<number | undefined>(undefined);

/** Lines over time from zero up, with nothing around them. */
export function Plot(props: Props) {
  const { title, data, lines, seconds, end, height = usualHeight, again } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const shown = useRef(props);
  shown.current = props;

  useEffect(() => {
    const element = place.current;
    if (!element) {
      return;
    }
    let library: typeof uPlot | undefined;
    let gone = false;
    const draw = () => {
      plot.current?.destroy();
      if (library) {
        const options = optionsOf(element.clientWidth, shown.current);
        plot.current = new library(shown.current.adapt?.(options) ?? options, shown.current.data, element);
      }
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
    const scheme = matchMedia(msg`(prefers-color-scheme: dark)`);
    scheme.addEventListener("change", draw);
    return () => {
      gone = true;
      resized.disconnect();
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = undefined;
      pointed.value = undefined;
    };
  }, [theme.value, seconds, end, height, again, lines.map((l) => `${l.label} ${l.color} ${l.dashed}`).join()]);

  useEffect(() => plot.current?.setData(data));
  return <div ref={place} class={height === usualHeight ? "chart-plot" : undefined} role="img" aria-label={title} />;
}

function optionsOf(width: number, { lines, seconds, end, format, least, most, binary, height = usualHeight }: Props): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const axis: uPlot.Axis = {
    stroke: resolve("var(--ink-3)"),
    grid: { stroke: resolve("var(--line)"), width: 1 },
    ticks: { show: false },
    font: `11px ${style.getPropertyValue("--font-ui")}`,
  };
  return {
    width,
    height,
    padding: [8, 28, 0, 0], // half of the last time stands right of the plot
    legend: { show: false },
    cursor: { y: false, sync: { key: crosshair }, points: { size: 6 }, drag: { x: false, y: false } },
    hooks: {
      setCursor: [
        (plot) => {
          const at = plot.cursor.idx;
          pointed.value = at === null || at === undefined || (plot.cursor.left ?? -1) < 0 ? undefined : plot.data[0][at];
        },
      ],
    },
    scales: {
      // What the library gives is no end when there is one sample.
      x: {
        range: (plot) => {
          const last = end ?? plot.data[0].at(-1) ?? Date.now() / 1000;
          return [last - seconds, last];
        },
      },
      y: { range: (_, __, max) => [0, most ?? Math.max(least, max * 1.1)] },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map((at) => moment(at, seconds)) },
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
      ...lines.map((s) => ({
        label: s.label,
        stroke: resolve(`var(--${s.color})`),
        width: 1.5,
        dash: s.dashed ? [4, 4] : undefined,
        points: { show: false },
      })),
    ],
  };
}

/** The colour that an expression has now; light-dark() is only resolved on an element. */
export function resolve(expression: string): string {
  const probe = document.createElement("i");
  probe.style.setProperty("color", expression);
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** Ranges up to this long name seconds, up to the next one minutes, longer ones days. */
const secondsMost = 3600;
export const minutesMost = 24 * 3600;

const two = (n: number): string => String(n).padStart(2, "0");

/** A time of a range of so many seconds, as short as that allows. */
export function moment(at: number, seconds: number): string {
  const d = new Date(at * 1000);
  if (seconds > minutesMost) {
    return `${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  }
  return [d.getHours(), d.getMinutes(), ...(seconds > secondsMost ? [] : [d.getSeconds()])].map(two).join(":");
}
