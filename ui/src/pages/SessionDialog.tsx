import type { ISCSISession, ISCSISessionDetail, IOStats, LUNStats } from "../api/gen";
import { useState } from "preact/hooks";
import { bytes, count, interval, latency, rate, time } from "../format";
import { useSession } from "../store/reads";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Dialog } from "../parts/Dialog";
import { Load } from "../parts/Load";
import { Facts } from "../parts/Page";
import { msg, rich } from "../text";

/** A button that shows what one session negotiated and does. */
export function SessionDetails({ session }: { session: ISCSISession }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button small label={msg`Details of the session of ${session.initiator}`} onClick={() => setOpen(true)}>
        {msg`Details`}
      </Button>
      {open && <SessionDialog session={session} onClose={() => setOpen(false)} />}
    </>
  );
}

function SessionDialog({ session, onClose }: { session: ISCSISession; onClose: () => void }) {
  const detail = useSession(session.id);
  return (
    <Dialog title={msg`iSCSI session`} onClose={onClose}>
      <Load query={detail} lines={8}>
        {(s) => (
          <div class="stack-wide">
            <Facts rows={facts(s)} />
            {s.luns.length > 0 ? (
              <>
                <DataTable label={msg`LUNs`} columns={columns} rows={rows(s)} rowKey={(r) => r.key} />
                <p class="muted small">
                  {rich`Rates and latencies of the last ${interval(s.spanMs)}; latencies from the arrival of a command to its answer, as upper bounds. Commands and errors since the sign-in.`}
                </p>
              </>
            ) : (
              <p class="muted">{msg`It has not used a LUN yet.`}</p>
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
    [msg`Initiator`, s.session.initiator],
    [msg`From`, s.session.address],
    [msg`Group`, s.group],
    [msg`Portal`, msg`${s.session.portal}, portal group ${s.portalGroup}`],
    [msg`Since`, time(s.session.since)],
    [msg`Data`, msg`${bytes(s.bytesRead)} read, ${bytes(s.bytesWritten)} written`],
    [msg`Commands`, msg`${count(s.commands)}, ${s.outstanding} not answered yet`],
    [msg`Digests`, msg`header ${digest(n.headerDigest)}, data ${digest(n.dataDigest)}`],
    [msg`Data in a PDU`, msg`${bytes(n.maxRecvInitiator)} to the host, ${bytes(n.maxRecvTarget)} to the target`],
    [msg`Bursts`, msg`${bytes(n.firstBurst)} first, ${bytes(n.maxBurst)} at most`],
    [msg`Unsolicited data`, msg`immediate ${yes(n.immediateData)}, without R2T ${yes(!n.initialR2T)}`],
    [msg`Recovery`, msg`level ${n.errorRecoveryLevel}, wait ${n.time2Wait} s, retain ${n.time2Retain} s`],
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
  { key: "lun", title: msg`LUN`, cell: (r) => (r.kind === "read" ? `${r.lun.lun}: ${r.lun.vdisk}` : "") },
  { key: "kind", title: msg`Kind`, cell: (r) => r.kind },
  { key: "iops", title: msg`IOPS`, right: true, cell: (r) => count(r.io.iops) },
  { key: "bytes", title: msg`Data`, right: true, cell: (r) => rate(r.io.bytesPerSecond) },
  { key: "p50", title: "p50", right: true, cell: (r) => latency(r.io.p50Us) },
  { key: "p99", title: "p99", right: true, cell: (r) => latency(r.io.p99Us) },
  { key: "commands", title: msg`Cmds`, right: true, cell: (r) => count(r.io.commands) },
  { key: "errors", title: msg`Errors`, right: true, cell: (r) => count(r.io.errors) },
  {
    key: "depth",
    title: msg`Queued, most`,
    right: true,
    cell: (r) => (r.kind === "read" ? `${r.lun.depth}, ${r.lun.maxDepth}` : ""),
  },
];
