import type { ComponentChildren } from "preact";
import { query } from "../router";
import { Lazy } from "./Lazy";

const load = () => import("../pages/Peek");

/** What the address asks to be shown beside a list, if it does; children gets its id. */
export function PeekOf({ children }: { children: (m: typeof import("../pages/Peek"), id: string) => ComponentChildren }) {
  const id = query.value.get("peek");
  return id && <Lazy load={load} waiting={null}>{(m) => children(m, id)}</Lazy>;
}
