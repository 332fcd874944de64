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
import { msg } from "../text";

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
    [msg`vPool`, <Link key="vpool" to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link>],
    [msg`Node`, v.node],
    [msg`Journal mirrored`, mirrored(v.dtl)],
    [msg`Stored`, bytes(v.stored)],
    [
      msg`Published`,
      v.published ? (
        <Link key="iqn" to={`/iscsi/${encodeURIComponent(v.published.iqn)}`}>
          <span class="mono">{v.published.iqn}</span>
        </Link>
      ) : (
        "no"
      ),
    ],
    ...(v.published ? ([[msg`Sessions`, v.published.sessions]] as Row[]) : []),
    [msg`Labels`, <LabelChips key="labels" labels={v.labels} />],
    [msg`Created`, <Age key="created" at={v.created} />],
    [msg`Last commit`, <Age key="commit" at={v.lastCommit} />],
  ];
  return (
    <>
      {v.stateReason && <Notice tone={vdiskFace(v.state).tone}>{v.stateReason}</Notice>}
      <Lines kind="vdisk" id={v.id} at={v.node} />
      <Fill what={msg`Written`} part={v.mapped} whole={v.size} plain />
      <Fill what={msg`Journal`} part={v.journal.used} whole={v.journal.quota} />
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
            {shown.total > 0 && <Fill what={msg`Disk`} part={shown.total - shown.free} whole={shown.total} />}
            <Facts
              rows={[
                [msg`vDisks`, <Link key="vdisks" to={`/vdisks?vpool=${encodeURIComponent(shown.name)}`}>{shown.vdisks}</Link>],
                [msg`Backend`, shown.backend.kind === "alba" ? msg`Object store` : shown.backend.store || msg`Directory`],
                [msg`Place`, <code key="path">{shown.backend.path}</code>],
                [msg`Stored`, bytes(shown.stored)],
                [msg`Written`, bytes(shown.mapped)],
                [msg`Provisioned`, bytes(shown.provisioned)],
                [msg`Created`, <Age key="created" at={shown.created} />],
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
    <Peek id={String(number)} title={msg`Device ${number}`} to={`/disks/${number}`} state={osd.data && <OSDTag osd={osd.data} />}>
      <Load query={osd}>{(o) => <DeviceFacts osd={o} />}</Load>
    </Peek>
  );
}

function DeviceFacts({ osd: o }: { osd: OSD }) {
  return (
    <>
      {o.problem && <Notice tone="bad">{o.problem}</Notice>}
      <Fill what={msg`Used`} part={o.used} whole={o.total} />
      <Facts
        rows={[
          [msg`Node`, [o.node, o.domain && msg`in ${o.domain}`].filter(Boolean).join(", ")],
          [o.kind === "local" ? msg`Directory` : msg`Address`, <code key="place">{place(o)}</code>],
          [msg`Disk`, label(o.disk) || <span class="muted">{msg`not told`}</span>],
          [msg`SMART`, <HealthTag key="health" disk={o.disk} />],
          [msg`Temperature`, temperature(o.disk)],
          [msg`Seen`, <Age key="seen" at={o.observedAt} />],
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
    <Peek id={iqn} title={name ? msg`Target of ${name}` : msg`Target`} to={`/iscsi/${encodeURIComponent(iqn)}`}>
      <Load query={target}>
        {(t) => (
          <Facts
            rows={[
              [msg`Name`, <span key="iqn" class="mono">{t.iqn}</span>],
              [msg`Sessions`, t.sessions],
              [msg`Initiators`, t.open ? msg`any with the secret` : t.acl.length > 0 ? <Each key="acl" of={t.acl} /> : <span class="muted">{msg`nobody yet`}</span>],
              ...t.luns.map((l): Row => [msg`LUN ${l.lun}`, <span key={l.lun}><Link to={`/vdisks/${encodeURIComponent(l.vdisk)}`}>{l.vdisk}</Link>, {bytes(l.size)}</span>]),
              [msg`Created`, <Age key="created" at={t.created} />],
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
                <Fill what={msg`Processors`} part={shown.load.cpu} whole={100} format={share} />
                <Fill what={msg`Memory`} part={shown.load.memory} whole={100} format={share} />
                <Fill what={msg`Journals`} part={shown.load.journal} whole={100} format={share} />
              </>
            )}
            <Facts
              rows={[
                [msg`vDisks`, <Link key="vdisks" to={`/vdisks?node=${encodeURIComponent(shown.name)}`}>{shown.vdisks}</Link>],
                [msg`Domain`, shown.domain || <span class="muted">{msg`not said`}</span>],
                [msg`Portals`, shown.portals.length > 0 ? <Each key="portals" of={shown.portals} /> : "none"],
                [msg`Version`, shown.version],
                [msg`Started`, <Age key="started" at={shown.startedAt} />],
                [msg`Joined`, <Age key="joined" at={shown.joinedAt} />],
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
    <Peek id={id} title={s?.name ?? msg`Snapshot`} state={s && (s.inBackend ? <Tag tone="ok" word={msg`In the backend`} /> : <Tag tone="info" word={msg`Not in the backend yet`} />)}>
      {s ? (
        <Facts
          rows={[
            [msg`Made`, time(s.created)],
            [msg`Age`, <Age key="age" at={s.created} />],
            [msg`Size`, bytes(s.size)],
            [msg`By`, s.automatic ? "schedule" : "hand"],
            [msg`Consistent`, s.consistent ? "applications" : "crash"],
            [msg`Sticky`, s.sticky ? "yes" : "no"],
            [msg`Labels`, <LabelChips key="labels" labels={s.labels} />],
            [msg`Id`, <code key="id">{s.id}</code>],
          ]}
        />
      ) : (
        <p class="muted">{msg`It is not on this page of the list.`}</p>
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
        {format === bytes ? msg`${bytes(part)} of ${bytes(whole)} (${percent(part, whole)})` : format(part)}
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
        <div class="muted small">{msg`IOPS`}</div>
        <div class="kpi num">{last ? count(last.readIops + last.writeIops) : "–"}</div>
        <Sparkline label={msg`IOPS of the last ten minutes, at most ${count(most(iops))}`} values={iops} />
      </div>
      <div>
        <div class="muted small">{msg`Latency p99`}</div>
        <div class="kpi num">{last ? latency(Math.max(last.readP99Us, last.writeP99Us)) : "–"}</div>
        <Sparkline label={msg`Latency p99 of the last ten minutes, at most ${latency(most(p99))}`} values={p99} />
      </div>
    </div>
  );
}
