// Charts with a choice of their time: a script of its own, loaded when a page with charts is opened first.
import { query, setQuery } from "../router";
import { live, ranges, useHistory, type Charted } from "../store/history";
import { performanceAddress } from "../store/compare";
import { Link } from "./Link";
import { ErrorPanel } from "./Notice";
import { OneOf } from "./OneOf";
import { PerformanceCharts } from "./PerformanceCharts";
import { msg } from "../text";

/** The charts of an object; the address says of which time. */
export function History({ name, ...of }: Charted & { name: string }) {
  const range = ranges.find((r) => r.id === query.value.get("range")) ?? live;
  const { samples, error } = useHistory(of, range);
  return (
    <>
      <div class="span-12 ranges" role="group" aria-label={msg`Time that the charts show`}>
        <OneOf options={ranges} chosen={range} onChoose={(r) => setQuery({ range: r === live ? undefined : r.id }, { replace: true })} />
        <span class="spacer" />
        <Link to={performanceAddress([{ kind: of.kind, name, id: of.id }]) + (range === live ? "" : "&range=" + range.id)}>{msg`Compare…`}</Link>
      </div>
      {error && (
        <div class="span-12">
          <ErrorPanel error={error} />
        </div>
      )}
      <PerformanceCharts kind={of.kind} samples={samples} range={range} />
    </>
  );
}
