import type { Kind } from "../store/history";
import { Lazy } from "./Lazy";

const load = () => import("./History");

/** The charts of a vDisk, a vPool or the node. */
export function Charts(props: { kind: Kind; id: string }) {
  return <Lazy load={load}>{({ History }) => <History {...props} />}</Lazy>;
}
