// What of a list is looked at beside it: its id is in the address as peek.
import { query, setQuery } from "../router";

/** Marks an entry of the browser's history that was made for a look: closing it goes back. */
const mark = "peek";

/** Shows one row beside its list; the back button closes it. */
export function peekAt(id: string): void {
  const inside = query.peek().has("peek");
  const own = !inside || history.state === mark;
  setQuery({ peek: id }, { replace: inside });
  if (own) {
    history.replaceState(mark, "");
  }
}

export function closePeek(): void {
  if (history.state === mark) {
    history.back();
  } else {
    setQuery({ peek: undefined }, { replace: true });
  }
}

/** Goes so many rows on from the one that is shown, if the list has them. */
export function peekOn(step: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("main tr[data-peek]")];
  const now = rows.findIndex((r) => r.dataset.peek === query.peek().get("peek"));
  const row = now < 0 ? undefined : rows[now + step];
  if (row?.dataset.peek) {
    peekAt(row.dataset.peek);
    row.scrollIntoView({ block: "nearest" });
  }
}
