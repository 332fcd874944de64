// What the page Performance shows: objects and metrics out of its address, the moments of several objects side by side, and
// those as a file.
import type { Charted, Kind, Range } from "./history";
import { cacheHits, type Sample } from "./metrics";
import type { ApiError } from "../api/client";
import { bytes, count, latency, MiB, rate } from "../format";
import { msg } from "../text";

/** An object as the address has it; of a vPool or a backend, the part of a node. With its id it is found under another name too. */
export type Ref = { kind: Kind; name: string; id?: string | undefined; node?: string | undefined };

/** More lines than these nobody tells apart; there are as many colours. */
export const objectsMax = 8;

export const kindWords: Record<Kind, string> = { vdisk: msg`vDisk`, vpool: msg`vPool`, node: msg`Node`, backend: msg`Backend` };

/** What tells objects of a page apart: "vdisk:db", "vpool:gold@alpha". */
export function refKey({ kind, name, node }: Ref): string {
  return `${kind}:${name}` + (node ? "@" + node : "");
}

/** An object in an address: "vdisk:db~ID", "vpool:gold~ID@alpha"; without an id as refKey. */
function refText({ kind, name, id, node }: Ref): string {
  return `${kind}:${name}` + (id ? "~" + id : "") + (node ? "@" + node : "");
}

/** The objects of a page as its address has them. */
export function refsText(refs: Ref[]): string {
  return refs.map(refText).join(",");
}

/** The objects that an address names; what is none, or one too many, is left out. */
export function refsOf(text: string | null): Ref[] {
  const out: Ref[] = [];
  for (const part of (text ?? "").split(",")) {
    const m = /^(vdisk|vpool|node|backend):([^@:~]+)(?:~([0-9a-f-]+))?(?:@([^@:]+))?$/.exec(part);
    const ref = m && { kind: m[1] as Kind, name: m[2] ?? "", id: m[3], node: m[4] };
    if (ref && out.length < objectsMax && !out.some((r) => refKey(r) === refKey(ref))) {
      out.push(ref);
    }
  }
  return out;
}

/** The address of the page with objects. */
export function performanceAddress(refs: Ref[]): string {
  return "/performance?objects=" + encodeURIComponent(refsText(refs));
}

export type Metric = {
  id: string;
  text: string;
  /** In the file. */
  unit: string;
  format: (n: number) => string;
  least: number;
  binary?: boolean;
  most?: number;
  /** What stands where there is none; as for 0 unless given. */
  none?: string;
  /** The kinds of objects that have it; all of them unless given. */
  of?: Kind[];
  value: (s: Sample) => number | null;
};

/** Zero is "there was none" for a latency: a gap, not a fast answer. */
const some = (us: number): number | null => (us > 0 ? us : null);

const share = (n: number): string => `${Math.round(n)} %`;

const perSecond = { unit: "1/s", format: count, least: 10 };
const bytesPerSecond = { unit: "B/s", format: rate, least: MiB, binary: true };
const times = { unit: "µs", format: latency, least: 1000 };
const percents = { unit: "%", format: share, least: 100, most: 100 };
const nodes: Kind[] = ["node"];
const served: Kind[] = ["vdisk", "vpool", "node"];

export const metrics: Metric[] = [
  { id: "iops", text: msg`IOPS`, ...perSecond, value: (s) => s.performance.readIops + s.performance.writeIops },
  { id: "riops", text: msg`Read IOPS`, ...perSecond, value: (s) => s.performance.readIops },
  { id: "wiops", text: msg`Write IOPS`, ...perSecond, value: (s) => s.performance.writeIops },
  { id: "bytes", text: msg`Throughput`, ...bytesPerSecond, value: (s) => s.performance.readBytesPerSecond + s.performance.writeBytesPerSecond },
  { id: "rbytes", text: msg`Read throughput`, ...bytesPerSecond, value: (s) => s.performance.readBytesPerSecond },
  { id: "wbytes", text: msg`Write throughput`, ...bytesPerSecond, value: (s) => s.performance.writeBytesPerSecond },
  { id: "rp99", text: msg`Read p99`, ...times, value: (s) => some(s.performance.readP99Us) },
  { id: "wp99", text: msg`Write p99`, ...times, value: (s) => some(s.performance.writeP99Us) },
  { id: "rp50", text: msg`Read p50`, ...times, value: (s) => some(s.performance.readP50Us) },
  { id: "wp50", text: msg`Write p50`, ...times, value: (s) => some(s.performance.writeP50Us) },
  { id: "hits", text: msg`Cache hits`, ...percents, none: "–", of: served, value: (s) => cacheHits(s.performance) },
  { id: "journal", text: msg`Journal`, unit: "B", format: bytes, least: MiB, binary: true, of: served, value: (s) => s.journalUsed },
  { id: "stored", text: msg`Stored`, unit: "B", format: bytes, least: MiB, binary: true, of: ["vpool"], value: (s) => s.stored || null },
  { id: "cpu", text: msg`Processors`, ...percents, of: nodes, value: (s) => s.cpu ?? null },
  { id: "memory", text: msg`Memory`, ...percents, of: nodes, value: (s) => s.memory ?? null },
];

/** The heatmap of latencies, which is chosen like a metric. */
export const heatmap = "heatmap";

const usual = ["iops", "bytes", "rp99", "wp99", heatmap];

/** The ids of what is to be shown, in the order of metrics. */
export function metricsOf(text: string | null): string[] {
  const asked = text === null ? usual : text.split(",");
  return [...metrics.map((m) => m.id), heatmap].filter((id) => asked.includes(id));
}

/** The same for an address; undefined is the usual. */
export function metricsText(ids: string[]): string | undefined {
  const text = metricsOf(ids.join(",")).join(",");
  return text === usual.join(",") ? undefined : text || "none";
}

/** How much earlier it is compared with, s, and in words. */
export const dayBefore = 24 * 3600;
export const dayBeforeWords = msg`a day earlier`;

/** What is known of a chosen object. */
export type Feed = {
  ref: Ref;
  /** As it is called now. */
  name: string;
  /** The same; of a part, with the node. */
  label: string;
  /** undefined until it was found. */
  charted: Charted | undefined;
  samples: Sample[];
  /** undefined unless it is asked for. */
  before: Sample[] | undefined;
  /** Of the samples, s; undefined: nothing was answered yet. */
  step: number | undefined;
  /** Whether all that is asked for was answered. */
  whole: boolean;
  error: ApiError | undefined;
};

/** Whether an object is not there, or not any more. */
export function isGone(feed: Feed): boolean {
  return feed.error?.status === 404;
}

/** One line of each chart. */
export type Column = { feed: Feed; color: string; before: boolean; label: string };

/** A moment, with a sample for each column; undefined: it has none then. */
export type Row = { time: number; at: (Sample | undefined)[] };

export function columnsOf(feeds: Feed[]): Column[] {
  return feeds.flatMap((feed, i) => {
    if (isGone(feed)) {
      return [];
    }
    const column = { feed, color: `c${i + 1}`, before: false, label: feed.label };
    return feed.before ? [column, { ...column, before: true, label: `${feed.label}, ${dayBeforeWords}` }] : [column];
  });
}

/** Moments of all columns, oldest first, each in the step that it lies in. */
export function rowsOf(columns: Column[]): Row[] {
  const step = Math.max(1, ...columns.map((c) => c.feed.step ?? 1));
  const rows = new Map<number, Row>();
  columns.forEach(({ feed, before }, i) => {
    for (const sample of (before ? feed.before : feed.samples) ?? []) {
      const time = Math.floor(sample.time / step) * step;
      let row = rows.get(time);
      if (!row) {
        row = { time, at: columns.map(() => undefined) };
        rows.set(time, row);
      }
      row.at[i] = sample;
    }
  });
  return [...rows.values()].sort((a, b) => a.time - b.time);
}

/** What a metric of a column is at a moment; null: a gap; undefined: not known. */
export function valueAt(metric: Metric, i: number): (row: Row) => number | null | undefined {
  return (row) => {
    const sample = row.at[i];
    return sample && (sample.gap ? null : metric.value(sample));
  };
}

export function has(metric: Metric, { feed }: Column): boolean {
  return metric.of?.includes(feed.ref.kind) ?? true;
}

/** Buckets of latencies, each from a time to the next; the first one has shorter ones too. */
export function bucketText(bounds: number[], i: number): string {
  const from = bounds[i] ?? 0;
  const to = bounds[i + 1];
  return to === undefined ? msg`${latency(from)} and more` : from === 0 ? msg`below ${latency(to)}` : msg`${latency(from)} to ${latency(to)}`;
}

/** Numbers without the noise behind the sixth digit. */
function number(n: number | null | undefined): string {
  return n === null || n === undefined ? "" : String(Number(n.toPrecision(6 + Math.max(0, Math.floor(Math.log10(Math.abs(n) || 1))))));
}

/** Rows of metrics as a table: the time, then a column for each metric of each object. */
export function table(columns: Column[], rows: Row[], shown: Metric[]): { header: string[]; lines: string[][] } {
  const fields = shown.flatMap((metric) =>
    columns.flatMap((column, i) => (has(metric, column) ? [{ title: `${column.feed.ref.kind} ${column.label}: ${metric.text} (${metric.unit})`, value: valueAt(metric, i) }] : [])),
  );
  return {
    header: [msg`Time (UTC)`, ...fields.map((f) => f.title)],
    lines: rows.map((row) => [new Date(row.time * 1000).toISOString(), ...fields.map((f) => number(f.value(row)))]),
  };
}

/** The name of a range's button where the time is fixed. */
export function rangeText(range: Range, fixed: boolean): string {
  return fixed && range.id === "live" ? msg`2 min` : range.text;
}
