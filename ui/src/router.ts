// Routing: the address bar is the state. Every page, filter and open dialog has an address.
import { signal } from "@preact/signals";

/** Path of the page shown, without the query. */
export const path = signal(location.pathname);

/** Query of the page shown. */
export const query = signal(new URLSearchParams(location.search));

function read(): void {
  path.value = location.pathname;
  query.value = new URLSearchParams(location.search);
}

addEventListener("popstate", read);

/** Goes to an address of this application; replace keeps the back button where it was. */
export function navigate(to: string, options: { replace?: boolean } = {}): void {
  if (to === location.pathname + location.search) {
    return;
  }
  if (options.replace) {
    history.replaceState(null, "", to);
  } else {
    history.pushState(null, "", to);
  }
  read();
}

/** Changes parameters of the present address; an empty value removes one. */
export function setQuery(changes: Record<string, string | undefined>, options: { replace?: boolean } = {}): void {
  const next = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value) {
      next.set(name, value);
    } else {
      next.delete(name);
    }
  }
  const text = next.toString();
  navigate(path.value + (text ? "?" + text : ""), options);
}

/** Matches the path against a pattern such as "/vdisks/:name"; null when it does not. */
export function match(pattern: string, actual: string): Record<string, string> | null {
  const want = pattern.split("/");
  const have = actual.replace(/\/+$/, "").split("/");
  if (actual === "/" ? pattern !== "/" : want.length !== have.length) {
    return null;
  }
  const values: Record<string, string> = {};
  for (const [i, part] of want.entries()) {
    const piece = have[i] ?? "";
    if (part.startsWith(":")) {
      const value = decode(piece);
      if (!value) {
        return null;
      }
      values[part.slice(1)] = value;
    } else if (part !== piece) {
      return null;
    }
  }
  return values;
}

function decode(piece: string): string {
  try {
    return decodeURIComponent(piece);
  } catch {
    return "";
  }
}
