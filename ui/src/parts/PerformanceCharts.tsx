import { bytes, count, latency, MiB, rate } from "../format";
import { live, type Kind, type Range } from "../store/history";
import { cacheHits, type Sample } from "../store/metrics";
import { Chart } from "./Chart";
import { msg } from "../text";

/** Zero is "there was none" for a latency: a gap, not a fast answer. */
const some = (us: number): number | null => (us > 0 ? us : null);

const share = (n: number): string => `${Math.round(n)} %`;

/** The charts of a node, a vPool or a vDisk. */
export function PerformanceCharts({ kind, samples, range }: { kind: Kind; samples: Sample[]; range: Range }) {
  const beside = (kind === "vpool" || kind === "node") && range !== live; // what stands beside the journal
  return (
    <>
      <Chart
        title={msg`IOPS`}
        class="span-6"
        samples={samples}
        range={range}
        format={count}
        least={10}
        series={[
          { label: msg`Read`, color: "c1", value: (s) => s.performance.readIops },
          { label: msg`Write`, color: "c2", value: (s) => s.performance.writeIops },
        ]}
      />
      <Chart
        title={msg`Throughput`}
        class="span-6"
        samples={samples}
        range={range}
        format={rate}
        least={MiB}
        binary
        series={[
          { label: msg`Read`, color: "c1", value: (s) => s.performance.readBytesPerSecond },
          { label: msg`Write`, color: "c2", value: (s) => s.performance.writeBytesPerSecond },
        ]}
      />
      <Chart
        title={msg`Latency`}
        class="span-6"
        samples={samples}
        range={range}
        format={latency}
        least={1000}
        series={[
          { label: msg`Read p99`, color: "c1", value: (s) => some(s.performance.readP99Us) },
          { label: msg`Write p99`, color: "c2", value: (s) => some(s.performance.writeP99Us) },
          { label: msg`Read p50`, color: "c4", dashed: true, value: (s) => some(s.performance.readP50Us) },
          { label: msg`Write p50`, color: "c3", dashed: true, value: (s) => some(s.performance.writeP50Us) },
        ]}
      />
      <Chart
        title={msg`Cache hits`}
        class="span-6"
        samples={samples}
        range={range}
        format={share}
        least={100}
        most={100}
        series={[{ label: msg`Reads`, color: "c1", none: "–", value: (s) => cacheHits(s.performance) }]}
      />
      <Chart
        title={msg`Journal, not yet on the backend`}
        class={beside ? "span-6" : "span-12"}
        samples={samples}
        range={range}
        format={bytes}
        least={MiB}
        binary
        series={[{ label: msg`Used`, color: "c3", value: (s) => s.journalUsed }]}
      />
      {beside && kind === "vpool" && (
        <Chart
          title={msg`Stored on the backend`}
          class="span-6"
          samples={samples}
          range={range}
          format={bytes}
          least={MiB}
          binary
          series={[{ label: msg`Stored`, color: "c4", value: (s) => s.stored || null }]}
        />
      )}
      {beside && kind === "node" && (
        <Chart
          title={msg`Machine`}
          class="span-6"
          samples={samples}
          range={range}
          format={share}
          least={100}
          most={100}
          series={[
            { label: msg`Processors`, color: "c1", value: (s) => s.cpu ?? null },
            { label: msg`Memory`, color: "c4", value: (s) => s.memory ?? null },
          ]}
        />
      )}
    </>
  );
}
