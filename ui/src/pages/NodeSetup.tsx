// What a node needs and what its disks are for: on the page of the node, and in the first run.
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api/client";
import type { Job, LayoutDisk, Member, NodeCheckItem, NodeCheckState, NodeLayout } from "../api/gen";
import { bytes, capital, plural } from "../format";
import { query, setQuery } from "../router";
import { useJobs } from "../store/objects";
import { reload, useQuery, type Query } from "../store/query";
import { denied } from "../store/session";
import { useSubmit } from "../store/submit";
import { Seen } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ErrorPanel, Notice } from "../parts/Notice";
import { glyphs, Tag, type Face, type Tone } from "../parts/StateTag";
import { JobLine } from "./Disk";
import { devicesChanged } from "./DiskDialogs";
import { msg, noun, rich } from "../text";

/** ms between looks: each connects to every port of the other nodes. */
const checkEveryMs = 15_000;

/** ms between looks at the disks, each of which is read: while they are set up, what was done on the machine shows by itself. */
export const setupEveryMs = 5000;
export const disksEveryMs = 60_000;

const checkFaces: Record<NodeCheckState, Face> = {
  ok: { tone: "ok", word: msg`All well` },
  info: { tone: "ok", word: msg`Well` },
  warning: { tone: "warn", word: msg`Needs a look` },
  error: { tone: "bad", word: msg`Something is wrong` },
};

const itemTones: Record<NodeCheckState, Tone> = { ok: "ok", info: "info", warning: "warn", error: "bad" };

const order: NodeCheckState[] = ["error", "warning", "info", "ok"];

export function useNodeCheck(node: string) {
  return useQuery("check:" + node, () => call("GET /nodes/{node}/check", { path: { node } }), checkEveryMs);
}

/** What a node finds of its machine and of its network: first what is wrong, with what it means and what to do. */
export function NodeChecks({ node, heading }: { node: Member; heading?: boolean }) {
  const check = useNodeCheck(node.id);
  return (
    <Load query={check} lines={3}>
      {(c) => {
        const items = [...c.checks].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
        const loud = items.filter((i) => i.state === "error" || i.state === "warning");
        const quiet = items.filter((i) => i.state === "info" || i.state === "ok");
        return (
          <div class="stack">
            <div class="row">
              {heading && <b>{node.name}</b>}
              <Tag {...checkFaces[c.state]} />
              <span class="spacer" />
              <Seen at={c.observedAt} />
              <Button small kind="quiet" label={msg`Check again: ${node.name}`} busy={check.loading} onClick={check.reload}>
                {msg`Check again`}
              </Button>
            </div>
            {loud.length > 0 && <CheckItems items={loud} />}
            <details class="more">
              <summary>{loud.length > 0 ? msg`${plural(quiet.length, noun`more check`)}, which found nothing wrong` : msg`${plural(quiet.length, noun`check`)} found nothing wrong`}</summary>
              <CheckItems items={quiet} />
            </details>
          </div>
        );
      }}
    </Load>
  );
}

function CheckItems({ items }: { items: NodeCheckItem[] }) {
  return (
    <ul class="causes">
      {items.map((i) => (
        <li key={i.code + i.object + i.text} class="cause">
          <span class={`tone-${itemTones[i.state]}`} aria-hidden="true">
            {i.state === "info" ? msg`i` : glyphs[itemTones[i.state]]}
          </span>
          <b>
            {i.text}
            {i.object && <span class="muted small"> {i.object}</span>}
          </b>
          {i.fix && (
            <p class="muted">
              {i.means} {i.fix}
            </p>
          )}
        </li>
      ))}
    </ul>
  );
}

/** The roles that a free disk may be chosen for, as the node writes them. */
const choices = [
  { value: "write,read", text: msg`Journals and read cache` },
  { value: "write", text: msg`Journals` },
  { value: "read", text: msg`Read cache` },
  { value: "alba", text: msg`Object store` },
  { value: "none", text: msg`Nothing` },
];

const roleWords: Record<LayoutDisk["roles"][number], string> = { db: msg`Records`, write: msg`Journals`, read: msg`Read cache`, alba: msg`Object store` };

const layoutFaces: Record<LayoutDisk["state"], Face> = {
  inUse: { tone: "ok", word: msg`In use` },
  kept: { tone: "idle", word: msg`Left alone` },
  unused: { tone: "idle", word: msg`Free` },
  ready: { tone: "info", word: msg`Ready` },
  configure: { tone: "warn", word: msg`Needs a restart` },
  prepare: { tone: "warn", word: msg`Needs root` },
};

/** The choices in the address: DISK=ROLE, one after the other. */
function chosen(): string[] {
  return query.value.get("roles")?.split(";").filter(Boolean) ?? [];
}

function choose(disk: string, role: string): void {
  setQuery({ roles: [...chosen().filter((c) => !c.startsWith(disk + "=")), `${disk}=${role}`].join(";") }, { replace: true });
}

/** The layout with what is chosen. What was shown stays while another choice is worked out. */
export function useLayout(node: string, every: number): Query<NodeLayout> {
  const roles = chosen();
  const now = useQuery(`layout:${node}?${roles.join(";")}`, () => call("GET /nodes/{node}/layout", { path: { node }, query: { role: roles } }), every);
  const last = useRef<NodeLayout | undefined>(undefined);
  last.current = now.data ?? last.current;
  return { ...now, data: last.current };
}

/** What the disks of a node are for, to be changed where they are free, and the ways to get there. */
export function NodeDisks({ node, layout }: { node: Member; layout: Query<NodeLayout> }) {
  const jobs = useJobs({ kind: "claim", node: node.name });
  const job = jobs.data?.items[0];
  useEffect(() => {
    if (job?.endedAt) {
      reload("layout:");
    }
  }, [job?.endedAt]);
  return (
    <Load query={layout} lines={4}>
      {(l) => <Layout node={node} layout={l} job={job} />}
    </Load>
  );
}

function Layout({ node, layout: l, job }: { node: Member; layout: NodeLayout; job: Job | undefined }) {
  const shown = l.disks.filter((d) => d.state !== "kept");
  const kept = l.disks.filter((d) => d.state === "kept");
  return (
    <div class="stack-wide">
      {shown.length > 0 ? (
        <DataTable label={msg`Disks of ${node.name}`} columns={columns(job)} rows={shown} rowKey={(d) => d.name} />
      ) : (
        <p>
          {rich`${kept.length > 0 ? msg`No disk of this node is free. ` : msg`The kernel of this node knows no disk. `}${l.devices > 0 && msg`The object store has ${plural(l.devices, noun`device`)} already. `}Go on without; a disk that is added later is found here, and on the page of the node.`}
        </p>
      )}
      {l.notes.map((n) => (
        <Notice key={n} tone="info">
          {n}
        </Notice>
      ))}
      {l.commands && <CopyBlock label={msg`As root on ${node.name}`} name="commands" text={l.commands.trimEnd()} />}
      {l.config && (
        <div class="stack">
          <CopyBlock label={l.configFile ? msg`In ${l.configFile}, then restart ovgate` : msg`In a configuration file that ovgate is started with (--config)`} name="config" text={l.config.trimEnd()} />
          <p class="muted small">{msg`The lists hold what is configured already. This page sees by itself when the node runs with them.`}</p>
        </div>
      )}
      <Apply node={node} layout={l} job={job} />
      {kept.length > 0 && (
        <details class="more">
          <summary>{rich`${plural(kept.length, noun`disk`)} that ${kept.length === 1 ? msg`is` : msg`are`} left alone`}</summary>
          <DataTable label={msg`Disks of ${node.name} that are left alone`} columns={keptColumns} rows={kept} rowKey={(d) => d.name} />
        </details>
      )}
    </div>
  );
}

/** Makes devices of what is ready, as a task; it is found again when the page is opened anew. */
function Apply({ node, layout: l, job }: { node: Member; layout: NodeLayout; job: Job | undefined }) {
  const submit = useSubmit();
  const ready = l.disks.filter((d) => d.state === "ready").length;
  const running = job !== undefined && !job.endedAt;
  const apply = async () => {
    await call("POST /nodes/{node}/layout", { path: { node: node.id }, query: { role: chosen() } });
    reload("jobs?", "layout:", "running");
    devicesChanged();
  };
  return (
    <>
      {job && (running || ready > 0 || job.state === "done") && (
        <div aria-live="polite">
          <JobLine job={job} />
        </div>
      )}
      {submit.error && <ErrorPanel error={submit.error} />}
      {(ready > 0 || running) && (
        <div class="row">
          <Button kind="primary" needs="manage" busy={submit.busy} reason={running ? msg`Disks are being claimed` : undefined} onClick={() => void submit.run(apply)}>
            {running ? msg`Disks are being claimed` : msg`Make ${plural(ready, noun`device`)}`}
          </Button>
          <Link class="btn" to="/disks">
            {msg`Devices of the object store`}
          </Link>
        </div>
      )}
    </>
  );
}

const diskColumn: Column<LayoutDisk> = {
  key: "disk",
  title: msg`Disk`,
  cell: (d) => (
    <>
      <span class="mono">{d.path}</span>
      <div class="muted small">{[d.rotational ? "HDD" : "SSD", d.model, d.serial && msg`serial ${d.serial}`].filter(Boolean).join(", ")}</div>
    </>
  ),
};

const sizeColumn: Column<LayoutDisk> = { key: "size", title: msg`Size`, right: true, cell: (d) => bytes(d.size) };

function columns(job: Job | undefined): Column<LayoutDisk>[] {
  const claimed = (d: LayoutDisk) => job && !job.endedAt && d.places.some((p) => job.what.endsWith(p.path));
  return [
    diskColumn,
    sizeColumn,
    { key: "role", title: msg`For`, cell: (d) => <RoleChoice disk={d} /> },
    { key: "state", title: msg`State`, cell: (d) => <Tag {...(claimed(d) ? { tone: "info", word: msg`Being claimed` } : layoutFaces[d.state])} /> },
    {
      key: "why",
      title: msg`Why`,
      wrap: true,
      cell: (d) => (
        <>
          {capital(d.reason)}
          {d.warning && <div class="tone-warn small">{capital(d.warning)}</div>}
          {d.places.map((p) => (
            <div key={p.path} class="mono small">
              {p.path}
              {p.bytes > 0 && <span class="muted"> {bytes(p.bytes)}</span>}
            </div>
          ))}
        </>
      ),
    },
  ];
}

const keptColumns: Column<LayoutDisk>[] = [diskColumn, sizeColumn, { key: "holds", title: msg`Why`, wrap: true, cell: (d) => capital(d.reason) }];

/** The role of a disk; a choice where it is free. */
function RoleChoice({ disk: d }: { disk: LayoutDisk }) {
  if (!d.free || denied("manage")) {
    return <>{d.roles.map((r) => roleWords[r]).join(", ") || msg`Nothing`}</>;
  }
  return (
    <select class="input" aria-label={msg`What ${d.name} is for`} value={d.roles.join(",") || "none"} onChange={(event) => choose(d.name, event.currentTarget.value)}>
      {choices.map((c) => (
        <option key={c.value} value={c.value}>
          {c.text}
        </option>
      ))}
    </select>
  );
}
