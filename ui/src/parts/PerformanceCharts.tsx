import { bytes, count, latency, MiB, rate } from "../format";
import type { Sample } from "../store/metrics";
import { Chart } from "./Chart";

/** Zero is "there was none" for a latency: a gap, not a fast answer. */
const some = (us: number): number | null => (us > 0 ? us : null);

/** The four charts of a node or a vDisk. */
export function PerformanceCharts({ samples }: { samples: Sample[] }) {
  return (
    <>
      <Chart
        title="IOPS"
        class="span-6"
        samples={samples}
        format={count}
        least={10}
        series={[
          { label: "Read", color: "c1", value: (s) => s.performance.readIops },
          { label: "Write", color: "c2", value: (s) => s.performance.writeIops },
        ]}
      />
      <Chart
        title="Throughput"
        class="span-6"
        samples={samples}
        format={rate}
        least={MiB}
        binary
        series={[
          { label: "Read", color: "c1", value: (s) => s.performance.readBytesPerSecond },
          { label: "Write", color: "c2", value: (s) => s.performance.writeBytesPerSecond },
        ]}
      />
      <Chart
        title="Latency"
        class="span-6"
        samples={samples}
        format={latency}
        least={1000}
        series={[
          { label: "Read p99", color: "c1", value: (s) => some(s.performance.readP99Us) },
          { label: "Write p99", color: "c2", value: (s) => some(s.performance.writeP99Us) },
          { label: "Read p50", color: "c4", dashed: true, value: (s) => some(s.performance.readP50Us) },
          { label: "Write p50", color: "c3", dashed: true, value: (s) => some(s.performance.writeP50Us) },
        ]}
      />
      <Chart
        title="Journal, not yet on the backend"
        class="span-6"
        samples={samples}
        format={bytes}
        least={MiB}
        binary
        series={[{ label: "Used", color: "c3", value: (s) => s.journalUsed }]}
      />
    </>
  );
}
