import type { Charted } from "../store/history";
import { useStatus } from "../store/reads";
import { Lazy } from "./Lazy";

const load = () => import("./History");

/** The charts of a vDisk, a vPool or the node with a name; at is the name of the node that serves it, if that is known. */
export function Charts({ at, ...of }: { kind: Charted["kind"]; id: string; name: string; at?: string | undefined }) {
  const here = useStatus().data?.node.name;
  const elsewhere = Boolean(at && here && at !== here);
  return <Lazy load={load}>{({ History }) => <History {...of} elsewhere={elsewhere} />}</Lazy>;
}
