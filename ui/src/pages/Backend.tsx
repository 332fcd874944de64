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

/** One registered store: how it is reached, what it gives, what it was asked. */
export function BackendPage({ name }: { name: string }) {
  const backend = useBackend(name);
  return (
    <Page
      title={name}
      crumbs={[{ to: "/backends", text: "Backends" }]}
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
        Change
      </Button>
      <Button
        kind="danger"
        needs="manage"
        reason={b.vpools.length > 0 ? `vPools are on it: ${b.vpools.join(", ")}. Delete them first` : undefined}
        onClick={() => setOpen("delete")}
      >
        Delete
      </Button>
      {open === "change" && <ChangeBackendDialog backend={b} onClose={close} />}
      {open === "delete" && <DeleteBackendDialog backend={b} onClose={close} />}
    </>
  );
}

function ReachCard({ backend: b }: { backend: RemoteBackend }) {
  const o = b.options;
  const limit = (n: number) => (n > 0 ? `${rate(n)} for each vPool` : "none");
  // What is empty has its default, and says nothing.
  const given: [string, string][] = [
    ["Region", o.region],
    ["Project", o.project],
    ["Domain", o.domain],
    ["Storage policy", o.policy],
    ["Proxy", o.proxy],
  ];
  return (
    <Card title="How it is reached" class="span-6">
      <Facts
        rows={[
          ["Store", kindName(b)],
          [b.kind === "s3" ? "Endpoint" : "Sign-in", <code key="url">{o.url || `Amazon's of ${o.region || "its region"}`}</code>],
          [b.kind === "s3" ? "Bucket" : "Container", <code key="container">{o.container}</code>],
          ...given.filter(([, value]) => value),
          [
            b.kind === "s3" ? "Access key" : "User",
            o.iam ? "of the environment or the machine's role" : o.user ? <code key="user">{o.user}</code> : "none",
          ],
          ["Secret", b.hasSecret ? "kept sealed" : "none"],
          ...(b.kind === "s3"
            ? ([["Encryption by the store", o.sse]] as [string, string][])
            : ([["Containers", String(o.shards)]] as [string, string][])),
          ["Trusts", o.ca ? "certificates of its own" : "the system's certificates"],
          ["Connections", `${o.connections || 64} at a time`],
          ["Upload limit", limit(o.uploadBytes)],
          ["Download limit", limit(o.downloadBytes)],
          ["Registered", <Age key="created" at={b.created} />],
        ]}
      />
    </Card>
  );
}

function GivesCard({ backend: b }: { backend: RemoteBackend }) {
  return (
    <section class="span-6 stack">
      <Card
        title="What it gives"
        aside={
          <span class="muted small">
            Tested <Age at={b.testedAt} />
          </span>
        }
      >
        <ul class="bullets">
          {b.gives.map((g) => (
            <li key={g}>{g}</li>
          ))}
        </ul>
      </Card>
      <Card title="vPools on it">
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
            None yet. <Link to="/vpools/new">Create a vPool</Link> and choose it as the backend.
          </p>
        )}
      </Card>
    </section>
  );
}

const columns: Column<StoreRequests>[] = [
  { key: "kind", title: "Request", cell: (r) => r.kind },
  { key: "requests", title: "Count", right: true, cell: (r) => count(r.requests) },
  { key: "failed", title: "Failed", right: true, cell: (r) => count(r.failed) },
  { key: "share", title: "Failed share", right: true, cell: (r) => (r.requests > 0 ? percent(r.failed, r.requests) : "–") },
  { key: "bytes", title: "Data moved", right: true, cell: (r) => bytes(r.bytes) },
];

function RequestsCard({ backend: b }: { backend: RemoteBackend }) {
  return (
    <Card title="Requests that the store may charge for" class="span-12">
      {b.requests.length > 0 ? (
        <div class="stack">
          <DataTable label="Requests" columns={columns} rows={b.requests} rowKey={(r) => r.kind} />
          <p class="muted small">
            Of this node, for all vPools on it, since each was opened. <Link to={performanceAddress([{ kind: "backend", name: b.name, id: b.id }]) + "&range=1h"}>Over time</Link>
          </p>
        </div>
      ) : (
        <p class="muted">No vPool on it is open at this node: nothing was asked yet.</p>
      )}
    </Card>
  );
}
