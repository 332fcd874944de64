import type { Health, HealthCause, Performance, Status } from "../api/gen";
import { bytes, count, latency } from "../format";
import { nodeSamples } from "../store/metrics";
import { useNodes, useStatus } from "../store/reads";
import { denied } from "../store/session";
import { Age, Seen } from "../parts/Age";
import { Charts } from "../parts/Charts";
import { Lazy } from "../parts/Lazy";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone } from "../parts/Meter";
import { Card, Facts, Page } from "../parts/Page";
import { Sparkline } from "../parts/Sparkline";
import { StackBar } from "../parts/StackBar";
import { glyphs, healthFace } from "../parts/StateTag";
import { Checklist } from "./Checklist";
import { msg, rich } from "../text";

const loadMore = () => import("./OverviewMore");

/** The node at a glance: health with causes, capacity, live performance, what goes on and happened, counts. */
export function OverviewPage() {
  const status = useStatus();
  const all = !denied("read");
  const several = (useNodes().data?.items.length ?? 0) > 1;
  return (
    <Page title={msg`Overview`}>
      <Load query={status} lines={8}>
        {(s) => (
          <div class="grid">
            {s.health.causes.length > 0 && <HealthCard status={s} />}
            {all && <Checklist status={s} />}
            {s.health.causes.length === 0 && <HealthCard status={s} />}
            <CapacityCard status={s} class={width(s)} />
            <IOPSCard status={s} class={width(s)} />
            <LatencyCard status={s} class={width(s)} />
            {all && (
              <>
                <Charts kind="node" id={s.node.id} name={s.node.name} />
                <Lazy load={loadMore} waiting={null}>
                  {(m) => <m.OverviewMore status={s} several={several} />}
                </Lazy>
              </>
            )}
            <CountsCard status={s} />
            <NodeCard status={s} />
          </div>
        )}
      </Load>
    </Page>
  );
}

type CardProps = { status: Status; class: string };

/** Causes need the whole width; the other three cards then share a row. */
function width({ health }: Status): string {
  return health.causes.length > 0 ? "span-4" : "span-3";
}

function HealthCard({ status: { health } }: { status: Status }) {
  return (
    <Card title={msg`Health`} class={health.causes.length > 0 ? "span-12" : "span-3"}>
      <Verdict health={health} />
    </Card>
  );
}

/** How the node is, and each cause. */
export function Verdict({ health }: { health: Health }) {
  const { tone } = healthFace(health.state);
  const verdict = { ok: msg`Healthy`, warning: msg`Needs attention`, error: msg`At risk` }[health.state];
  return (
    <div class="stack">
      <div class={`verdict tone-${tone}`}>
        <span aria-hidden="true">{glyphs[tone]}</span> {verdict}
      </div>
      {health.causes.length === 0 ? (
        <p class="muted">{msg`Every vPool and every vDisk does its work.`}</p>
      ) : (
        <ul class="causes">
          {health.causes.map((c) => (
            <Cause key={c.code + c.object} cause={c} />
          ))}
        </ul>
      )}
    </div>
  );
}

/** What is wrong, where that is dealt with, and how. */
export function Cause({ cause }: { cause: HealthCause }) {
  const { tone } = healthFace(cause.state);
  const remedy = remedyOf(cause);
  return (
    <li class="cause">
      <span class={`tone-${tone}`} aria-hidden="true">
        {glyphs[tone]}
      </span>
      <b>{cause.text}</b>
      {remedy && (
        <Link class="btn small" to={remedy.to}>
          {remedy.text}
        </Link>
      )}
      {cause.hint && <p class="muted">{cause.hint}</p>}
    </li>
  );
}

/** Where a cause is dealt with: its object is given as kind and name, such as "vdisk demo". */
function remedyOf({ code, object }: HealthCause): { to: string; text: string } | undefined {
  const [kind, name] = object.split(" ", 2);
  if (name && (kind === "vdisk" || kind === "vpool" || kind === "backend" || kind === "node")) {
    return { to: `/${kind}s/${encodeURIComponent(name)}`, text: msg`Open ${name}` };
  }
  if (name && kind === "osd") {
    return code === "osd_full"
      ? { to: `/disks/${name}`, text: msg`Open device ${name}` }
      : { to: `/disks/${name}/replace`, text: msg`Replace disk` };
  }
  return code.startsWith("alba") ? { to: "/alba", text: msg`Open object store` } : undefined;
}

/** A greater ratio says that next to nothing is stored, and no more. */
const ratioMost = 1000;

function CapacityCard({ status: { capacity: c }, class: name }: CardProps) {
  const used = c.total - c.free;
  const mapped = Math.min(c.mapped, c.stored); // compression, and what is not on the backend yet, can make it more
  return (
    <Card title={msg`Capacity`} class={name}>
      <div class="stack">
        <div class="kpi" data-testid="stored">
          {bytes(c.stored)}
          <small>{msg`stored`}</small>
        </div>
        <StackBar
          format={bytes}
          whole={c.total}
          layers={[
            { key: "mapped", value: mapped, text: msg`data of vDisks`, colour: fillTone(used / c.total) },
            { key: "older", value: c.stored - mapped, text: msg`overwritten, or kept for snapshots`, colour: "second" },
            { key: "others", value: c.total > 0 ? used - c.stored : 0, text: msg`of others`, colour: "tone-idle" },
          ]}
        />
        <p class="muted small">
          {rich`${c.total > 0 ? msg`${bytes(c.free)} free of ${bytes(c.total)}; ` : ""}${bytes(c.provisioned)} provisioned${c.provisioned > c.stored && c.provisioned < ratioMost * c.stored ? msg`, ${count(c.provisioned / c.stored)} times what is stored` : ""}`}
        </p>
      </div>
    </Card>
  );
}

function IOPSCard({ status, class: name }: CardProps) {
  const p = nodeSamples.value.at(-1)?.performance ?? status.performance;
  return (
    <Card title={msg`IOPS`} class={name}>
      <div class="kpi num" data-testid="iops">
        {count(p.readIops + p.writeIops)}
      </div>
      <p class="muted small">
        {rich`${count(p.readIops)} read, ${count(p.writeIops)} write, now`}
      </p>
      <Trend what={msg`IOPS`} format={count} of={(s) => s.readIops + s.writeIops} />
    </Card>
  );
}

function LatencyCard({ status, class: name }: CardProps) {
  const p = nodeSamples.value.at(-1)?.performance ?? status.performance;
  return (
    <Card title={msg`Latency p99`} class={name}>
      <div class="kpi num">{latency(Math.max(p.readP99Us, p.writeP99Us))}</div>
      <p class="muted small">
        {p.readP99Us || p.writeP99Us
          ? msg`${latency(p.readP99Us)} read, ${latency(p.writeP99Us)} write, inside the node`
          : msg`No reads or writes now`}
      </p>
      <Trend what={msg`Latency p99`} format={latency} of={(s) => Math.max(s.readP99Us, s.writeP99Us)} />
    </Card>
  );
}

/** A figure of the node in the time that the stream has told of it. */
function Trend({ what, format, of }: { what: string; format: (n: number) => string; of: (p: Performance) => number }) {
  const values = nodeSamples.value.map((s) => of(s.performance));
  return <Sparkline label={msg`${what} of the last two minutes, at most ${format(Math.max(0, ...values))}`} values={values} />;
}

function CountsCard({ status: { counts } }: { status: Status }) {
  const entries: [string, number, string][] = [
    [msg`vPools`, counts.vpools, "/vpools"],
    [msg`vDisks`, counts.vdisks, "/vdisks"],
    [msg`Published`, counts.published, "/iscsi"],
    [msg`iSCSI sessions`, counts.sessions, "/iscsi"],
  ];
  return (
    <Card title={msg`Objects`} class="span-6">
      <div class="counts">
        {entries.map(([name, n, to]) => (
          <Link key={name} to={to}>
            <b class="num">{n}</b>
            <span class="muted">{name}</span>
          </Link>
        ))}
      </div>
    </Card>
  );
}

function NodeCard({ status }: { status: Status }) {
  const { capacity: c } = status;
  return (
    <Card title={msg`Node`} class="span-6" aside={<Seen at={status.observedAt} />}>
      <Facts
        rows={[
          [msg`Name`, status.node.name],
          [msg`Version`, status.version],
          [msg`Started`, <Age at={status.started} />],
          [msg`iSCSI portals`, status.portals.map((p) => p.address).join(", ") || msg`none`],
          [msg`Journal`, msg`${bytes(c.journalUsed)} of ${bytes(c.journalQuota)} waits for the backend`],
        ]}
      />
    </Card>
  );
}
