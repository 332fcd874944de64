import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Alba, AlbaEvent, Namespace } from "../api/gen";
import { bytes, capital, count, percent, plural } from "../format";
import { navigate, query } from "../router";
import { useAlba, useNamespaces } from "../store/objects";
import { asApiError, reload } from "../store/query";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Card, Empty, Facts, Page } from "../parts/Page";
import { SafetyBar, safetyTone } from "../parts/SafetyBar";
import { SearchBox } from "../parts/SearchBox";
import { glyphs } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { RecoverDialog, RotateKeyDialog } from "./AlbaDialogs";
import { JobsCard } from "./Jobs";
import { bare, PresetsCard } from "./Presets";
import { msg, noun, rich } from "../text";

/** The erasure-coded object store: what it survives, its space, presets, work and namespaces. */
export function AlbaPage({ createPreset }: { createPreset?: boolean }) {
  const alba = useAlba();
  return (
    <Page title={msg`Object store`} actions={alba.data?.made && <Actions />}>
      <Load query={alba} lines={8}>
        {(a) =>
          a.made ? (
            <div class="grid">
              <SafetyCard alba={a} />
              <CapacityCard alba={a} />
              <FactsCard alba={a} />
              <PresetsCard create={createPreset} />
              <JobsCard />
              <PoliciesCard alba={a} />
              <EventsCard events={a.events} />
              <NamespacesCard />
            </div>
          ) : (
            <Empty
              title={msg`No object store yet`}
              text={msg`It keeps objects as fragments with parity on many devices, so that disks and nodes may fail. The first vPool on it makes it, out of directories of this node or the devices that were claimed.`}
              command="ovgate vpool create NAME --backend alba"
            >
              <Button kind="primary" needs="manage" onClick={() => navigate("/vpools/new")}>
                {msg`Create vPool`}
              </Button>
              <Button needs="manage" onClick={() => navigate("/disks/claim")}>
                {msg`Claim device`}
              </Button>
            </Empty>
          )
        }
      </Load>
    </Page>
  );
}

function Actions() {
  const [open, setOpen] = useState<"recover" | "rotate" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const survey = async () => {
    try {
      await call("POST /alba/survey");
      toast("ok", msg`Every object is being looked at`);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    reload("alba", "jobs?");
  };
  return (
    <>
      <Button needs="manage" onClick={() => void survey()}>
        {msg`Survey now`}
      </Button>
      <Button needs="manage" onClick={() => setOpen("rotate")}>
        {msg`New key`}
      </Button>
      <Button needs="manage" onClick={() => setOpen("recover")}>
        {msg`Recover records`}
      </Button>
      {open === "recover" && <RecoverDialog onClose={close} />}
      {open === "rotate" && <RotateKeyDialog onClose={close} />}
    </>
  );
}

type Props = { alba: Alba };

function SafetyCard({ alba: a }: Props) {
  const tone = safetyTone(a.tolerates);
  const verdict = { ok: msg`Safe`, warn: msg`At the limit`, bad: msg`At risk`, info: msg`Not known yet`, idle: msg`Nothing stored` }[tone];
  return (
    <Card title={msg`Safety`} class="span-6">
      <div class="stack">
        <div class={`verdict tone-${tone}`}>
          <span aria-hidden="true">{glyphs[tone]}</span> {verdict}
        </div>
        <p data-testid="safety">{capital(a.safety)}.</p>
        <SafetyBar survives={a.survives} />
        <p class="muted small">
          {a.repair > 0 && <>{a.repair === 1 ? msg`1 object waits for repair.` : msg`${a.repair} objects wait for repair.`} </>}
          {rich`Surveyed ${<Age at={a.surveyedAt} />}${a.maintainer ? msg`; ${a.maintainer} maintains it.` : msg`; no node maintains it now: nothing is repaired.`}`}
        </p>
      </div>
    </Card>
  );
}

function CapacityCard({ alba: a }: Props) {
  const used = a.total > 0 ? (a.total - a.free) / a.total : 0;
  return (
    <Card title={msg`Capacity`} class="span-3">
      <div class="stack">
        <div class="kpi">
          {bytes(a.free)}
          <small>{msg`free`}</small>
        </div>
        <Meter label={msg`Devices ${percent(a.total - a.free, a.total)} full`} parts={[{ share: used, class: fillTone(used) }]} />
        <p class="muted small">
          {rich`${bytes(a.total - a.free)} of ${bytes(a.total)} used, before redundancy`}
        </p>
      </div>
    </Card>
  );
}

function FactsCard({ alba: a }: Props) {
  return (
    <Card title={msg`Contents`} class="span-3">
      <Facts
        rows={[
          [
            msg`Devices`,
            <span key="devices">
              <Link to="/disks">{plural(a.osds, noun`device`)}</Link>
              {a.failed > 0 && <span class="tone-bad">{msg`, ${a.failed} not working`}</span>}
            </span>,
          ],
          [msg`Objects`, count(a.objects)],
          [msg`Their size`, bytes(a.bytes)],
          [msg`Stored as`, `${bytes(a.stored)}${a.bytes > 0 ? msg`, ${(a.stored / a.bytes).toFixed(2)} to 1` : ""}`],
        ]}
      />
    </Card>
  );
}

function PoliciesCard({ alba: a }: Props) {
  const all = Object.entries(a.policies).sort(([, x], [, y]) => y - x);
  return (
    <Card title={msg`Objects by policy`} class="span-6">
      {all.length > 0 ? (
        <div class="stack">
          {all.map(([policy, objects]) => (
            <div key={policy} class="stack-tight">
              <span class="row">
                <code>{bare(policy)}</code>
                <span class="spacer" />
                <span class="num small">{`${count(objects)}, ${percent(objects, a.objects)}`}</span>
              </span>
              <Meter label={`${bare(policy)}: ${percent(objects, a.objects)}`} parts={[{ share: objects / a.objects }]} />
            </div>
          ))}
          <p class="muted small">
            {msg`k,m,c,x: data and parity fragments, how many to wait for, how many on one node at most.`}
          </p>
        </div>
      ) : (
        <p class="muted">{msg`Nothing is stored, or nothing was surveyed yet.`}</p>
      )}
    </Card>
  );
}

/** Events that the page shows; the node keeps more. */
const eventsShown = 8;

function EventsCard({ events }: { events: AlbaEvent[] }) {
  const tones = { info: "info", warning: "warn", error: "bad" } as const;
  return (
    <Card title={msg`What happened`} class="span-6">
      {events.length > 0 ? (
        <ul class="causes">
          {events.slice(0, eventsShown).map((e, i) => (
            <li key={i} class="cause">
              <span class={`tone-${tones[e.level]}`} aria-hidden="true">
                {e.level === "info" ? "i" : glyphs[tones[e.level]]}
              </span>
              <span>
                {e.level !== "info" && <span class="visually-hidden">{e.level}: </span>}
                {capital(e.message)}
              </span>
              <span class="muted small">
                <Age at={e.at} />
              </span>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">{msg`Nothing yet.`}</p>
      )}
    </Card>
  );
}

const columns: Column<Namespace>[] = [
  { key: "name", csv: (n) => n.name, title: msg`Namespace`, wrap: true, cell: (n) => <span class="mono">{n.name}</span> },
  { key: "state", csv: (n) => n.state, title: msg`State`, cell: (n) => n.state },
  { key: "preset", csv: (n) => n.preset, title: msg`Preset`, cell: (n) => n.preset },
  { key: "host", csv: (n) => n.host, title: msg`Manifests at`, cell: (n) => n.host },
  { key: "id", csv: (n) => n.id, title: msg`Id`, right: true, cell: (n) => n.id },
];

function NamespacesCard() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const namespaces = useNamespaces(filter);
  return (
    <Card
      title={msg`Namespaces`}
      class="span-12"
      aside={
        <div class="toolbar" role="search">
          <SearchBox label={msg`Namespaces whose names begin with`} />
          <TableTools table="alba.namespaces" noun={noun`namespace`} columns={columns} read={(cursor, limit) => call("GET /namespaces", { query: { ...filter, cursor, limit } })} />
        </div>
      }
    >
      <Load query={namespaces}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable label={msg`Namespaces`} table="alba.namespaces" columns={columns} rows={list.items} rowKey={(n) => n.name} next={list.next} />
          ) : (
            <p class="muted">{filter.q ? msg`The name of no namespace begins with that.` : msg`There is none: each vPool and each vDisk on the object store has one.`}</p>
          )
        }
      </Load>
    </Card>
  );
}
