// The objects of the page Performance: what is read of each, and the dialog that finds one.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, call } from "../api/client";
import { useBackend } from "../store/objects";
import { useHistory, type Charted, type Range } from "../store/history";
import { useQuery, type Query } from "../store/query";
import { useNodes, useStatus, useVDisk, useVPool } from "../store/reads";
import { Finder, usePaused, type Group } from "../parts/Finder";
import type { IconName } from "../parts/Icon";
import { dayBefore, kindWords, refKey, type Feed, type Ref } from "../store/compare";
import type { Kind } from "../store/history";
import { msg } from "../text";

type SourceProps = {
  of: Ref;
  range: Range;
  until: number | undefined;
  compare: boolean;
  onFeed: (key: string, feed: Feed | undefined) => void;
};

/** Reads an object and its history; shows nothing. */
export function Source(props: SourceProps) {
  switch (props.of.kind) {
    case "vdisk":
      return <VDiskSource {...props} />;
    case "vpool":
      return <VPoolSource {...props} />;
    case "node":
      return <NodeSource {...props} />;
    case "backend":
      return <BackendSource {...props} />;
  }
}

/** Whether what is at a node is at another one than that which answers; undefined: that is not known yet. */
function useElsewhere(node: string | null | undefined): boolean | undefined {
  const here = useStatus().data?.node;
  return here && Boolean(node && node !== here.name && node !== here.id);
}

/** The id that the address has, or else the name; the same when the address gets the id later. */
function useAsked(of: Ref): string {
  return useRef(of.id ?? of.name).current;
}

function VDiskSource(props: SourceProps) {
  const vdisk = useVDisk(useAsked(props.of));
  const elsewhere = useElsewhere(vdisk.data?.node);
  return <History {...props} found={vdisk} elsewhere={elsewhere} />;
}

function VPoolSource(props: SourceProps) {
  const vpool = useVPool(useAsked(props.of));
  const elsewhere = useElsewhere(props.of.node ?? vpool.data?.node);
  return <History {...props} found={vpool} elsewhere={elsewhere} />;
}

function BackendSource(props: SourceProps) {
  const backend = useBackend(useAsked(props.of));
  return <History {...props} found={backend} elsewhere={useElsewhere(props.of.node)} />;
}

function NodeSource(props: SourceProps) {
  const nodes = useNodes();
  const asked = useAsked(props.of);
  const node = nodes.data?.items.find((n) => n.name === asked || n.id === asked);
  const elsewhere = useElsewhere(node?.name);
  const missing = nodes.data && !node ? new ApiError(404, { code: "not_found", message: msg`there is no such node` }) : undefined;
  return <History {...props} found={{ data: node, error: missing ?? nodes.error }} elsewhere={elsewhere} />;
}

type Found = Pick<Query<{ id: string; name: string }>, "data" | "error">;

function History({ of, range, until, compare, onFeed, found, elsewhere }: SourceProps & { found: Found; elsewhere: boolean | undefined }) {
  const key = refKey(of);
  const id = found.data?.id;
  const name = found.data?.name ?? of.name;
  const gone = found.error?.status === 404;
  const charted: Charted | undefined = id && elsewhere !== undefined && !gone ? { kind: of.kind, id, node: of.node, elsewhere } : undefined;
  const past = useHistory(charted, range, { until });
  const before = useHistory(compare ? charted : undefined, range, { until, back: dayBefore });
  // What was read stays while the object alone cannot be.
  const error = gone || !found.data ? found.error : past.error;
  useEffect(() => {
    onFeed(key, { ref: of, name, label: of.node ? msg`${name} at ${of.node}` : name, charted, samples: past.samples, before: compare ? before.samples : undefined, step: past.step, whole: past.step !== undefined && (!compare || before.step !== undefined), error });
  }, [key, id, name, elsewhere, gone, past, before, compare, error]);
  useEffect(() => () => onFeed(key, undefined), [key]);
  return null;
}

const icons: Record<Kind, IconName> = { vdisk: "vdisk", vpool: "vpool", node: "nodes", backend: "backend" };

/** Objects of a kind that one search shows. */
const foundMax = 8;

/** Finds an object by its name; the node searches, however many there are. */
export function AddObject({ chosen, onChoose, onClose }: { chosen: Ref[]; onChoose: (ref: Ref) => void; onClose: () => void }) {
  const [text, setText] = useState("");
  const asked = usePaused(text.trim());
  const { groups, loading } = useObjects(asked);
  const taken = new Set(chosen.map(refKey));
  const shown: Group[] = groups.map(({ kind, refs }) => ({
    title: kindWords[kind] + "s",
    items: refs.map((ref) => ({
      key: refKey(ref).replace(/\W+/g, "-"),
      text: ref.node ? msg`${ref.name} at ${ref.node}` : ref.name,
      icon: icons[kind],
      reason: taken.has(refKey(ref)) ? msg`It is shown already` : undefined,
      act: () => onChoose(ref),
    })),
  }));
  return (
    <Finder
      title={msg`Add an object`}
      label={msg`Search vDisks, vPools, nodes and backends`}
      placeholder={msg`Name of a vDisk, vPool, node or backend`}
      text={text}
      onText={setText}
      groups={shown}
      searching={asked !== text.trim() || loading}
      onClose={onClose}
    />
  );
}

/** Objects whose names have the text: the busiest vDisks first while there is none. */
export function useObjects(q: string): { groups: { kind: Kind; refs: Ref[] }[]; loading: boolean } {
  const found = useQuery("performance?" + q, async () => {
    const query = { ...(q ? { q } : {}), limit: foundMax };
    const [vdisks, vpools, nodes, backends] = await Promise.all([
      call("GET /vdisks", { query: { ...query, sort: q ? "name" : "-writeIops" } }),
      call("GET /vpools", { query }),
      call("GET /nodes", { query }),
      call("GET /backends", { query }),
    ]);
    return { vdisks: vdisks.items, vpools: vpools.items, nodes: nodes.items, backends: backends.items };
  });
  const members = useNodes().data?.items ?? [];
  // Each node of several has a part of what is not in a directory of one.
  const parts = (kind: Kind, { id, name }: { id: string; name: string }, node?: string | null): Ref[] =>
    members.length > 1 && !node ? members.map((m) => ({ kind, name, id, node: m.name })) : [{ kind, name, id }];
  const d = found.data;
  return {
    loading: found.loading && !d,
    groups: [
      { kind: "vdisk", refs: (d?.vdisks ?? []).map((v): Ref => ({ kind: "vdisk", name: v.name, id: v.id })) },
      { kind: "vpool", refs: (d?.vpools ?? []).flatMap((p) => parts("vpool", p, p.node)).slice(0, 2 * foundMax) },
      { kind: "node", refs: (d?.nodes ?? []).map((n): Ref => ({ kind: "node", name: n.name, id: n.id })) },
      { kind: "backend", refs: (d?.backends ?? []).flatMap((b) => parts("backend", b)).slice(0, 2 * foundMax) },
    ],
  };
}
