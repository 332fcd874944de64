import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { ClusterStatus, Member } from "../api/gen";
import { query, setQuery } from "../router";
import { reload } from "../store/query";
import { useCluster, useNodes } from "../store/reads";
import { session } from "../store/session";
import { useSubmit } from "../store/submit";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { TextField } from "../parts/Field";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { FormError } from "../parts/Notice";
import { OneOf } from "../parts/OneOf";
import { Card, Page } from "../parts/Page";
import { Step } from "../parts/Step";
import { NodeChecks, NodeDisks, setupEveryMs, useLayout, useNodeCheck } from "./NodeSetup";
import { msg, rich } from "../text";

/**
 * What follows the first administrator: cluster, nodes with their checks, disks and their roles. All of it is read from the
 * nodes, so that the page may be left and opened again.
 */
export function FirstRunPage() {
  const cluster = useCluster();
  const nodes = useNodes();
  return (
    <Page
      title={msg`Set up`}
      actions={
        <Link class="btn" to="/">
          {msg`Go to the overview`}
        </Link>
      }
    >
      <Card title={msg`Five steps`}>
        <ol class="checklist steps">
          <Step title={msg`Administrator`} done>
            <p class="muted">{rich`${session.value?.user} is signed in.`}</p>
          </Step>
          <Step title={msg`Cluster`} done={Boolean(cluster.data?.name)}>
            <Load query={cluster} lines={2}>
              {(c) => <Cluster cluster={c} />}
            </Load>
          </Step>
          <Load query={nodes} lines={6}>
            {({ items }) => <NodeSteps nodes={items} cluster={cluster.data} />}
          </Load>
          <Step title={msg`Use it`} done={false}>
            <p>{msg`The overview goes on from here: a vPool, a vDisk, a host, a second user.`}</p>
            <div class="row">
              <Link class="btn primary" to="/">
                {msg`Go on`}
              </Link>
            </div>
          </Step>
        </ol>
      </Card>
    </Page>
  );
}

/** The lines that have a node run a member of the registry, which a cluster needs. */
const registryLines = `registry: {member: {listen: ADDRESS:2379, peers: ADDRESS:2380}}
cluster: {listen: ADDRESS:7946}`;

/** The name of the cluster, or what a node by itself needs to become the first of one. */
function Cluster({ cluster: c }: { cluster: ClusterStatus }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  if (c.name) {
    return (
      <p>
        {rich`This node is in cluster ${<Link to="/nodes">{c.name}</Link>}.`}
      </p>
    );
  }
  if (c.registry === "embedded") {
    return (
      <>
        <p>{msg`This node is by itself, and needs nothing for that. It may become the first of a cluster at any time.`}</p>
        <details class="more">
          <summary>{msg`To have more nodes`}</summary>
          <div class="stack">
            <CopyBlock label={msg`In its configuration, with its address in the network; then restart ovgate`} name="registry" text={registryLines} />
            <p class="muted">{msg`Its records move into a registry that nodes share. Then this page asks for a name.`}</p>
          </div>
        </details>
      </>
    );
  }
  return (
    <form
      class="stack"
      aria-label={msg`Name the cluster`}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void submit.run(async () => {
          await call("POST /cluster", { body: { name: name.trim() } });
          reload("cluster", "nodes?", "status");
        });
      }}
    >
      <p class="muted">{msg`Its nodes trust each other by the authority of this one. Without a cluster, go on below.`}</p>
      <TextField label={msg`Name of the cluster`} name="name" value={name} onValue={setName} error={submit.at("name")} />
      <FormError submit={submit} fields={["name"]} />
      <div class="row">
        <Button type="submit" needs="manage" busy={submit.busy}>
          {msg`Make the cluster`}
        </Button>
      </div>
    </form>
  );
}

function NodeSteps({ nodes, cluster }: { nodes: Member[]; cluster: ClusterStatus | undefined }) {
  const asked = query.value.get("node");
  const node = nodes.find((n) => n.name === asked) ?? nodes.find((n) => n.self) ?? nodes[0];
  if (!node) {
    return null;
  }
  const options = nodes.map((n) => ({ id: n.id, text: n.name }));
  return (
    <>
      <ChecksStep nodes={nodes} node={node} cluster={cluster}>
        {nodes.length > 1 && (
          <div class="ranges" role="group" aria-label={msg`Node`}>
            <OneOf options={options} chosen={options.find((o) => o.id === node.id) ?? options[0]!} onChoose={(o) => setQuery({ node: o.text, roles: undefined }, { replace: true })} />
          </div>
        )}
      </ChecksStep>
      <DisksStep key={node.id} node={node} />
    </>
  );
}

function ChecksStep({ nodes, node, cluster, children }: { nodes: Member[]; node: Member; cluster: ClusterStatus | undefined; children: ComponentChildren }) {
  const state = useNodeCheck(node.id).data?.state;
  return (
    <Step title={nodes.length === 1 ? msg`The node, checked` : msg`${nodes.length} nodes, checked`} done={state === "ok" || state === "info"}>
      {children}
      <NodeChecks key={node.id} node={node} heading />
      {cluster?.name && (
        <div class="row">
          <Link class="btn" to="/nodes/new">
            {msg`Add a node`}
          </Link>
        </div>
      )}
    </Step>
  );
}

function DisksStep({ node }: { node: Member }) {
  const layout = useLayout(node.id, setupEveryMs);
  const open = layout.data?.disks.some((d) => d.state === "ready" || d.state === "configure" || d.state === "prepare");
  return (
    <Step title={msg`Disks of ${node.name}`} done={layout.data !== undefined && !open}>
      <p class="muted">
        {msg`What is blank, or mounted and empty, is proposed: SSDs for journals and read cache before hard disks, the rest for the object store. Nothing that holds something is taken. Change what a disk is for in its row.`}
      </p>
      <NodeDisks node={node} layout={layout} />
    </Step>
  );
}
