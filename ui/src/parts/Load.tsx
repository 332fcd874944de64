import type { ComponentChildren } from "preact";
import type { Status } from "../api/gen";
import { now } from "../store/clock";
import { answered, type Query } from "../store/query";
import { Age } from "./Age";
import { ErrorPanel, Notice, Skeleton } from "./Notice";
import { Button } from "./Button";
import { msg, rich } from "../text";

/** Wait for an answer before it is said that what is shown is an older one. */
const slowMs = 5000;

type Props<T> = { query: Query<T>; lines?: number; children: (data: T) => ComponentChildren };

/** Shows what a query has: its data; old data greyed with its age beside the error; or a place holder. */
export function Load<T>({ query, lines, children }: Props<T>) {
  if (query.data === undefined) {
    return query.error ? <ErrorPanel error={query.error} retry={query.reload} /> : <Skeleton lines={lines} />;
  }
  if (!query.error) {
    return (
      <>
        {query.loading && query.since > 0 && now.value - query.since > slowMs && <Slow at={query.at} />}
        {children(query.data)}
      </>
    );
  }
  return (
    <div class="stack">
      <Notice tone="warn" alert>
        <span>
          {rich`Showing what the node said ${<Age at={query.at} />}. ${query.error.message}.`}
        </span>
        <span class="muted small">{[query.error.code, query.error.requestId].filter(Boolean).join(" · ")}</span>
        <span class="row">
          <Button small onClick={query.reload}>
            {msg`Try again`}
          </Button>
        </span>
      </Notice>
      <div class="stale">{children(query.data)}</div>
    </div>
  );
}

/** The node takes long to answer; what it said before stays. */
function Slow({ at }: { at: number }) {
  const node = answered<Status>("status")?.node.name;
  return (
    <div class="slow" role="status">
      <Notice tone="warn" waiting>
        <span>
          {rich`${node ?? msg`The node`} is not answering, showing data from ${<Age at={at} />}.`}
        </span>
      </Notice>
    </div>
  );
}
