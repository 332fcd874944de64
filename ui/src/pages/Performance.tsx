// Several objects side by side over time: a script of its own, loaded when the page is opened first.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { save } from "../api/client";
import { time } from "../format";
import { query, setQuery } from "../router";
import { csv } from "../store/csv";
import { live, now, ranges, type Range } from "../store/history";
import { useStatus } from "../store/reads";
import { Button } from "../parts/Button";
import { Chart } from "../parts/Chart";
import { CopyBlock } from "../parts/CopyBlock";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Link } from "../parts/Link";
import { ErrorPanel, Notice, Skeleton } from "../parts/Notice";
import { objectAddress } from "../parts/ObjectLink";
import { OneOf } from "../parts/OneOf";
import { Empty, Page } from "../parts/Page";
import {
  columnsOf,
  dayBeforeWords,
  has,
  heatmap,
  isGone,
  kindWords,
  metrics,
  metricsOf,
  metricsText,
  objectsMax,
  rangeText,
  refsOf,
  refKey,
  refsText,
  rowsOf,
  table,
  valueAt,
  type Column,
  type Feed,
  type Metric,
  type Ref,
  type Row,
} from "../store/compare";
import { adopt } from "./PerformanceSheet";
import { Heatmap, heatFields, sideWords, useHeat, type Side } from "./PerformanceHeatmap";
import { AddObject, Source, useObjects } from "./PerformanceObjects";
import { msg, rich } from "../text";

/** What the address says. */
function asked() {
  const get = (name: string) => query.value.get(name);
  const until = Date.parse(get("until") ?? "") / 1000;
  return {
    refs: refsOf(get("objects")),
    shown: metricsOf(get("metrics")),
    range: ranges.find((r) => r.id === get("range")) ?? live,
    until: Number.isFinite(until) ? until : undefined,
    compare: get("compare") === "day",
    side: (Object.keys(sideWords) as Side[]).find((s) => s === get("side")) ?? "all",
    heat: get("heat"),
  };
}

const iso = (at: number): string => new Date(at * 1000).toISOString().replace(/\.\d+Z$/, "Z");

function setRefs(refs: Ref[]): void {
  setQuery({ objects: refsText(refs) });
}

/** Objects and metrics that somebody chooses, over a time, with a shared crosshair. */
export function PerformancePage() {
  adopt();
  const { refs, shown, range, until, compare, side, heat } = asked();
  const [known, setKnown] = useState<ReadonlyMap<string, Feed>>(new Map());
  const [adding, setAdding] = useState(false);
  const onFeed = (key: string, feed: Feed | undefined) =>
    setKnown((old) => {
      const next = new Map(old);
      if (feed) {
        next.set(key, feed);
      } else {
        next.delete(key);
      }
      return next;
    });
  const feeds = refs.map((ref): Feed => known.get(refKey(ref)) ?? { ref, name: ref.name, label: ref.name, charted: undefined, samples: [], before: compare ? [] : undefined, step: undefined, whole: false, error: undefined });
  const columns = columnsOf(feeds);
  const rows = rowsOf(columns);
  const drawn = metrics.filter((m) => shown.includes(m.id) && columns.some((c) => has(m, c)));
  const there = feeds.filter((f) => !isGone(f));
  const heated = shown.includes(heatmap) ? (there.find((f) => refKey(f.ref) === heat) ?? there[0]) : undefined;
  const past = useHeat(heated, range, until);
  const reading = feeds.some((f) => !f.whole && !f.error) || (heated !== undefined && past.step === undefined && !past.error && !heated.error);
  const toFile = () => {
    const { header, lines } = table(columns, rows, drawn);
    const more = heated ? heatFields(past, side, heated) : [];
    const text = csv([
      [...header, ...more.map((f) => f.title)],
      ...lines.map((line, i) => [...line, ...more.map((f) => f.value(rows[i]?.time ?? 0))]),
    ]);
    save(new Blob([text], { type: "text/csv" }), `ovgate-performance-${iso(until ?? now()).replace(/:/g, "")}.csv`);
  };
  const full = refs.length >= objectsMax ? msg`${objectsMax} objects are shown: take one away first` : undefined;
  useEffect(() => {
    // With the ids, an address that is kept leads to the same objects when they are called otherwise.
    const named = refs.map((ref) => ({ ...ref, id: ref.id ?? known.get(refKey(ref))?.charted?.id }));
    if (named.some((ref, i) => ref.id !== refs[i]?.id)) {
      setQuery({ objects: refsText(named) }, { replace: true });
    }
  }, [known]);
  return (
    <Page
      title={msg`Performance`}
      actions={
        <>
          <Button kind="primary" reason={full} onClick={() => setAdding(true)}>
            {msg`Add object`}
          </Button>
          <ShareButton refs={refs} until={until ?? rows.at(-1)?.time} />
          <Button reason={reading ? msg`It is still being read` : rows.length === 0 ? msg`There is nothing to save yet` : undefined} onClick={toFile}>
            {msg`Save as CSV`}
          </Button>
        </>
      }
    >
      {refs.map((ref) => (
        <Source key={refKey(ref)} of={ref} range={range} until={until} compare={compare} onFeed={onFeed} />
      ))}
      {adding && <AddObject chosen={refs} onChoose={(ref) => setRefs([...refs, ref])} onClose={() => setAdding(false)} />}
      <div class="perf stack-wide">
        {refs.length === 0 ? (
          <Suggestions onAdd={() => setAdding(true)} />
        ) : (
          <>
            <Chosen feeds={feeds} refs={refs} />
            <Controls range={range} until={until} compare={compare} shown={shown} offered={metrics.filter((m) => columns.some((c) => has(m, c)))} />
            <Troubles feeds={feeds} refs={refs} />
            <Charts drawn={drawn} columns={columns} rows={rows} range={range} end={until} loading={feeds.every((f) => f.step === undefined && !f.error)}>
              {heated && <Heatmap feeds={there} feed={heated} side={side} past={past} range={range} end={until} />}
            </Charts>
          </>
        )}
      </div>
    </Page>
  );
}

type ChartsProps = { drawn: Metric[]; columns: Column[]; rows: Row[]; range: Range; end: number | undefined; loading: boolean; children: ComponentChildren };

function Charts({ drawn, columns, rows, range, end, loading, children }: ChartsProps) {
  if (loading) {
    return <Skeleton lines={8} />;
  }
  return (
    <div class="grid">
      {drawn.map((m) => (
        <Chart
          key={m.id}
          title={m.text}
          class="span-12"
          samples={rows}
          range={range}
          end={end}
          format={m.format}
          least={m.least}
          most={m.most}
          binary={m.binary}
          series={columns.flatMap((c, i) => (has(m, c) ? [{ label: c.label, color: c.color, dashed: c.before, none: m.none, value: valueAt(m, i) }] : []))}
        />
      ))}
      {children}
      {drawn.length === 0 && !children && <p class="span-12 muted">{msg`No metric is chosen that these objects have: choose some above.`}</p>}
    </div>
  );
}

/** The objects shown, with the colour of their lines, and a way to take each away. */
function Chosen({ feeds, refs }: { feeds: Feed[]; refs: Ref[] }) {
  return (
    <ul class="chosen" aria-label={msg`Objects shown`}>
      {feeds.map((f, i) => {
        const to = objectAddress(`${f.ref.kind} ${f.name}`);
        return (
          <li key={refKey(f.ref)}>
            <span class={`swatch c${i + 1}`} aria-hidden="true" />
            <span class="muted small">{kindWords[f.ref.kind]}</span>
            {to ? <Link to={to}>{f.label}</Link> : f.label}
            <Button small icon kind="quiet" label={msg`Take ${f.label} away`} onClick={() => setRefs(refs.filter((r) => r !== f.ref && refKey(r) !== refKey(f.ref)))}>
              <Icon name="close" />
            </Button>
          </li>
        );
      })}
    </ul>
  );
}

/** What cannot be shown, and why. */
function Troubles({ feeds, refs }: { feeds: Feed[]; refs: Ref[] }) {
  return (
    <>
      {feeds.map((f) => {
        const key = refKey(f.ref);
        if (isGone(f)) {
          return (
            <Notice key={key} tone="warn">
              <span>
                {rich`${kindWords[f.ref.kind]} ${f.label} is not there: it was deleted, or renamed since that was asked for, or keeps no history.`}
              </span>
              <span class="row">
                <Button small onClick={() => setRefs(refs.filter((r) => refKey(r) !== key))}>
                  {msg`Take it away`}
                </Button>
              </span>
            </Notice>
          );
        }
        if (f.error?.code === "elsewhere") {
          return (
            <Notice key={key} tone="warn">
              <span>
                {rich`${<b>{`${kindWords[f.ref.kind]} ${f.label}.`}</b>} ${f.error.message}. What was read before stays; it is tried again by itself.`}
              </span>
            </Notice>
          );
        }
        return f.error && <ErrorPanel key={key} error={f.error} />;
      })}
    </>
  );
}

type ControlsProps = { range: Range; until: number | undefined; compare: boolean; shown: string[]; offered: Metric[] };

function Controls({ range, until, compare, shown, offered }: ControlsProps) {
  const fixed = until !== undefined;
  const go = (end: number) => setQuery({ until: end >= now() ? undefined : iso(end) }, { replace: true });
  const pressed = (id: string) => shown.includes(id);
  const toggle = (id: string) => setQuery({ metrics: metricsText(pressed(id) ? shown.filter((s) => s !== id) : [...shown, id]) }, { replace: true });
  return (
    <div class="stack">
      <div class="bar">
        <div class="ranges" role="group" aria-label={msg`Time that the charts show`}>
          <OneOf options={ranges} chosen={range} textOf={(r) => rangeText(r, fixed)} onChoose={(r) => setQuery({ range: r === live ? undefined : r.id }, { replace: true })} />
        </div>
        <div class="row" role="group" aria-label={msg`When that time ends`}>
          <Button small onClick={() => go(Math.floor((until ?? now()) - range.seconds / 2))}>
            {msg`Earlier`}
          </Button>
          <Button small reason={fixed ? undefined : msg`It ends now`} onClick={() => go(Math.floor((until ?? now()) + range.seconds / 2))}>
            {msg`Later`}
          </Button>
          {fixed && (
            <>
              <span class="muted small num">{rich`until ${time(iso(until))}`}</span>
              <Button small onClick={() => setQuery({ until: undefined }, { replace: true })}>
                {msg`Now`}
              </Button>
            </>
          )}
        </div>
        <button type="button" class="btn small" aria-pressed={compare} onClick={() => setQuery({ compare: compare ? undefined : "day" }, { replace: true })}>
          {rich`Compare with ${dayBeforeWords}`}
        </button>
      </div>
      <div class="metrics" role="group" aria-label={msg`Metrics shown`}>
        {[...offered, { id: heatmap, text: msg`Latency heatmap` }].map((m) => (
          <button key={m.id} type="button" class="btn small" aria-pressed={pressed(m.id)} onClick={() => toggle(m.id)}>
            {m.text}
          </button>
        ))}
      </div>
    </div>
  );
}

/** A link to what is shown, until a time; what comes later would be missing now and there afterwards. */
function ShareButton({ refs, until }: { refs: Ref[]; until: number | undefined }) {
  const [link, setLink] = useState<string | undefined>(undefined);
  const make = () => {
    const address = new URL(location.href);
    address.searchParams.set("until", iso(Math.floor(until ?? now())));
    setLink(address.href);
  };
  return (
    <>
      <Button reason={refs.length === 0 ? msg`Choose an object first` : undefined} onClick={make}>
        {msg`Share`}
      </Button>
      {link && (
        <Dialog title={msg`Share what is shown`} onClose={() => setLink(undefined)}>
          <div class="stack">
            <p>{msg`Whoever may sign in sees the same objects, metrics and time, for as long as the nodes keep that history.`}</p>
            <CopyBlock label={msg`Link`} name="link" text={link} />
          </div>
          <DoneFoot onClose={() => setLink(undefined)} />
        </Dialog>
      )}
    </>
  );
}

/** What stands there while nothing is chosen. */
function Suggestions({ onAdd }: { onAdd: () => void }) {
  const node = useStatus().data?.node.name;
  const { groups } = useObjects("");
  const of = (kind: Ref["kind"], most: number) => groups.find((g) => g.kind === kind)?.refs.slice(0, most) ?? [];
  const vdisks = of("vdisk", 4);
  const choices: [string, Ref[]][] = [
    ...(node ? [[msg`Node ${node}`, [{ kind: "node", name: node }]] satisfies [string, Ref[]]] : []),
    ...(vdisks.length > 1 ? [[msg`The ${vdisks.length} busiest vDisks`, vdisks] satisfies [string, Ref[]]] : vdisks.map((v): [string, Ref[]] => [msg`vDisk ${v.name}`, [v]])),
    ...of("vpool", 2).map((p): [string, Ref[]] => [msg`vPool ${p.name}${p.node ? msg` at ` + p.node : ""}`, [p]]),
  ];
  return (
    <Empty
      title={msg`Nothing chosen yet`}
      text={msg`Choose up to ${objectsMax} vDisks, vPools, nodes or backends to see what they did, side by side.`}
      command="ovgate vdisk performance NAME --since 24h"
    >
      <Button kind="primary" onClick={onAdd}>
        {msg`Add object`}
      </Button>
      {choices.map(([text, refs]) => (
        <Button key={text} onClick={() => setRefs(refs)}>
          {text}
        </Button>
      ))}
    </Empty>
  );
}
