// How tables are shown: which columns, which are in the address and remembered for each table, and how close their rows are.
import { signal } from "@preact/signals";
import { query, setQuery } from "../router";

const columnsPlace = "ovgate.columns.";
const densityPlace = "ovgate.density";

/** Whether rows are close; remembered in this browser. */
export const compact = signal(localStorage.getItem(densityPlace) === "compact");

export function setCompact(on: boolean): void {
  compact.value = on;
  localStorage.setItem(densityPlace, on ? "compact" : "comfortable");
}

/** How often the columns of a table were chosen: pages follow it, since the address may stay the same. */
const changes = signal(0);

/** What the choice of columns has to know of one. */
type Column = { key: string; optional?: boolean };

/** What a table is called without the page, which stands before a dot where it is not the only table there. */
export function ownName(table: string): string {
  return table.slice(table.indexOf(".") + 1);
}

/** The parameter of the address that has the columns of a table. */
function parameter(table: string): string {
  return table.includes(".") ? "cols-" + ownName(table) : "cols";
}

/** The columns that are shown of a table: those of the address, those remembered, or the usual ones. The first is always there. */
export function shownColumns<C extends Column>(table: string, all: C[]): C[] {
  void changes.value;
  const text = query.value.get(parameter(table)) ?? localStorage.getItem(columnsPlace + table);
  const keys = text?.split(",");
  return all.filter((c, i) => i === 0 || (keys ? keys.includes(c.key) : !c.optional));
}

/** Shows or hides a column, in the address and from now on. */
export function chooseColumn<C extends Column>(table: string, all: C[], key: string, on: boolean): void {
  const shown = shownColumns(table, all).map((c) => c.key);
  const next = all.map((c) => c.key).filter((k) => (k === key ? on : shown.includes(k)));
  const usual = all.filter((c) => !c.optional).map((c) => c.key);
  keep(table, next.join() === usual.join() ? undefined : next.join());
}

/** The usual columns again. */
export function resetColumns(table: string): void {
  keep(table, undefined);
}

function keep(table: string, keys: string | undefined): void {
  if (keys) {
    localStorage.setItem(columnsPlace + table, keys);
  } else {
    localStorage.removeItem(columnsPlace + table);
  }
  setQuery({ [parameter(table)]: keys }, { replace: true });
  changes.value++;
}
