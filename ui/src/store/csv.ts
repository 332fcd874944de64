// Tables as CSV (RFC 4180).

export type Cell = string | number | null | undefined;

/** What a spreadsheet takes for a formula when a cell begins with it. */
const formula = /^[=+\-@\t\r]/;

/** Rows as CSV, with CRLF after each. A text that a spreadsheet would calculate is preceded by an apostrophe. */
export function csv(rows: Cell[][]): string {
  return rows.map((r) => r.map(cell).join(",") + "\r\n").join("");
}

function cell(value: Cell): string {
  const text = typeof value === "string" && formula.test(value) ? "'" + value : String(value ?? "");
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
