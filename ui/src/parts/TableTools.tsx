import { useEffect, useId, useRef, useState } from "preact/hooks";
import { save } from "../api/client";
import { plural } from "../format";
import { csv } from "../store/csv";
import { asApiError } from "../store/query";
import { chooseColumn, compact, ownName, resetColumns, setCompact, shownColumns } from "../store/tables";
import { toast } from "../store/toasts";
import { Anchored } from "./Anchored";
import { Button } from "./Button";
import type { Column } from "./DataTable";
import { CheckField } from "./Field";
import { msg, rich } from "../text";

/** Most rows of a CSV file; who has more narrows the filter, or asks the API. */
const csvRowsMax = 20_000;

/** Rows that are asked for at once, as many as one answer of the node may have. */
const csvPage = 1000;

type Props<T> = {
  /** What the table is called where its columns are remembered, and its file. */
  table: string;
  /** How one row is called. */
  noun: string;
  columns: Column<T>[];
  /** Reads a page of the whole list, with the filter that is set. */
  read: (cursor: string | undefined, limit: number) => Promise<{ items: T[]; next: string | null }>;
};

/** What is done with a table as a whole: its columns, how close its rows are, the list as a file. */
export function TableTools<T>({ table, noun, columns, read }: Props<T>) {
  return (
    <span class="row table-tools">
      <View table={table} columns={columns} />
      <CSVButton table={table} noun={noun} columns={columns} read={read} />
    </span>
  );
}

function View<T>({ table, columns }: { table: string; columns: Column<T>[] }) {
  const panel = useRef<HTMLDivElement>(null);
  const shown = new Set(shownColumns(table, columns).map((c) => c.key));
  const id = useId();
  return (
    <Anchored
      class="btn"
      text={
        <>
          {rich`View ${<span aria-hidden="true">▾</span>}`}
        </>
      }
      label={msg`View of the table`}
      haspopup="dialog"
      panel="view"
      content={panel}
      opened={() => panel.current?.querySelector<HTMLElement>("input")?.focus({ preventScroll: true })}
    >
      {() => (
        <>
          <fieldset>
            <legend>{msg`Rows`}</legend>
            <div class="segments">
              {[false, true].map((close) => (
                <label key={String(close)}>
                  <input class="visually-hidden" type="radio" name={id} checked={compact.value === close} onChange={() => setCompact(close)} />
                  {close ? msg`Compact` : msg`Comfortable`}
                </label>
              ))}
            </div>
          </fieldset>
          <fieldset>
            <legend>{msg`Columns`}</legend>
            <div class="view-columns">
              {columns.slice(1).map((c) => (
                <CheckField key={c.key} name={"column-" + c.key} checked={shown.has(c.key)} onValue={(on) => chooseColumn(table, columns, c.key, on)}>
                  {c.title}
                </CheckField>
              ))}
            </div>
          </fieldset>
          <div class="view-foot">
            <Button small onClick={() => resetColumns(table)}>
              {msg`The usual columns`}
            </Button>
          </div>
        </>
      )}
    </Anchored>
  );
}

/** The list as a file: the columns that are shown, all rows that the filter leaves. */
function CSVButton<T>({ table, noun, columns, read }: Props<T>) {
  const [busy, setBusy] = useState(false);
  const gone = useRef(false);
  useEffect(
    () => () => {
      gone.current = true;
    },
    [],
  );
  const write = async () => {
    setBusy(true);
    try {
      const rows: T[] = [];
      let next: string | null | undefined;
      do {
        const page = await read(next ?? undefined, Math.min(csvPage, csvRowsMax - rows.length));
        rows.push(...page.items);
        next = page.next;
      } while (next && rows.length < csvRowsMax && !gone.current);
      if (gone.current) {
        return; // somebody went elsewhere meanwhile
      }
      const cells = shownColumns(table, columns).flatMap((c) => (typeof c.csv === "function" ? [{ title: c.title, value: c.csv }] : c.csv ? [c.csv] : []));
      const file = `${ownName(table)}.csv`;
      const text = csv([cells.map((c) => c.title), ...rows.map((r) => cells.map((c) => c.value(r)))]);
      save(new Blob([text], { type: "text/csv;charset=utf-8;header=present" }), file);
      if (next) {
        toast("warn", msg`${file} has the first ${plural(rows.length, noun)} of more: narrow the filter for the others`);
      } else {
        toast("ok", msg`${file} has ${plural(rows.length, noun)}`);
      }
    } catch (error) {
      toast("bad", asApiError(error).message);
    }
    setBusy(false);
  };
  return (
    <Button busy={busy} label={msg`The list as a CSV file`} onClick={() => void write()}>
      {msg`CSV`}
    </Button>
  );
}
