import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import { query, setQuery } from "../router";
import { useQuery, type Query } from "../store/query";
import { layersOf, related, type Facts, type Item, type Layer } from "../topology";
import { Button } from "../parts/Button";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Card, Page } from "../parts/Page";
import { glyphs, Tag } from "../parts/StateTag";
import { msg } from "../text";

/** ms between reads: states change rarely, and the overview tells of trouble at once. */
const everyMs = 10_000;

/** Most of a kind that one answer has. */
const limit = 1000;

/** What the map is made of: six answers, however much there is. */
function useFacts(): Query<Facts> {
  const load = async (): Promise<Facts> => {
    const [sessions, nodes, vpools, backends, osds, alba] = await Promise.all([
      call("GET /iscsi/sessions", { query: { limit } }),
      call("GET /nodes", { query: { limit } }),
      call("GET /vpools", { query: { limit } }),
      call("GET /backends", { query: { limit } }),
      call("GET /osds", { query: { limit } }),
      call("GET /alba"),
    ]);
    return { sessions: sessions.items, nodes: nodes.items, vpools: vpools.items, backends: backends.items, osds: osds.items, alba };
  };
  return useQuery("topology", load, everyMs);
}

/** What stands on what: from initiators down to devices, with what fails when something does. */
export function TopologyPage() {
  const facts = useFacts();
  return (
    <Page title={msg`Topology`}>
      <Load query={facts} lines={8}>
        {(f) => <Layers layers={layersOf(f)} />}
      </Load>
    </Page>
  );
}

function Layers({ layers }: { layers: Layer[] }) {
  const at = query.value.get("at");
  const chosen = layers.flatMap((l) => l.items).find((i) => i.id === at);
  const around = related(layers, chosen?.id ?? "");
  const choose = (i: Item) => setQuery({ at: i.id === at ? undefined : i.id }, { replace: true });
  return (
    <div class="stack-wide">
      <div class="topology-map card">
        <p class="muted small">{msg`Choose a box to see what it needs and what needs it. Sessions are those of the node that answers.`}</p>
        <TopologyMap layers={layers} chosen={chosen} around={around} choose={choose} />
      </div>
      {chosen && <Chosen item={chosen} {...around} choose={choose} />}
      <Card title={msg`As a table`}>
        <Tree layers={layers} chosen={chosen} choose={choose} />
      </Card>
    </div>
  );
}

type Around = { needs: Item[]; neededBy: Item[] };

// Sizes of the map, in its own units; it is scaled to the width of the page.
const box = { width: 168, height: 54 };
const gap = { x: 40, y: 14 };
const head = 28;

/** The first so many letters of a text, and a sign that there are more. */
function cut(text: string, most: number): string {
  return text.length > most ? text.slice(0, most - 1) + "…" : text;
}

function TopologyMap({ layers, chosen, around, choose }: { layers: Layer[]; chosen: Item | undefined; around: Around; choose: (i: Item) => void }) {
  const rows = Math.max(1, ...layers.map((l) => l.items.length));
  const height = head + rows * (box.height + gap.y);
  const width = Math.max(1, layers.length) * (box.width + gap.x) - gap.x;
  const places = new Map<string, { x: number; y: number }>();
  layers.forEach((l, column) => {
    const free = (rows - l.items.length) * (box.height + gap.y);
    l.items.forEach((i, row) => places.set(i.id, { x: column * (box.width + gap.x), y: head + free / 2 + row * (box.height + gap.y) }));
  });
  const near = new Set([...around.needs, ...around.neededBy].map((i) => i.id).concat(chosen?.id ?? ""));
  const lit = (id: string) => !chosen || near.has(id);
  const edges = layers.flatMap((l) => l.items.flatMap((i) => i.needs.map((to) => [i.id, to] as const)));
  return (
    <svg width={width + 4} viewBox={`-2 -2 ${width + 4} ${height + 4}`} role="group" aria-label={msg`Map of what stands on what`}>
      {layers.map((l, column) => (
        <text key={l.key} class="layer" x={column * (box.width + gap.x)} y={14}>
          {l.title}
        </text>
      ))}
      {edges.map(([from, to]) => {
        const a = places.get(from);
        const b = places.get(to);
        if (!a || !b) {
          return null;
        }
        const [x1, y1, x2, y2] = [a.x + box.width, a.y + box.height / 2, b.x, b.y + box.height / 2];
        const middle = (x1 + x2) / 2;
        const name = !chosen ? "edge" : lit(from) && lit(to) ? msg`edge lit` : msg`edge dim`;
        return <path key={`${from} ${to}`} class={name} d={`M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`} />;
      })}
      {layers.flatMap((l) =>
        l.items.map((i) => {
          const p = places.get(i.id) ?? { x: 0, y: 0 };
          return (
            <g
              key={i.id}
              class={["box", i.id === chosen?.id && "chosen", !lit(i.id) && "dim"].filter(Boolean).join(" ")}
              transform={`translate(${p.x} ${p.y})`}
              role="button"
              tabindex={0} // in SVG only this spelling counts
              aria-pressed={i.id === chosen?.id}
              onClick={() => choose(i)}
              onKeyDown={(event) => {
                if (event.key === "Enter" || event.key === " ") {
                  event.preventDefault();
                  choose(i);
                }
              }}
            >
              <title>{`${l.title}: ${i.text}, ${i.amount}, ${i.face.word}`}</title>
              <rect width={box.width} height={box.height} rx={6} />
              <text class="name" x={10} y={18}>
                {cut(i.text, 22)}
              </text>
              <text class="amount" x={10} y={32}>
                {cut(i.amount, 24)}
              </text>
              <text class={`tone-${i.face.tone}`} x={10} y={46}>
                {glyphs[i.face.tone]} {cut(i.face.word, 24)}
              </text>
            </g>
          );
        }),
      )}
    </svg>
  );
}

/** What was chosen, what it needs, and what needs it. */
function Chosen({ item: i, needs, neededBy, choose }: { item: Item; choose: (i: Item) => void } & Around) {
  return (
    <Card
      title={i.text}
      aside={
        <span class="row">
          <Link to={i.to}>{msg`Open its page`}</Link>
          <Button small onClick={() => choose(i)}>
            {msg`Show all`}
          </Button>
        </span>
      }
    >
      <div class="stack">
        <span class="row">
          <Tag {...i.face} /> <span class="muted">{i.amount}</span>
        </span>
        <Names title={msg`It needs`} none={msg`It needs nothing that is shown.`} items={needs} choose={choose} />
        <Names title={msg`Needed by`} none={msg`Nothing that is shown needs it.`} items={neededBy} choose={choose} />
      </div>
    </Card>
  );
}

function Names({ title, none, items, choose }: { title: string; none: string; items: Item[]; choose: (i: Item) => void }) {
  if (items.length === 0) {
    return <p class="muted">{none}</p>;
  }
  return (
    <div class="row" role="group" aria-label={title}>
      <b>{title}</b>
      {items.map((i) => (
        <Button key={i.id} small label={`${i.text}, ${i.face.word}`} onClick={() => choose(i)}>
          {glyphs[i.face.tone]} {i.text}
        </Button>
      ))}
    </div>
  );
}

type Row = { key: string; layer: Layer; item?: Item };

/** The same as a table whose layers open and close; arrow keys go from row to row. */
function Tree({ layers, chosen, choose }: { layers: Layer[]; chosen: Item | undefined; choose: (i: Item) => void }) {
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const [at, setAt] = useState("");
  const body = useRef<HTMLTableSectionElement>(null);
  const toggle = (key: string, close: boolean) => {
    const next = new Set(closed);
    if (close) {
      next.add(key);
    } else {
      next.delete(key);
    }
    setClosed(next);
  };
  const rows: Row[] = layers.flatMap((l) => [{ key: l.key, layer: l }, ...(closed.has(l.key) ? [] : l.items.map((i) => ({ key: i.id, layer: l, item: i })))]);
  const current = rows.some((r) => r.key === at) ? at : rows[0]?.key;
  const names = new Map(layers.flatMap((l) => l.items.map((i) => [i.id, i.text])));
  const go = (key: string | undefined) => {
    if (key !== undefined) {
      setAt(key);
      body.current?.querySelectorAll<HTMLElement>("tr")[rows.findIndex((r) => r.key === key)]?.focus();
    }
  };
  const press = (event: KeyboardEvent, r: Row, n: number) => {
    if (event.target !== event.currentTarget) {
      return; // a link in the row
    }
    const act = {
      ArrowDown: () => go(rows[n + 1]?.key),
      ArrowUp: () => go(rows[n - 1]?.key),
      Home: () => go(rows[0]?.key),
      End: () => go(rows.at(-1)?.key),
      ArrowRight: () => toggle(r.layer.key, false),
      ArrowLeft: () => (r.item ? go(r.layer.key) : toggle(r.layer.key, true)),
      Enter: () => (r.item ? choose(r.item) : toggle(r.layer.key, !closed.has(r.layer.key))),
    }[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  };
  return (
    <div class="table-card" role="region" aria-label={msg`Layers`} tabIndex={0}>
      <table class="table" role="treegrid" aria-label={msg`What stands on what`}>
        <thead>
          <tr role="row">
            <th role="columnheader">{msg`Name`}</th>
            <th role="columnheader">{msg`State`}</th>
            <th role="columnheader">{msg`Amount`}</th>
            <th role="columnheader">{msg`Needs`}</th>
          </tr>
        </thead>
        <tbody ref={body}>
          {rows.map((r, n) => (
            <tr
              key={r.key}
              role="row"
              class={r.item && r.item.id === chosen?.id ? "chosen" : undefined}
              tabIndex={r.key === current ? 0 : -1}
              aria-level={r.item ? 2 : 1}
              aria-expanded={r.item ? undefined : !closed.has(r.key)}
              aria-selected={r.item ? r.item.id === chosen?.id : undefined}
              onFocus={() => setAt(r.key)}
              onClick={(event) => {
                if (!(event.target as Element).closest("a")) {
                  if (r.item) {
                    choose(r.item);
                  } else {
                    toggle(r.key, !closed.has(r.key));
                  }
                }
              }}
              onKeyDown={(event) => press(event, r, n)}
            >
              {r.item ? (
                <>
                  <td role="gridcell" class="tree-item">
                    <Link to={r.item.to}>{r.item.text}</Link>
                  </td>
                  <td role="gridcell">
                    <Tag {...r.item.face} />
                  </td>
                  <td role="gridcell">{r.item.amount}</td>
                  <td role="gridcell" class="wrap">
                    {r.item.needs.map((id) => names.get(id)).join(", ") || "–"}
                  </td>
                </>
              ) : (
                <td role="gridcell" colSpan={4}>
                  <span aria-hidden="true">{closed.has(r.key) ? "▸" : "▾"}</span> <b>{r.layer.title}</b> <span class="muted num">{r.layer.items.length}</span>
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
