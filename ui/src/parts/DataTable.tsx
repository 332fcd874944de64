import { useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { query, setQuery } from "../router";
import type { Cell } from "../store/csv";
import { peekAt } from "../store/peek";
import { pending } from "../store/pending";
import { compact, shownColumns } from "../store/tables";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { glyphs } from "./StateTag";
import { msg } from "../text";

export type Column<T> = {
  key: string;
  title: string;
  /** The field the node sorts by; without it the column does not sort. */
  sort?: string;
  right?: boolean;
  wrap?: boolean;
  cell: (row: T) => ComponentChildren;
  /** It is shown only where it was chosen. */
  optional?: boolean;
  /** What a CSV file has of it, under its own title or another one with the unit; without it, nothing. */
  csv?: ((row: T) => Cell) | { title: string; value: (row: T) => Cell };
};

type Props<T> = {
  label: string;
  columns: Column<T>[];
  /** The name under which the columns of the table are chosen (store/tables.ts); without it all are shown. */
  table?: string;
  rows: T[];
  rowKey: (row: T) => string;
  /** The present order, such as "name" or "-size". */
  order?: string;
  /** Cursor of the page after this one, null on the last; without it the table is not paged. */
  next?: string | null;
  /** Parameter of the address that holds the cursor; two tables of a page need two. */
  cursor?: string;
  /** Rows can be chosen: the keys of those that are, and how one is called. */
  choice?: Choice<T>;
  /** Rows can be looked at beside the list: the id that the address has of one, and how it is called. */
  peek?: { id: (row: T) => string; name: (row: T) => string };
};

export type Choice<T> = { chosen: ReadonlySet<string>; choose: (keys: ReadonlySet<string>) => void; name: (row: T) => string };

/** A table of one page of a list; sorting and paging live in the address and are done by the node. */
export function DataTable<T>({ label, columns: all, table, rows, rowKey, order, next, cursor = "cursor", choice, peek }: Props<T>) {
  const columns = table ? shownColumns(table, all) : all;
  const shown = peek && query.value.get("peek");
  return (
    <>
      <div class="table-card" role="region" aria-label={label} tabIndex={0}>
        <table class={compact.value ? "table compact" : "table"}>
          <thead>
            <tr>
              {choice && (
                <th class="choice">
                  <ChooseAll keys={rows.map(rowKey)} {...choice} />
                </th>
              )}
              {peek && (
                <th class="look">
                  <span class="visually-hidden">{msg`Look at it`}</span>
                </th>
              )}
              {columns.map((c) => (
                <Head key={c.key} column={c} order={order} />
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={rowKey(row)} data-peek={peek?.id(row)} class={rowClass(peek !== undefined && shown === peek.id(row), pending.value.has(rowKey(row)))} aria-busy={pending.value.has(rowKey(row)) || undefined}>
                {choice && (
                  <td class="choice">
                    <input
                      type="checkbox"
                      aria-label={msg`Choose ${choice.name(row)}`}
                      checked={choice.chosen.has(rowKey(row))}
                      onChange={() => choice.choose(toggled(choice.chosen, rowKey(row)))}
                    />
                  </td>
                )}
                {peek && (
                  <td class="look">
                    <Button kind="quiet" small icon label={msg`Look at ${peek.name(row)}`} onClick={() => peekAt(peek.id(row))}>
                      <Icon name="look" />
                    </Button>
                  </td>
                )}
                {columns.map((c, i) => (
                  <td key={c.key} class={cellClass(c)}>
                    {i === 0 && pending.value.has(rowKey(row)) && <Pending />}
                    {c.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {next !== undefined && <Pager next={next} cursor={cursor} />}
    </>
  );
}

const none: ReadonlySet<string> = new Set();

/** What is chosen of a table. Only what is seen is: another filter or page, which seen says, begins anew. */
export function useChoice(seen: string): [ReadonlySet<string>, (keys: ReadonlySet<string>) => void] {
  const [choice, setChoice] = useState({ seen, keys: none });
  return [choice.seen === seen ? choice.keys : none, (keys) => setChoice({ seen, keys })];
}

function toggled(chosen: ReadonlySet<string>, key: string): ReadonlySet<string> {
  const next = new Set(chosen);
  if (!next.delete(key)) {
    next.add(key);
  }
  return next;
}

/** Chooses the rows that are shown, and never one that is not. */
function ChooseAll({ keys, chosen, choose }: { keys: string[]; chosen: ReadonlySet<string>; choose: (keys: ReadonlySet<string>) => void }) {
  const all = keys.length > 0 && keys.every((k) => chosen.has(k));
  return (
    <input
      type="checkbox"
      aria-label={msg`Choose all rows shown`}
      checked={all}
      indeterminate={!all && keys.some((k) => chosen.has(k))}
      onChange={() => choose(all ? new Set() : new Set(keys))}
    />
  );
}

function rowClass(chosen: boolean, busy: boolean): string | undefined {
  return [chosen && "chosen", busy && "pending"].filter(Boolean).join(" ") || undefined;
}

/** Something is being done to a row. */
function Pending() {
  return (
    <span class="glyph tone-info" title={msg`Being changed`}>
      <span aria-hidden="true">{glyphs.info} </span>
      <span class="visually-hidden">{msg`Being changed:`}{" "}</span>
    </span>
  );
}

function cellClass<T>(c: Column<T>): string | undefined {
  return c.right ? msg`right num` : c.wrap ? "wrap" : undefined;
}

function Head<T>({ column, order }: { column: Column<T>; order: string | undefined }) {
  if (!column.sort) {
    return <th class={column.right ? "right" : undefined}>{column.title}</th>;
  }
  const up = order === column.sort;
  const down = order === "-" + column.sort;
  return (
    <th class={column.right ? "right" : undefined} aria-sort={up ? "ascending" : down ? "descending" : "none"}>
      <button
        type="button"
        class="sort"
        onClick={() => setQuery({ sort: (up ? "-" : "") + column.sort, cursor: undefined }, { replace: true })}
      >
        {column.title}
        {(up || down) && <span aria-hidden="true">{up ? "↑" : "↓"}</span>}
      </button>
    </th>
  );
}

function Pager({ next, cursor }: { next: string | null; cursor: string }) {
  const inside = query.value.has(cursor);
  if (!next && !inside) {
    return null;
  }
  return (
    <div class="pager">
      <Button small reason={inside ? undefined : msg`This is the first page`} onClick={() => history.back()}>
        {msg`Back`}
      </Button>
      <Button
        small
        reason={next ? undefined : msg`This is the last page`}
        onClick={() => setQuery({ [cursor]: next ?? undefined })}
      >
        {msg`Next`}
      </Button>
    </div>
  );
}
