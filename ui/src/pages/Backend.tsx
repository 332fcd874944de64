import { useState } from "preact/hooks";
import type { RemoteBackend, StoreRequests } from "../api/gen";
import { bytes, count, percent, rate } from "../format";
import { useBackend } from "../store/objects";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { ChangeBackendDialog, DeleteBackendDialog, TestBackendButton } from "./BackendDialogs";
import { BackendTag, kindName } from "./Backends";
import { performanceAddress } from "../store/compare";
import { msg, rich } from "../text";

/** One registered store: how it is reached, what it gives, what it was asked. */
export function BackendPage({ name }: { name: string }) {
  const backend = useBackend(name);
  return (
    <Page
      title={name}
      crumbs={[{ to: "/backends", text: msg`Backends` }]}
      state={backend.data && <BackendTag backend={backend.data} />}
      actions={backend.data && <Actions backend={backend.data} />}
    >
      <Load query={backend} lines={8}>
        {(b) => (
          <div class="stack-wide">
            {b.warnings.map((w) => (
              <Notice key={w} tone="warn">
                {w}
              </Notice>
            ))}
            <div class="grid">
              <ReachCard backend={b} />
              <GivesCard backend={b} />
              <RequestsCard backend={b} />
            </div>
          </div>
        )}
      </Load>
    </Page>
  );
}

function Actions({ backend: b }: { backend: RemoteBackend }) {
  const [open, setOpen] = useState<"change" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <TestBackendButton backend={b} />
      <Button needs="manage" onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>
      <Button
        kind="danger"
        needs="manage"
        reason={b.vpools.length > 0 ? msg`vPools are on it: ${b.vpools.join(", ")}. Delete them first` : undefined}
        onClick={() => setOpen("delete")}
      >
        {msg`Delete`}
      </Button>
      {open === "change" && <ChangeBackendDialog backend={b} onClose={close} />}
      {open === "delete" && <DeleteBackendDialog backend={b} onClose={close} />}
    </>
  );
}

function ReachCard({ backend: b }: { backend: RemoteBackend }) {
  const o = b.options;
  const limit = (n: number) => (n > 0 ? msg`${rate(n)} for each vPool` : "none");
  // What is empty has its default, and says nothing.
  const given: [string, string][] = [
    [msg`Region`, o.region],
    [msg`Project`, o.project],
    [msg`Domain`, o.domain],
    [msg`Storage policy`, o.policy],
    [msg`Proxy`, o.proxy],
  ];
  return (
    <Card title={msg`How it is reached`} class="span-6">
      <Facts
        rows={[
          [msg`Store`, kindName(b)],
          [b.kind === "s3" ? msg`Endpoint` : msg`Sign-in`, <code key="url">{o.url || msg`Amazon's of ${o.region || msg`its region`}`}</code>],
          [b.kind === "s3" ? msg`Bucket` : msg`Container`, <code key="container">{o.container}</code>],
          ...given.filter(([, value]) => value),
          [
            b.kind === "s3" ? msg`Access key` : msg`User`,
            o.iam ? msg`of the environment or the machine's role` : o.user ? <code key="user">{o.user}</code> : "none",
          ],
          [msg`Secret`, b.hasSecret ? msg`kept sealed` : "none"],
          ...(b.kind === "s3"
            ? ([[msg`Encryption by the store`, o.sse]] as [string, string][])
            : ([[msg`Containers`, String(o.shards)]] as [string, string][])),
          [msg`Trusts`, o.ca ? msg`certificates of its own` : msg`the system's certificates`],
          [msg`Connections`, msg`${o.connections || 64} at a time`],
          [msg`Upload limit`, limit(o.uploadBytes)],
          [msg`Download limit`, limit(o.downloadBytes)],
          [msg`Registered`, <Age key="created" at={b.created} />],
        ]}
      />
    </Card>
  );
}

function GivesCard({ backend: b }: { backend: RemoteBackend }) {
  return (
    <section class="span-6 stack">
      <Card
        title={msg`What it gives`}
        aside={
          <span class="muted small">
            {rich`Tested ${<Age at={b.testedAt} />}`}
          </span>
        }
      >
        <ul class="bullets">
          {b.gives.map((g) => (
            <li key={g}>{g}</li>
          ))}
        </ul>
      </Card>
      <Card title={msg`vPools on it`}>
        {b.vpools.length > 0 ? (
          <ul class="bullets">
            {b.vpools.map((v) => (
              <li key={v}>
                <Link to={`/vpools/${encodeURIComponent(v)}`}>{v}</Link>
              </li>
            ))}
          </ul>
        ) : (
          <p class="muted">
            {rich`None yet. ${<Link to="/vpools/new">{msg`Create a vPool`}</Link>} and choose it as the backend.`}
          </p>
        )}
      </Card>
    </section>
  );
}

const columns: Column<StoreRequests>[] = [
  { key: "kind", title: msg`Request`, cell: (r) => r.kind },
  { key: "requests", title: msg`Count`, right: true, cell: (r) => count(r.requests) },
  { key: "failed", title: msg`Failed`, right: true, cell: (r) => count(r.failed) },
  { key: "share", title: msg`Failed share`, right: true, cell: (r) => (r.requests > 0 ? percent(r.failed, r.requests) : "–") },
  { key: "bytes", title: msg`Data moved`, right: true, cell: (r) => bytes(r.bytes) },
];

function RequestsCard({ backend: b }: { backend: RemoteBackend }) {
  return (
    <Card title={msg`Requests that the store may charge for`} class="span-12">
      {b.requests.length > 0 ? (
        <div class="stack">
          <DataTable label={msg`Requests`} columns={columns} rows={b.requests} rowKey={(r) => r.kind} />
          <p class="muted small">
            {rich`Of this node, for all vPools on it, since each was opened. ${<Link to={performanceAddress([{ kind: "backend", name: b.name, id: b.id }]) + "&range=1h"}>{msg`Over time`}</Link>}`}
          </p>
        </div>
      ) : (
        <p class="muted">{msg`No vPool on it is open at this node: nothing was asked yet.`}</p>
      )}
    </Card>
  );
}
