import { call } from "../api/client";
import type { Member, Version } from "../api/gen";
import { plural } from "../format";
import { useQuery } from "../store/query";
import { useNodes } from "../store/reads";
import { Age } from "../parts/Age";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { MetadataBackup, NodeTag, SupportBundle } from "./Nodes";
import { msg, noun, rich } from "../text";

/** What runs where, how it is upgraded, and what support asks for. */
export function SystemPage() {
  const nodes = useNodes();
  const version = useQuery("version", () => call("GET /version"));
  return (
    <Page title={msg`Updates and support`}>
      <div class="stack-wide">
        <Load query={nodes}>{(list) => <Versions nodes={list.items} next={list.next} />}</Load>
        <div class="grid">
          <Upgrade nodes={nodes.data?.items ?? []} />
          <section class="span-6 stack-wide">
            <Support />
            <Card title={msg`This node's program`}>
              <Load query={version} lines={4}>
                {(v) => <Program version={v} />}
              </Load>
            </Card>
          </section>
        </div>
      </div>
    </Page>
  );
}

const columns: Column<Member>[] = [
  { key: "name", title: msg`Node`, cell: (n) => <Link to={`/nodes/${encodeURIComponent(n.name)}`}>{n.name}</Link> },
  { key: "state", title: msg`State`, cell: (n) => <NodeTag node={n} /> },
  { key: "version", title: msg`Version`, cell: (n) => (n.version ? <span class="mono">{n.version}</span> : <span class="muted">{msg`not started yet`}</span>) },
  { key: "vdisks", title: msg`vDisks`, right: true, cell: (n) => n.vdisks },
  { key: "started", title: msg`Started`, right: true, cell: (n) => <Age at={n.startedAt} /> },
];

function Versions({ nodes, next }: { nodes: Member[]; next: string | null }) {
  const versions = [...new Set(nodes.map((n) => n.version).filter(Boolean))].sort();
  return (
    <section class="stack">
      <h2>{msg`Versions`}</h2>
      {versions.length > 1 && (
        <Notice tone="warn">
          {rich`${plural(versions.length, noun`version`)} run: ${versions.join(", ")}. Upgrade the nodes that are behind before anything new is used; nodes that are more than one version apart do not work together.`}
        </Notice>
      )}
      <DataTable label={msg`Versions`} columns={columns} rows={nodes} rowKey={(n) => n.id} next={next} />
    </section>
  );
}

/** How to upgrade, with the names of this cluster. */
function Upgrade({ nodes }: { nodes: Member[] }) {
  const name = nodes.find((n) => !n.self)?.name ?? nodes[0]?.name ?? "NAME";
  const alone = nodes.length < 2;
  return (
    <Card title={msg`Upgrade`} class="span-6">
      <div class="stack">
        <p>
          {alone
            ? msg`The node is restarted in order; hosts wait for some seconds, and go on.`
            : msg`One node at a time: its vDisks go to the other nodes and come back, and hosts go on without an error.`}{" "}
          {msg`Data of every former version is read; an older program refuses data of a newer one and leaves it as it is. Back up the metadata first.`}
        </p>
        <CopyBlock
          label={alone ? msg`Upgrade` : msg`Upgrade of ${name}`}
          name="upgrade"
          text={[
            ...(alone ? [] : [`ovgate node drain ${name} --wait`]),
            "apt install ./ovgate_VERSION_amd64.deb",
            ...(alone ? ["ovgate status"] : [`ovgate node drain ${name} --cancel`, "ovgate node list"]),
          ].join("\n")}
        />
        <p class="muted">
          {alone ? msg`The package restarts the node.` : msg`The package restarts the node. Go on with the next one when it is up and health is as it was.`}
        </p>
      </div>
    </Card>
  );
}

function Support() {
  return (
    <Card title={msg`Support`}>
      <div class="stack">
        <p>
          {msg`The support bundle has the log, configuration, health, metrics and records of the node that answers this page, without secrets and without data of vDisks. Look through it before it is passed on.`}
        </p>
        <div class="row">
          <SupportBundle />
          <MetadataBackup />
        </div>
        <p>
          {rich`${<Link to="/docs/troubleshooting">{msg`Troubleshooting`}</Link>} explains every cause of health and what to do; ${<Link to="/docs/api">{msg`the API`}</Link>} is described for programs.`}
        </p>
      </div>
    </Card>
  );
}

function Program({ version: v }: { version: Version }) {
  const formats = Object.entries(v.formats).sort(([a], [b]) => a.localeCompare(b));
  return (
    <div class="stack">
      <Facts
        rows={[
          [msg`Version`, v.version],
          [msg`Commit`, v.commit ? <code key="commit">{v.commit}</code> : <span class="muted">{msg`not known`}</span>],
          [msg`Built with`, v.go],
          [msg`Licence`, msg`Apache License 2.0`],
        ]}
      />
      <details>
        <summary>{msg`Formats on disk and on backends`}</summary>
        <Facts rows={formats.map(([name, n]) => [name, msg`version ${n}`])} />
      </details>
    </div>
  );
}
