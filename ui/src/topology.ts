// The layers between those who use storage and the devices that hold it, as the topology shows them. Every layer
// is bounded: what are many are shown as groups with counts, the worst first, and the rest as one.
import type { Alba, ISCSISession, Member, OSD, RemoteBackend, VPool } from "./api/gen";
import { bytes, plural } from "./format";
import { vpoolFace, type Face, type Tone } from "./parts/StateTag";
import { msg, noun } from "./text";

/** Boxes of a layer; the rest of it is one more. */
export const layerMax = 12;

export type Facts = {
  sessions: ISCSISession[];
  nodes: Member[];
  vpools: VPool[];
  backends: RemoteBackend[];
  osds: OSD[];
  alba: Alba;
};

export type Item = {
  id: string;
  text: string;
  /** How much there is of it, such as "12 vDisks". */
  amount: string;
  face: Face;
  /** Its page. */
  to: string;
  /** Ids of what it needs, in the next layer. */
  needs: string[];
};

export type Layer = { key: string; title: string; items: Item[] };

const worst: Tone[] = ["bad", "warn", "info", "idle", "ok"];

/** The worst state of several, and how many are in it. */
function together(all: Item[]): Face {
  const faces = all.map((i) => i.face).sort((a, b) => worst.indexOf(a.tone) - worst.indexOf(b.tone));
  const first = faces[0] ?? { tone: "idle", word: msg`None` };
  const alike = faces.filter((f) => f.tone === first.tone).length;
  return alike === all.length ? first : { tone: first.tone, word: msg`${alike} of ${all.length}: ${first.word}` };
}

/** Bounds a layer; ids of what went into its last box lead there. */
function bound(layer: Layer, moved: Map<string, string>): Layer {
  const rank = (i: Item) => worst.indexOf(i.face.tone);
  const items = [...layer.items].sort((a, b) => rank(a) - rank(b) || a.text.localeCompare(b.text, undefined, { numeric: true }));
  if (items.length <= layerMax) {
    return { ...layer, items };
  }
  const rest = items.splice(layerMax - 1);
  const id = layer.key + ":more";
  rest.forEach((i) => moved.set(i.id, id));
  const first = rest[0] as Item;
  const more: Item = {
    id,
    text: msg`${rest.length} more`,
    amount: layer.title.toLowerCase(),
    face: together(rest),
    to: "/" + (first.to.split("/")[1] ?? ""),
    needs: [...new Set(rest.flatMap((i) => i.needs))],
  };
  return { ...layer, items: [...items, more] };
}

function nodeFace(n: Member): Face {
  if (n.state === "up") {
    return n.draining ? { tone: "warn", word: msg`Draining` } : { tone: "ok", word: msg`Up` };
  }
  return n.state === "down" ? { tone: "bad", word: msg`Down` } : { tone: "idle", word: msg`Unknown` };
}

function albaFace(a: Alba): Face {
  if (a.tolerates === null) {
    return { tone: "idle", word: msg`Not surveyed` };
  }
  if (a.tolerates < 0) {
    return { tone: "bad", word: msg`Objects not readable` };
  }
  return a.failed > 0 || a.repair > 0 ? { tone: "warn", word: msg`Repairs` } : { tone: "ok", word: msg`Safe` };
}

/** The node of a session: whose portal it came in by, else the one that answers. */
function nodeOf(s: ISCSISession, nodes: Member[]): Member | undefined {
  return nodes.find((n) => n.portals.includes(s.portal)) ?? nodes.find((n) => n.self);
}

/** The id of the backend that a vPool is on. */
function backendOf(p: VPool): string {
  switch (p.backend.kind) {
    case "alba":
      return "backend:alba";
    case "local":
      return "backend:local " + p.name;
    default:
      return "backend:" + p.backend.store;
  }
}

function clients(f: Facts): Item[] {
  const by = new Map<string, ISCSISession[]>();
  for (const s of f.sessions.filter((s) => s.target !== "")) {
    by.set(s.initiator, [...(by.get(s.initiator) ?? []), s]);
  }
  return [...by].map(([initiator, all]) => ({
    id: "client:" + initiator,
    text: initiator,
    amount: plural(all.length, noun`session`),
    face: { tone: "ok", word: msg`Signed in` },
    to: "/iscsi",
    needs: [...new Set(all.map((s) => "portal:" + (nodeOf(s, f.nodes)?.id ?? "")))],
  }));
}

function portals(f: Facts): Item[] {
  return f.nodes
    .filter((n) => n.portals.length > 0)
    .map((n) => {
      const sessions = f.sessions.filter((s) => s.target !== "" && nodeOf(s, f.nodes)?.id === n.id).length;
      const shown = n.portals[0] ?? "";
      return {
        id: "portal:" + n.id,
        text: n.portals.length === 1 ? shown : msg`${n.portals.length} portals of ${n.name}`,
        amount: plural(sessions, noun`session`),
        face: n.state === "up" ? { tone: "ok", word: msg`Reached` } : nodeFace(n),
        to: "/iscsi",
        needs: ["node:" + n.id],
      };
    });
}

function nodes(f: Facts): Item[] {
  return f.nodes.map((n) => ({
    id: "node:" + n.id,
    text: n.name,
    amount: plural(n.vdisks, noun`vDisk`),
    face: nodeFace(n),
    to: "/nodes",
    needs: f.vpools.filter((p) => p.node === null || p.node === n.name).map((p) => "vpool:" + p.id),
  }));
}

function vpools(f: Facts): Item[] {
  return f.vpools.map((p) => ({
    id: "vpool:" + p.id,
    text: p.name,
    amount: plural(p.vdisks, noun`vDisk`),
    face: vpoolFace(p.state),
    to: "/vpools/" + encodeURIComponent(p.name),
    needs: [backendOf(p)],
  }));
}

/** Machines with devices of the object store, by name. */
function machines(f: Facts): Map<string, OSD[]> {
  const by = new Map<string, OSD[]>();
  for (const o of f.osds) {
    by.set(o.node, [...(by.get(o.node) ?? []), o]);
  }
  return by;
}

function backends(f: Facts): Item[] {
  const all: Item[] = [];
  if (f.alba.made) {
    all.push({
      id: "backend:alba",
      text: msg`Object store`,
      amount: msg`${bytes(f.alba.free)} free`,
      face: albaFace(f.alba),
      to: "/alba",
      needs: [...machines(f).keys()].map((m) => "devices:" + m),
    });
  }
  for (const p of f.vpools.filter((p) => p.backend.kind === "local")) {
    all.push({
      id: backendOf(p),
      text: p.backend.path.split("/").pop() || msg`Directory`,
      amount: p.total > 0 ? msg`${bytes(p.free)} free` : msg`directory`,
      face: p.state === "offline" ? { tone: "bad", word: msg`Away` } : p.state === "elsewhere" ? { tone: "info", word: msg`On another node` } : { tone: "ok", word: msg`Directory` },
      to: "/vpools/" + encodeURIComponent(p.name),
      needs: [],
    });
  }
  for (const b of f.backends) {
    const away = f.vpools.some((p) => p.state === "offline" && (p.backend.store === b.name || p.backend.store === b.id));
    all.push({
      id: "backend:" + b.name,
      text: b.name,
      amount: b.kind === "s3" ? "S3" : msg`Swift`,
      face: away ? { tone: "bad", word: msg`Away` } : b.warnings.length > 0 ? { tone: "warn", word: plural(b.warnings.length, noun`warning`) } : { tone: "ok", word: msg`In use` },
      to: "/backends/" + encodeURIComponent(b.name),
      needs: [],
    });
  }
  return all;
}

function devices(f: Facts): Item[] {
  return [...machines(f)].map(([machine, all]) => {
    const broken = all.filter((o) => !o.working).length;
    const full = all.filter((o) => o.full).length;
    const leaving = all.filter((o) => o.state !== "in-use").length;
    const face: Face =
      broken > 0
        ? { tone: "bad", word: msg`${broken} of ${all.length} do not work` }
        : full > 0
          ? { tone: "warn", word: msg`${full} of ${all.length} are full` }
          : leaving > 0
            ? { tone: "info", word: msg`${leaving} of ${all.length} come or go` }
            : { tone: "ok", word: msg`Working` };
    return { id: "devices:" + machine, text: machine, amount: plural(all.length, noun`device`), face, to: "/disks", needs: [] };
  });
}

/** The layers of what there is; empty ones are left out. */
export function layersOf(f: Facts): Layer[] {
  const byId = new Map(f.backends.map((b) => ["backend:" + b.id, "backend:" + b.name]));
  const moved = new Map(byId);
  const layers = [
    { key: "clients", title: msg`Initiators`, items: clients(f) },
    { key: "portals", title: msg`Portals`, items: portals(f) },
    { key: "nodes", title: msg`Nodes`, items: nodes(f) },
    { key: "vpools", title: msg`vPools`, items: vpools(f) },
    { key: "backends", title: msg`Backends`, items: backends(f) },
    { key: "devices", title: msg`Devices`, items: devices(f) },
  ]
    .filter((l) => l.items.length > 0)
    .map((l) => bound(l, moved));
  const there = new Set(layers.flatMap((l) => l.items.map((i) => i.id)));
  const where = (id: string) => moved.get(moved.get(id) ?? id) ?? moved.get(id) ?? id;
  return layers.map((l) => ({
    ...l,
    items: l.items.map((i) => ({ ...i, needs: [...new Set(i.needs.map(where))].filter((id) => there.has(id)) })),
  }));
}

/** What an item needs, and what needs it, directly and through others. */
export function related(layers: Layer[], id: string): { needs: Item[]; neededBy: Item[] } {
  const all = layers.flatMap((l) => l.items);
  const reach = (next: (i: Item) => Item[]) => {
    const found = new Set<Item>();
    const todo = all.filter((i) => i.id === id);
    for (let i = todo.pop(); i; i = todo.pop()) {
      for (const n of next(i)) {
        if (!found.has(n)) {
          found.add(n);
          todo.push(n);
        }
      }
    }
    return all.filter((i) => found.has(i));
  };
  return {
    needs: reach((i) => all.filter((o) => i.needs.includes(o.id))),
    neededBy: reach((i) => all.filter((o) => o.needs.includes(i.id))),
  };
}
