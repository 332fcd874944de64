// What lists show of one row beside them: a script of its own, loaded when a row is looked at first.
import type { ComponentChildren } from "preact";
import { call } from "../api/client";
import type { Member, OSD, Snapshot, VDisk, VPool } from "../api/gen";
import { bytes, count, latency, percent, time } from "../format";
import { ranges, useHistory, type Charted } from "../store/history";
import { useOSD } from "../store/objects";
import { useQuery } from "../store/query";
import { statusEveryMs, useStatus, useTarget, vdiskKey, vpoolKey } from "../store/reads";
import { Age } from "../parts/Age";
import { HealthTag, label, OSDTag, place, temperature } from "../parts/DeviceParts";
import { LabelChips } from "../parts/LabelChips";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Notice } from "../parts/Notice";
import { Facts } from "../parts/Page";
import { Peek } from "../parts/Peek";
import { Sparkline } from "../parts/Sparkline";
import { Tag, VDiskTag, VPoolTag, vdiskFace, vpoolFace } from "../parts/StateTag";
import { NodeTag } from "./Nodes";
import { mirrored } from "./VDiskNode";

/** The time of the lines. */
const range = ranges.find((r) => r.id === "10m");

type Row = [string, ComponentChildren];

/** One vDisk. */
export function PeekVDisk({ id }: { id: string }) {
  const vdisk = useQuery<VDisk>(vdiskKey(id), () => call("GET /vdisks/{vdisk}", { path: { vdisk: id } }), statusEveryMs);
  const v = vdisk.data;
  return (
    <Peek id={id} title={v?.name ?? id} to={`/vdisks/${encodeURIComponent(v?.name ?? id)}`} state={v && <VDiskTag state={v.state} />}>
      <Load query={vdisk}>{(shown) => <VDiskFacts vdisk={shown} />}</Load>
    </Peek>
  );
}

function VDiskFacts({ vdisk: v }: { vdisk: VDisk }) {
  const rows: Row[] = [
    ["vPool", <Link key="vpool" to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link>],
    ["Node", v.node],
    ["Journal mirrored", mirrored(v.dtl)],
    ["Stored", bytes(v.stored)],
    [
      "Published",
      v.published ? (
        <Link key="iqn" to={`/iscsi/${encodeURIComponent(v.published.iqn)}`}>
          <span class="mono">{v.published.iqn}</span>
        </Link>
      ) : (
        "no"
      ),
    ],
    ...(v.published ? ([["Sessions", v.published.sessions]] as Row[]) : []),
    ["Labels", <LabelChips key="labels" labels={v.labels} />],
    ["Created", <Age key="created" at={v.created} />],
    ["Last commit", <Age key="commit" at={v.lastCommit} />],
  ];
  return (
    <>
      {v.stateReason && <Notice tone={vdiskFace(v.state).tone}>{v.stateReason}</Notice>}
      <Lines kind="vdisk" id={v.id} at={v.node} />
      <Fill what="Written" part={v.mapped} whole={v.size} plain />
      <Fill what="Journal" part={v.journal.used} whole={v.journal.quota} />
      <Facts rows={rows} />
    </>
  );
}

/** One vPool. */
export function PeekVPool({ id }: { id: string }) {
  const vpool = useQuery<VPool>(vpoolKey(id), () => call("GET /vpools/{vpool}", { path: { vpool: id } }), statusEveryMs);
  const p = vpool.data;
  return (
    <Peek id={id} title={p?.name ?? id} to={`/vpools/${encodeURIComponent(p?.name ?? id)}`} state={p && <VPoolTag state={p.state} />}>
      <Load query={vpool}>
        {(shown) => (
          <>
            {shown.stateReason && <Notice tone={vpoolFace(shown.state).tone}>{shown.stateReason}</Notice>}
            <Lines kind="vpool" id={shown.id} at={shown.node ?? undefined} />
            {shown.total > 0 && <Fill what="Disk" part={shown.total - shown.free} whole={shown.total} />}
            <Facts
              rows={[
                ["vDisks", <Link key="vdisks" to={`/vdisks?vpool=${encodeURIComponent(shown.name)}`}>{shown.vdisks}</Link>],
                ["Backend", shown.backend.kind === "alba" ? "Object store" : shown.backend.store || "Directory"],
                ["Place", <code key="path">{shown.backend.path}</code>],
                ["Stored", bytes(shown.stored)],
                ["Written", bytes(shown.mapped)],
                ["Provisioned", bytes(shown.provisioned)],
                ["Created", <Age key="created" at={shown.created} />],
              ]}
            />
          </>
        )}
      </Load>
    </Peek>
  );
}

/** One device of the object store. */
export function PeekDevice({ number }: { number: number }) {
  const osd = useOSD(number);
  return (
    <Peek id={String(number)} title={`Device ${number}`} to={`/disks/${number}`} state={osd.data && <OSDTag osd={osd.data} />}>
      <Load query={osd}>{(o) => <DeviceFacts osd={o} />}</Load>
    </Peek>
  );
}

function DeviceFacts({ osd: o }: { osd: OSD }) {
  return (
    <>
      {o.problem && <Notice tone="bad">{o.problem}</Notice>}
      <Fill what="Used" part={o.used} whole={o.total} />
      <Facts
        rows={[
          ["Node", [o.node, o.domain && `in ${o.domain}`].filter(Boolean).join(", ")],
          [o.kind === "local" ? "Directory" : "Address", <code key="place">{place(o)}</code>],
          ["Disk", label(o.disk) || <span class="muted">not told</span>],
          ["SMART", <HealthTag key="health" disk={o.disk} />],
          ["Temperature", temperature(o.disk)],
          ["Seen", <Age key="seen" at={o.observedAt} />],
        ]}
      />
    </>
  );
}

/** One target: where and to whom it is shown, and its LUNs. */
export function PeekTarget({ iqn }: { iqn: string }) {
  const target = useTarget(iqn);
  const name = target.data?.luns.length === 1 ? target.data.luns[0]?.vdisk : undefined;
  return (
    <Peek id={iqn} title={name ? `Target of ${name}` : "Target"} to={`/iscsi/${encodeURIComponent(iqn)}`}>
      <Load query={target}>
        {(t) => (
          <Facts
            rows={[
              ["Name", <span key="iqn" class="mono">{t.iqn}</span>],
              ["Sessions", t.sessions],
              ["Initiators", t.open ? "any with the secret" : t.acl.length > 0 ? <Each key="acl" of={t.acl} /> : <span class="muted">nobody yet</span>],
              ...t.luns.map((l): Row => [`LUN ${l.lun}`, <span key={l.lun}><Link to={`/vdisks/${encodeURIComponent(l.vdisk)}`}>{l.vdisk}</Link>, {bytes(l.size)}</span>]),
              ["Created", <Age key="created" at={t.created} />],
            ]}
          />
        )}
      </Load>
    </Peek>
  );
}

/** Several names, each in a line. */
function Each({ of }: { of: string[] }) {
  return (
    <>
      {of.map((line) => (
        <div key={line} class="mono">
          {line}
        </div>
      ))}
    </>
  );
}

/** One node of the cluster. */
export function PeekNode({ id }: { id: string }) {
  const node = useQuery<Member>("node:" + id, () => call("GET /nodes/{node}", { path: { node: id } }), statusEveryMs);
  const n = node.data;
  return (
    <Peek id={id} title={n?.name ?? id} to={`/nodes/${encodeURIComponent(n?.name ?? id)}`} state={n && <NodeTag node={n} />}>
      <Load query={node}>
        {(shown) => (
          <>
            <Lines kind="node" id={shown.id} at={shown.name} />
            {shown.load && (
              <>
                <Fill what="Processors" part={shown.load.cpu} whole={100} format={share} />
                <Fill what="Memory" part={shown.load.memory} whole={100} format={share} />
                <Fill what="Journals" part={shown.load.journal} whole={100} format={share} />
              </>
            )}
            <Facts
              rows={[
                ["vDisks", <Link key="vdisks" to={`/vdisks?node=${encodeURIComponent(shown.name)}`}>{shown.vdisks}</Link>],
                ["Domain", shown.domain || <span class="muted">not said</span>],
                ["Portals", shown.portals.length > 0 ? <Each key="portals" of={shown.portals} /> : "none"],
                ["Version", shown.version],
                ["Started", <Age key="started" at={shown.startedAt} />],
                ["Joined", <Age key="joined" at={shown.joinedAt} />],
              ]}
            />
          </>
        )}
      </Load>
    </Peek>
  );
}

/** One snapshot, as its list has it; undefined: that has it no more. */
export function PeekSnapshot({ id, snapshot: s }: { id: string; snapshot: Snapshot | undefined }) {
  return (
    <Peek id={id} title={s?.name ?? "Snapshot"} state={s && (s.inBackend ? <Tag tone="ok" word="In the backend" /> : <Tag tone="info" word="Not in the backend yet" />)}>
      {s ? (
        <Facts
          rows={[
            ["Made", time(s.created)],
            ["Age", <Age key="age" at={s.created} />],
            ["Size", bytes(s.size)],
            ["By", s.automatic ? "schedule" : "hand"],
            ["Consistent", s.consistent ? "applications" : "crash"],
            ["Sticky", s.sticky ? "yes" : "no"],
            ["Labels", <LabelChips key="labels" labels={s.labels} />],
            ["Id", <code key="id">{s.id}</code>],
          ]}
        />
      ) : (
        <p class="muted">It is not on this page of the list.</p>
      )}
    </Peek>
  );
}

const share = (n: number): string => `${n} %`;

/** How full something is; plain where full is no trouble. */
function Fill({ what, part, whole, plain, format = bytes }: { what: string; part: number; whole: number; plain?: boolean; format?: (n: number) => string }) {
  const share = whole > 0 ? part / whole : 0;
  return (
    <div class="stack-tight">
      <div class="row">
        <b>{what}</b> <span class="spacer" />
        {format === bytes ? `${bytes(part)} of ${bytes(whole)} (${percent(part, whole)})` : format(part)}
      </div>
      <Meter label={`${what}: ${percent(part, whole)}`} parts={[{ share, class: plain ? "" : fillTone(share) }]} />
    </div>
  );
}

/** Requests and latency: now, and of the last ten minutes. */
function Lines({ at, ...of }: { kind: Charted["kind"]; id: string; at?: string | undefined }) {
  const here = useStatus().data?.node.name;
  const elsewhere = Boolean(at && here && at !== here);
  const { samples } = useHistory({ ...of, elsewhere }, range ?? ranges[0]!);
  const last = samples.at(-1)?.performance;
  const iops = samples.map((s) => (s.gap ? null : s.performance.readIops + s.performance.writeIops));
  const p99 = samples.map((s) => (s.gap ? null : Math.max(s.performance.readP99Us, s.performance.writeP99Us)));
  const most = (all: (number | null)[]) => Math.max(0, ...all.map((v) => v ?? 0));
  return (
    <div class="peek-lines">
      <div>
        <div class="muted small">IOPS</div>
        <div class="kpi num">{last ? count(last.readIops + last.writeIops) : "–"}</div>
        <Sparkline label={`IOPS of the last ten minutes, at most ${count(most(iops))}`} values={iops} />
      </div>
      <div>
        <div class="muted small">Latency p99</div>
        <div class="kpi num">{last ? latency(Math.max(last.readP99Us, last.writeP99Us)) : "–"}</div>
        <Sparkline label={`Latency p99 of the last ten minutes, at most ${latency(most(p99))}`} values={p99} />
      </div>
    </div>
  );
}
