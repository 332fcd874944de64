import type uPlot from "uplot";
import { useState } from "preact/hooks";
import { time } from "../format";
import type { Range } from "../store/history";
import { Button } from "./Button";
import { minutesMost, moment, Plot, pointed, type Line } from "./Plot";
import { msg } from "../text";

/** A moment of a chart; gap: nothing is known from then until the next one. */
type Moment = { time: number; gap?: boolean };

export type Series<M> = Line & {
  /** null is a gap in the line; undefined: nothing is known at that moment, and the line goes on. */
  value: (sample: M) => number | null | undefined;
  /** What stands for null; as for 0 unless given. */
  none?: string | undefined;
};

type Props<M> = {
  title: string;
  class?: string;
  samples: M[];
  range: Range;
  /** When the range ends, s since 1970; with the newest sample unless it is given. */
  end?: number | undefined;
  series: Series<M>[];
  format: (n: number) => string;
  /** Top of the axis at least, so that an idle line does not look busy. */
  least: number;
  /** The most there can be, where there is such a bound. */
  most?: number | undefined;
  /** Whether values are bytes: the axis then steps by powers of two. */
  binary?: boolean | undefined;
};

/** Rows of the table form: the newest, so that it stays readable. */
const tableRows = 30;

/** Where the time of a chart ends, in its name. */
export function rangeWords(range: Range, end: number | undefined): string {
  return end === undefined ? msg`last ${range.words}` : msg`${range.words} until ${time(new Date(end * 1000).toISOString())}`;
}

/** Lines of a range from zero up, with a table form, and their values at the crosshair, or the newest. */
export function Chart<M extends Moment>({ class: name, ...plot }: Props<M>) {
  const { title, samples, range, end, series, format, least, most, binary } = plot;
  const [table, setTable] = useState(false);
  const at = pointed.value;
  const last = (s: Series<M>) => valueText(s, newest(s, samples), format);
  const text = (s: Series<M>) => (at === undefined ? last(s) : valueText(s, samples.find((m) => m.time === at), format));
  return (
    <figure class={`card ${name ?? ""}`}>
      <div class="card-head">
        <h2>{title}</h2>
        <span class="spacer" />
        <Button small kind="quiet" label={msg`${title} as ${table ? msg`chart` : msg`table`}`} onClick={() => setTable(!table)}>
          {table ? msg`Chart` : msg`Table`}
        </Button>
      </div>
      <div class="chart-legend">
        {series.map((s) => (
          <span key={s.label}>
            <span class={`swatch ${s.color}${s.dashed ? " dashed" : ""}`} aria-hidden="true" />
            {s.label} <b class="num">{text(s)}</b>
          </span>
        ))}
      </div>
      {table ? (
        <Numbers {...plot} />
      ) : (
        <Plot
          title={`${title}, ${rangeWords(range, end)}: ${series.map((s) => `${s.label} ${last(s)}`).join(", ")}`}
          data={align(samples, series)}
          lines={series}
          seconds={range.seconds}
          end={end}
          format={format}
          least={least}
          most={most}
          binary={binary}
        />
      )}
    </figure>
  );
}

/** The newest moment at which a series is known: of several that are read one after the other, some end a moment before the last. */
function newest<M extends Moment>(s: Series<M>, samples: M[]): M | undefined {
  const late = samples.at(-2);
  const last = samples.at(-1);
  return last && late && s.value(last) === undefined ? late : last;
}

function valueText<M>(s: Series<M>, sample: M | undefined, format: (n: number) => string): string {
  const value = sample && s.value(sample);
  return value === undefined ? "–" : value === null ? (s.none ?? format(0)) : format(value);
}

function align<M extends Moment>(samples: M[], series: Series<M>[]): uPlot.AlignedData {
  return [samples.map((s) => s.time), ...series.map((line) => samples.map((s) => (s.gap ? null : line.value(s))))] as uPlot.AlignedData;
}

function Numbers<M extends Moment>({ title, samples, range, series, format }: Omit<Props<M>, "class">) {
  return (
    <div class="chart-table" role="region" aria-label={msg`${title} as table`} tabIndex={0}>
      <table class="table">
        <thead>
          <tr>
            <th>{msg`Time`}</th>
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
                <td class="num">{range.seconds > minutesMost ? time(new Date(sample.time * 1000).toISOString()) : moment(sample.time, range.seconds)}</td>
                {series.map((s) => (
                  <td key={s.label} class="right num">
                    {valueText(s, sample, format)}
                  </td>
                ))}
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
