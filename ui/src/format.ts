// Numbers as people read them. Sizes are binary (KiB, MiB, ...), always with their unit.

import { counted, msg } from "./text";

export const KiB = 1024;
export const MiB = 1024 ** 2;
export const GiB = 1024 ** 3;
export const TiB = 1024 ** 4;

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Bytes with three significant digits: "1.5 GiB", "512 MiB", "0 B". */
export function bytes(n: number): string {
  let unit = 0;
  while (Math.abs(n) >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${short(n, unit > 0)} ${units[unit]}`;
}

function short(n: number, fraction: boolean): string {
  if (!fraction || Number.isInteger(n)) {
    return String(Math.round(n));
  }
  return n < 10 ? n.toFixed(2).replace(/0$/, "") : n < 100 ? n.toFixed(1) : n.toFixed(0);
}

/** Bytes per second: "12.5 MiB/s". */
export function rate(n: number): string {
  return bytes(n) + "/s";
}

/** A count: "950", "12.4k", "3.1M". */
export function count(n: number): string {
  if (n >= 1e6) {
    return (n / 1e6).toFixed(1) + "M";
  }
  if (n >= 1e4) {
    return (n / 1e3).toFixed(1) + "k";
  }
  return n > 0 && n < 10 && !Number.isInteger(n) ? n.toFixed(1) : String(Math.round(n));
}

/** A latency out of microseconds: "85 µs", "1.24 ms", "2.1 s"; a dash when there was none. */
export function latency(us: number | null): string {
  if (!us) {
    return "–";
  }
  if (us < 1000) {
    return `${Math.round(us)} µs`;
  }
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

/** A share as a whole percentage; small and not zero is "< 1 %". */
export function percent(part: number, whole: number): string {
  if (whole <= 0) {
    return "–";
  }
  const p = (100 * part) / whole;
  return p > 0 && p < 1 ? "< 1 %" : `${Math.round(p)} %`;
}

/** How long ago: "just now", "12 s ago", "3 min ago", "5 h ago", "8 d ago". */
export function ago(then: number, now: number): string {
  const text = duration(now - then);
  return text === duration(0) ? msg`just now` : msg`${text} ago`;
}

/** A duration in ms in its largest whole unit. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 90) {
    return msg`${s} s`;
  }
  if (s < 90 * 60) {
    return msg`${Math.floor(s / 60)} min`;
  }
  return s < 48 * 3600 ? msg`${Math.floor(s / 3600)} h` : msg`${Math.floor(s / 86400)} d`;
}

const intervals: [ms: number, unit: string][] = [
  [86_400_000, msg`d`],
  [3_600_000, msg`h`],
  [60_000, msg`min`],
  [1000, msg`s`],
];

/** A setting in ms, in the largest unit that it is a multiple of: "100 ms", "10 s", "3 min", "30 d". */
export function interval(ms: number): string {
  const [unit, name] = intervals.find(([length]) => ms >= length && ms % length === 0) ?? [1, "ms"];
  return `${ms / unit} ${name}`;
}

/** Date and time in the reader's zone and the ISO order. */
export function time(iso: string): string {
  const d = new Date(iso);
  const pad = (n: number) => String(n).padStart(2, "0");
  const date = `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  return `${date} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

/** The node's words as the start of a sentence. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "1 vDisk", "2 vDisks"; of a noun`vDisk`. */
export function plural(n: number, noun: string): string {
  return `${n} ${counted(n, noun)}`;
}
