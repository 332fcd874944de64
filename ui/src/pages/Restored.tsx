import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Metadata, RestoredVPool, StrangeVDisk } from "../api/gen";
import { bytes, plural } from "../format";
import { reload, useQuery } from "../store/query";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card, Facts } from "../parts/Page";
import { Tag } from "../parts/StateTag";
import { msg, noun, rich } from "../text";

/** ms between reads: a comparison takes seconds, and is repeated each minute until nothing is in its way. */
const everyMs = 3000;

/** What a restore of the metadata left to do for one vPool, by its name, or for all that the node reaches. */
export function RestoredCards({ vpool }: { vpool?: string }) {
  const metadata = useQuery<Metadata>("metadata", () => call("GET /metadata"), everyMs);
  return (
    <Load query={metadata} lines={2}>
      {(m) => {
        const shown = m.vpools.filter((p) => vpool === undefined || p.vpool === vpool);
        if (shown.length > 0) {
          return shown.map((p) => <RestoredCard key={p.vpool} restored={p} />);
        }
        return vpool === undefined ? (
          <Card title={msg`Restored metadata`} class="span-12">
            <p class="muted">{msg`The metadata were not restored, as far as this node knows of vPools that it reaches.`}</p>
          </Card>
        ) : null;
      }}
    </Load>
  );
}

type Row = StrangeVDisk & { what: string };

const columns: Column<Row>[] = [
  { key: "what", title: msg`It is`, cell: (d) => d.what },
  {
    key: "name",
    title: msg`vDisk`,
    cell: (d) => (
      <>
        {d.name || "–"}
        <div class="small">
          <code>{d.id}</code>
        </div>
      </>
    ),
  },
  { key: "size", title: msg`Size`, right: true, cell: (d) => (d.size > 0 ? bytes(d.size) : "–") },
  { key: "reason", title: msg`Why`, wrap: true, cell: (d) => d.reason },
];

function RestoredCard({ restored: r }: { restored: RestoredVPool }) {
  const [accepting, setAccepting] = useState(false);
  const rows: Row[] = [
    ...r.unclear.map((d) => ({ ...d, what: msg`Unclear` })),
    ...r.accepted.map((d) => ({ ...d, what: msg`Accepted` })),
    ...r.missing.map((d) => ({ ...d, what: msg`Missing on the backend` })),
    ...r.orphans.map((d) => ({ ...d, what: msg`Orphan` })),
  ];
  return (
    <Card title={msg`Restored metadata of ${r.vpool}`} class="span-12" aside={r.deletesOff ? <Tag tone="warn" word={msg`Deletes are off`} /> : <Tag tone="ok" word={msg`Deletes are on`} />}>
      <div class="stack">
        {r.deletesOff && (
          <Notice tone="warn">
            <span>{msg`Nothing is deleted from the backend until its vDisks were compared with it, so that nothing goes that newer states need.`}</span>
            <span>{r.reason}</span>
          </Notice>
        )}
        <Facts
          rows={[
            [msg`Backup of`, <Age key="made" at={r.backupAt} />],
            [msg`Restored`, <Age key="restored" at={r.restoredAt} />],
            [msg`Compared`, r.comparedAt ? <Age key="compared" at={r.comparedAt} /> : msg`not yet`],
            [msg`vDisks compared`, msg`${r.compared}, ${r.newer} of them newer on the backend`],
          ]}
        />
        {rows.length > 0 && <DataTable label={msg`vDisks of ${r.vpool} that differ`} columns={columns} rows={rows} rowKey={(d) => d.what + d.id} />}
        {r.more && <p class="muted small">{msg`There are more than are listed.`}</p>}
        {r.orphans.length > 0 && (
          <p>
            {rich`${<Link to="/vpools/recover">{msg`Recover the vPool`}</Link>} to have orphans registered.`}
          </p>
        )}
        {r.unclear.length > 0 && (
          <div class="row">
            <Button kind="danger" needs="manage" onClick={() => setAccepting(true)}>
              {rich`Do without ${plural(r.unclear.length, noun`unclear vDisk`)}`}
            </Button>
          </div>
        )}
        {accepting && <Accept restored={r} onClose={() => setAccepting(false)} />}
      </div>
    </Card>
  );
}

function Accept({ restored: r, onClose }: { restored: RestoredVPool; onClose: () => void }) {
  const names = r.unclear.map((d) => d.name || d.id);
  const act = async () => {
    await call("POST /metadata/accept", { body: { vpool: r.vpool, vdisks: r.unclear.map((d) => d.id) } });
    toast("ok", msg`vPool ${r.vpool} is compared again`);
    reload("metadata", "status", "vpool:");
    onClose();
  };
  return (
    <Confirm
      title={msg`Do without ${plural(names.length, noun`unclear vDisk`)} of ${r.vpool}`}
      verb={msg`Do without them`}
      danger
      typeName={r.vpool}
      consequences={[
        msg`Given up: what ${names.slice(0, 5).join(", ")}${names.length > 5 ? msg` and ${names.length - 5} more` : ""} may need. Their newest state on the backend cannot be read, so nobody can say what that is.`,
        msg`Deletes of the vPool go on; what they take from now on does not come back.`,
        msg`The vDisks are left as they are. Bring back what cannot be read instead, if there is a copy of it: that loses nothing.`,
      ]}
      onClose={onClose}
      act={act}
    />
  );
}
