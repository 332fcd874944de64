import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call, download } from "../api/client";
import type { ClusterStatus, Handoff, Member, MemberState } from "../api/gen";
import { plural } from "../format";
import { navigate, query } from "../router";
import { asApiError, reload } from "../store/query";
import { useCluster, useNodes } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog } from "../parts/Dialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { ErrorPanel } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { Tag, type Tone } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { AddNode, JoinTokensCard, MakeCluster, noCluster } from "./JoinTokens";
import { msg, noun, rich } from "../text";

/** The nodes of the cluster: who lives, how busy each is, and what each serves. */
export function NodesPage({ dialog }: { dialog?: "join" | "cluster" }) {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const nodes = useNodes(filter);
  const cluster = useCluster();
  const c = cluster.data;
  const close = () => navigate("/nodes");
  return (
    <Page
      title={msg`Nodes`}
      actions={
        <>
          {c?.name === null ? (
            <Button kind="primary" needs="manage" reason={noCluster(c)} onClick={() => navigate("/nodes/cluster/new")}>
              {msg`Make a cluster`}
            </Button>
          ) : (
            <Button kind="primary" needs="manage" onClick={() => navigate("/nodes/new")}>
              {msg`Add node`}
            </Button>
          )}
          <SpreadButton />
          <MetadataBackup />
          <SupportBundle />
        </>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter nodes by name`} />
        <TableTools table="nodes" noun={noun`node`} columns={columns(c)} read={(cursor, limit) => call("GET /nodes", { query: { ...filter, cursor, limit } })} />
      </div>
      <div class="stack-wide">
        <Load query={nodes}>
          {(list) => (
            <DataTable label={msg`Nodes`} table="nodes" columns={columns(c)} rows={list.items} rowKey={(n) => n.id} next={list.next} peek={{ id: (n) => n.id, name: (n) => n.name }} />
          )}
        </Load>
        <Load query={cluster}>
          {(shown) => (
            <>
              <ClusterCard cluster={shown} />
              {shown.name !== null && <JoinTokensCard />}
            </>
          )}
        </Load>
      </div>
      <PeekOf>{(m, id) => <m.PeekNode id={id} />}</PeekOf>
      {/* A node is added to a cluster: without one, that is made first. */}
      {c && dialog && (c.name === null ? <MakeCluster reason={noCluster(c)} onClose={close} /> : dialog === "join" && <AddNode onClose={close} />)}
    </Page>
  );
}

/** Spreads the vDisks over the nodes. */
function SpreadButton() {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button needs="manage" onClick={() => setOpen(true)}>
        {msg`Spread vDisks`}
      </Button>
      {open && <SpreadDialog onClose={() => setOpen(false)} />}
    </>
  );
}

/** What would be handed over, then the hand-overs. */
function SpreadDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [plan, setPlan] = useState<Handoff[] | undefined>(undefined);
  const spread = async (dryRun: boolean) => {
    const { items } = await call("POST /cluster/rebalance", { body: { dryRun } });
    if (dryRun) {
      setPlan(items);
      return;
    }
    toast("ok", msg`${plural(items.length, noun`vDisk`)} handed over to other nodes`);
    reload("nodes?", "vdisks?", "vdisk:", "jobs?");
    onClose();
  };
  const nothing = plan?.length === 0;
  return (
    <Dialog title={msg`Spread vDisks over the nodes`} onClose={onClose}>
      <div class="stack">
        <p>{msg`As few vDisks as it takes are handed over, each with a pause of less than a second, until no two nodes differ by more than one.`}</p>
        {nothing && <p role="status">{msg`Nothing has to move, or what could has to stay: a vPool that one node reaches is served there.`}</p>}
        {plan && !nothing && (
          <ul class="bullets" role="status">
            {plan.map((h) => (
              <li key={h.vdisk}>
                {rich`${h.vdisk}: from ${h.from} to ${h.to}`}
              </li>
            ))}
          </ul>
        )}
        {submit.error && <ErrorPanel error={submit.error} />}
      </div>
      <div class="dialog-foot">
        <Button onClick={onClose}>{nothing ? msg`Close` : msg`Cancel`}</Button>
        {!nothing && (
          <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(() => spread(plan === undefined))}>
            {plan ? msg`Hand over ${plan.length}` : msg`Show what would move`}
          </Button>
        )}
      </div>
    </Dialog>
  );
}

/** Fetches a file while the button that asked for it is busy. */
function useDownload(path: Parameters<typeof download>[0]): [boolean, () => void] {
  const [busy, setBusy] = useState(false);
  const fetchIt = async () => {
    setBusy(true);
    try {
      await download(path);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    setBusy(false);
  };
  return [busy, () => void fetchIt()];
}

/** A backup of the metadata of the node, or of its cluster. */
export function MetadataBackup() {
  const [busy, fetchIt] = useDownload("/metadata/backup");
  return (
    <Button needs="manage" busy={busy} label={msg`Back up metadata of this cluster`} onClick={fetchIt}>
      {busy ? msg`Backing up metadata` : msg`Back up metadata`}
    </Button>
  );
}

/** The support bundle of the node that answers this page. */
export function SupportBundle() {
  const [busy, fetchIt] = useDownload("/support-bundle");
  return (
    <Button needs="manage" busy={busy} label={msg`Support bundle of this node`} onClick={fetchIt}>
      {busy ? msg`Making the support bundle` : msg`Support bundle`}
    </Button>
  );
}

function ClusterCard({ cluster: c }: { cluster: ClusterStatus }) {
  const registry = { embedded: msg`this node's data directory`, etcd: "etcd", nodes: msg`etcd, run by nodes` }[c.registry];
  const members: [string, ComponentChildren][] = (c.registryMembers ?? []).map((m) => [
    m.node ? msg`Registry at ${m.node}` : msg`Registry member`,
    <span key={m.url}>
      <Tag tone={{ up: "ok", learner: "warn", down: "bad" }[m.state] as Tone} word={m.state === "up" ? (m.leads ? msg`Leads` : msg`Up`) : m.state === "learner" ? msg`Catches up` : msg`Down`} title={m.error ?? ""} />{" "}
      <code>{m.url}</code>
    </span>,
  ]);
  if (c.name === null) {
    return (
      <Card title={msg`Cluster`}>
        <Facts
          rows={[
            [msg`Name`, <span class="muted">{msg`none: this node is in no cluster`}</span>],
            [msg`Registry`, registry],
            ...members,
            [msg`Id`, <code key="id">{c.id}</code>],
          ]}
        />
      </Card>
    );
  }
  return (
    <Card title={msg`Cluster`}>
      <Facts
        rows={[
          [msg`Name`, c.name],
          [msg`Nodes`, msg`${c.nodes.alive} of ${c.nodes.total} alive`],
          [msg`Registry`, registry],
          ...members,
          [msg`Made`, <Age key="made" at={c.createdAt} />],
          [msg`This node's certificate ends`, c.certificateEndsAt?.slice(0, 10) ?? msg`unknown`],
          [msg`The authority's certificate ends`, c.authorityEndsAt?.slice(0, 10) ?? msg`unknown`],
          [msg`Id`, <code key="id">{c.id}</code>],
        ]}
      />
    </Card>
  );
}

const faces: Record<MemberState, { tone: Tone; word: string }> = {
  up: { tone: "ok", word: msg`Up` },
  down: { tone: "bad", word: msg`Down` },
  unknown: { tone: "idle", word: msg`Unknown` },
};

/** A node by its name, with a link to its page. */
function NodeLink({ node: n }: { node: Member }) {
  return (
    <>
      <Link to={`/nodes/${encodeURIComponent(n.name)}`}>{n.name}</Link>
      {n.self && msg` (this one)`}
    </>
  );
}

export function NodeTag({ node: n }: { node: Member }) {
  const face = faces[n.state];
  if (n.draining) {
    return <Tag tone={n.state === "up" ? "warn" : face.tone} word={msg`${face.word}, draining`} title={msg`It hands over what it serves, and takes nothing`} />;
  }
  return <Tag {...face} />;
}

/** What other nodes hear of a node. */
export function heard(n: Member): string {
  return n.self ? msg`answers this page` : n.liveness;
}

export function load(n: Member): string {
  return n.load ? msg`CPU ${n.load.cpu} %, memory ${n.load.memory} %, journals ${n.load.journal} %` : msg`not heard`;
}

const columns = (cluster: ClusterStatus | undefined): Column<Member>[] => [
  { key: "name", csv: (n) => n.name, title: msg`Name`, cell: (n) => <NodeLink node={n} /> },
  { key: "state", csv: (n) => n.state, title: msg`State`, cell: (n) => <NodeTag node={n} /> },
  { key: "heard", csv: (n) => n.liveness, title: msg`Heard`, cell: heard },
  { key: "vdisks", csv: (n) => n.vdisks, title: msg`vDisks`, right: true, cell: (n) => n.vdisks },
  { key: "load", csv: { title: msg`Processors (%)`, value: (n) => n.load?.cpu }, title: msg`Load`, wrap: true, cell: (n) => <span class={n.load ? undefined : "muted"}>{load(n)}</span> },
  { key: "domain", csv: (n) => n.domain, title: msg`Domain`, cell: (n) => n.domain || <span class="muted">{msg`not said`}</span> },
  { key: "portals", csv: (n) => n.portals.join(" "), title: msg`Portals`, wrap: true, cell: (n) => <span class="mono">{n.portals.join(" ")}</span> },
  { key: "version", csv: (n) => n.version, title: msg`Version`, cell: (n) => n.version },
  { key: "started", csv: (n) => n.startedAt, title: msg`Started`, right: true, cell: (n) => <Age at={n.startedAt} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (n) => <NodeActions node={n} cluster={cluster} small /> },
];

/** Why the node that answers cannot leave its cluster now. */
function stays(n: Member, c: ClusterStatus | undefined): string | undefined {
  if (!c || c.name === null) {
    return msg`It is in no cluster`;
  }
  return c.nodes.total === 1 ? msg`It is the last node of its cluster` : n.vdisks > 0 ? msg`It serves vDisks: drain it first` : undefined;
}

/** Drain, leave and remove: small in a row of a table, or of the usual size. */
export function NodeActions({ node: n, cluster, small = false }: { node: Member; cluster: ClusterStatus | undefined; small?: boolean }) {
  const [open, setOpen] = useState<"drain" | "leave" | "remove" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const resume = async () => {
    try {
      await call("DELETE /nodes/{node}/drain", { path: { node: n.id } });
      toast("ok", msg`${n.name} takes vDisks again`);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    reload("nodes?", "node:");
  };
  return (
    <>
      {n.draining ? (
        <Button small={small} needs="manage" label={msg`Let ${n.name} take vDisks again`} onClick={() => void resume()}>
          {msg`End drain`}
        </Button>
      ) : (
        <Button small={small} needs="manage" label={msg`Drain ${n.name}`} onClick={() => setOpen("drain")}>
          {msg`Drain`}
        </Button>
      )}{" "}
      {n.self ? (
        <Button small={small} kind="danger" needs="manage" label={msg`Let ${n.name} leave`} reason={stays(n, cluster)} onClick={() => setOpen("leave")}>
          {msg`Leave`}
        </Button>
      ) : (
        <Button
          small={small}
          kind="danger"
          needs="manage"
          label={msg`Remove ${n.name}`}
          reason={n.state === "up" ? msg`It is up: drain it, then let it leave, on its own console` : undefined}
          onClick={() => setOpen("remove")}
        >
          {msg`Remove`}
        </Button>
      )}
      {open === "drain" && (
        <Confirm
          title={msg`Drain ${n.name}`}
          verb={msg`Drain`}
          consequences={[
            msg`It hands its ${plural(n.vdisks, noun`vDisk`)} over to other nodes, one after the other; each pauses for less than a second.`,
            msg`Until that is ended it takes none. Hosts need a path to the other nodes.`,
          ]}
          onClose={close}
          act={async () => {
            await call("POST /nodes/{node}/drain", { path: { node: n.id } });
            toast("ok", msg`${n.name} hands over what it serves`);
            reload("nodes?", "node:", "vdisks?");
          }}
        />
      )}
      {open === "leave" && (
        <Confirm
          title={msg`Let ${n.name} leave the cluster`}
          verb={msg`Leave the cluster`}
          danger
          typeName={n.name}
          consequences={[
            msg`It stops, and does not start again: what is in its data directory is of no use any more.`,
            msg`This page is its console: go on at that of another node of ${cluster?.name ?? msg`the cluster`}.`,
          ]}
          onClose={close}
          act={async () => {
            await call("POST /cluster/leave");
            toast("ok", msg`${n.name} left the cluster, and stops: go on at the console of another node`);
          }}
        />
      )}
      {open === "remove" && (
        <Confirm
          title={msg`Remove ${n.name}`}
          verb={msg`Remove node`}
          danger
          typeName={n.name}
          consequences={[
            msg`It is no part of the cluster any more, and does not start again as one.`,
            msg`What only its journals have is lost to the cluster.`,
          ]}
          onClose={close}
          act={async () => {
            await call("DELETE /nodes/{node}", { path: { node: n.id } });
            toast("ok", msg`${n.name} is removed`);
            reload("nodes?", "cluster");
            navigate("/nodes");
          }}
        />
      )}
    </>
  );
}
