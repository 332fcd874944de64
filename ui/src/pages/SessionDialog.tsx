import type { ISCSISession, ISCSISessionDetail, IOStats, LUNStats } from "../api/gen";
import { useState } from "preact/hooks";
import { bytes, count, interval, latency, rate, time } from "../format";
import { useSession } from "../store/reads";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Dialog } from "../parts/Dialog";
import { Load } from "../parts/Load";
import { Facts } from "../parts/Page";

/** A button that shows what one session negotiated and does. */
export function SessionDetails({ session }: { session: ISCSISession }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button small label={`Details of the session of ${session.initiator}`} onClick={() => setOpen(true)}>
        Details
      </Button>
      {open && <SessionDialog session={session} onClose={() => setOpen(false)} />}
    </>
  );
}

function SessionDialog({ session, onClose }: { session: ISCSISession; onClose: () => void }) {
  const detail = useSession(session.id);
  return (
    <Dialog title="iSCSI session" onClose={onClose}>
      <Load query={detail} lines={8}>
        {(s) => (
          <div class="stack-wide">
            <Facts rows={facts(s)} />
            {s.luns.length > 0 ? (
              <>
                <DataTable label="LUNs" columns={columns} rows={rows(s)} rowKey={(r) => r.key} />
                <p class="muted small">
                  Rates and latencies of the last {interval(s.spanMs)}; latencies from the arrival of a command to its
                  answer, as upper bounds. Commands and errors since the sign-in.
                </p>
              </>
            ) : (
              <p class="muted">It has not used a LUN yet.</p>
            )}
          </div>
        )}
      </Load>
    </Dialog>
  );
}

function facts(s: ISCSISessionDetail): [string, string][] {
  const n = s.negotiated;
  const digest = (on: boolean) => (on ? "CRC32C" : "none");
  return [
    ["Initiator", s.session.initiator],
    ["From", s.session.address],
    ["Group", s.group],
    ["Portal", `${s.session.portal}, portal group ${s.portalGroup}`],
    ["Since", time(s.session.since)],
    ["Data", `${bytes(s.bytesRead)} read, ${bytes(s.bytesWritten)} written`],
    ["Commands", `${count(s.commands)}, ${s.outstanding} not answered yet`],
    ["Digests", `header ${digest(n.headerDigest)}, data ${digest(n.dataDigest)}`],
    ["Data in a PDU", `${bytes(n.maxRecvInitiator)} to the host, ${bytes(n.maxRecvTarget)} to the target`],
    ["Bursts", `${bytes(n.firstBurst)} first, ${bytes(n.maxBurst)} at most`],
    ["Unsolicited data", `immediate ${yes(n.immediateData)}, without R2T ${yes(!n.initialR2T)}`],
    ["Recovery", `level ${n.errorRecoveryLevel}, wait ${n.time2Wait} s, retain ${n.time2Retain} s`],
  ];
}

function yes(b: boolean): string {
  return b ? "yes" : "no";
}

type Row = { key: string; lun: LUNStats; kind: string; io: IOStats };

function rows(s: ISCSISessionDetail): Row[] {
  return s.luns.flatMap((lun) =>
    (["read", "write", "other"] as const).map((kind) => ({ key: `${lun.lun} ${kind}`, lun, kind, io: lun[kind] })),
  );
}

const columns: Column<Row>[] = [
  { key: "lun", title: "LUN", cell: (r) => (r.kind === "read" ? `${r.lun.lun}: ${r.lun.vdisk}` : "") },
  { key: "kind", title: "Kind", cell: (r) => r.kind },
  { key: "iops", title: "IOPS", right: true, cell: (r) => count(r.io.iops) },
  { key: "bytes", title: "Data", right: true, cell: (r) => rate(r.io.bytesPerSecond) },
  { key: "p50", title: "p50", right: true, cell: (r) => latency(r.io.p50Us) },
  { key: "p99", title: "p99", right: true, cell: (r) => latency(r.io.p99Us) },
  { key: "commands", title: "Cmds", right: true, cell: (r) => count(r.io.commands) },
  { key: "errors", title: "Errors", right: true, cell: (r) => count(r.io.errors) },
  {
    key: "depth",
    title: "Queued, most",
    right: true,
    cell: (r) => (r.kind === "read" ? `${r.lun.depth}, ${r.lun.maxDepth}` : ""),
  },
];
