import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Domain, DomainVDisk } from "../api/gen";
import { bytes, percent, plural } from "../format";
import { navigate, query } from "../router";
import { useQuery } from "../store/query";
import { pageSize, statusEveryMs } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { fillTone, Meter } from "../parts/Meter";
import { Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { Tag, type Face } from "../parts/StateTag";
import { devicesChanged } from "./DiskDialogs";
import { msg, noun, rich } from "../text";

/** What the loss of a domain would be. */
const faces: Record<Domain["state"], Face> = {
  ok: { tone: "ok", word: msg`Survived` },
  warning: { tone: "warn", word: msg`Something waits` },
  error: { tone: "bad", word: msg`Something is lost` },
};

const fates: Record<DomainVDisk["fate"], Face> = {
  stays: { tone: "ok", word: msg`Stays where it is` },
  takenOver: { tone: "ok", word: msg`Taken over` },
  waits: { tone: "warn", word: msg`Waits` },
  gone: { tone: "bad", word: msg`Lost unless it is back` },
};

/** How the address names a domain; that of what nobody said has no name. */
function pathOf(name: string): string {
  return "/domains/" + encodeURIComponent(name || "-");
}

function called(name: string): ComponentChildren {
  return name || <i>{msg`not said`}</i>;
}

/** What fails together, and what the loss of each would mean. */
export function DomainsPage() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const domains = useQuery("domains?" + JSON.stringify(filter), () => call("GET /domains", { query: { ...filter, limit: pageSize } }), statusEveryMs * 2);
  return (
    <Page title={msg`Domains`}>
      <div class="stack-wide">
        <p class="muted">{msg`A domain is what fails together, such as a rack or a room. Copies of journals go to another one where there is one; presets that spread by domain keep objects through the loss of one.`}</p>
        <div class="toolbar" role="search">
          <SearchBox label={msg`Filter domains by name`} />
        </div>
        <Load query={domains}>
          {(list) =>
            list.items.length === 0 ? (
              <p class="muted">{msg`No domain has that in its name.`}</p>
            ) : (
              <>
                {list.items.length === 1 && !filter.q && !filter.cursor && (
                  <Notice tone="info">{msg`Everything is in one domain, so nothing is kept apart. Say below what fails together.`}</Notice>
                )}
                <DataTable label={msg`Domains`} columns={columns} rows={list.items} rowKey={(d) => d.name} next={list.next} />
              </>
            )
          }
        </Load>
        <Assign />
      </div>
    </Page>
  );
}

const columns: Column<Domain>[] = [
  { key: "name", title: msg`Domain`, cell: (d) => <Link to={pathOf(d.name)}>{called(d.name)}</Link> },
  {
    key: "loss",
    title: msg`When it is lost`,
    wrap: true,
    cell: (d) => (
      <>
        <Tag {...faces[d.state]} />
        <div class="muted small">{d.loss.join(" ")}</div>
      </>
    ),
  },
  { key: "nodes", title: msg`Nodes and machines`, wrap: true, cell: (d) => [...d.nodes.map((n) => n.name), ...d.machines].join(", ") || "–" },
  {
    key: "devices",
    title: msg`Devices`,
    cell: (d) =>
      d.devices === 0 ? (
        "–"
      ) : (
        <>
          {plural(d.devices, noun`device`)}
          {d.failed > 0 && <div class="tone-bad small">{rich`${d.failed} not working`}</div>}
        </>
      ),
  },
  { key: "used", title: msg`Used`, cell: (d) => <Used domain={d} /> },
  { key: "vdisks", title: msg`vDisks`, right: true, cell: (d) => d.vdisks },
  { key: "copies", title: msg`Copies of journals`, right: true, cell: (d) => d.copies },
];

function Used({ domain: d }: { domain: Domain }) {
  if (d.total === 0) {
    return <>–</>;
  }
  const share = d.used / d.total;
  return (
    <span class="cell-meter">
      <Meter label={msg`${percent(d.used, d.total)} of ${bytes(d.total)} used`} parts={[{ share, class: fillTone(share) }]} />
      <span class="num small">{percent(d.used, d.total)}</span>
    </span>
  );
}

/** How a domain is named: nodes say it themselves. */
function Assign() {
  return (
    <Card title={msg`Assign or rename`}>
      <div class="stack">
        <p>{msg`A node is in the domain that its own configuration names; its devices come along at its next start, and what is too much in one domain is moved then. Rename one node after the other.`}</p>
        <CopyBlock label={msg`In the configuration of a node, then restart ovgate`} name="domain" text="domain: RACK" />
        <p class="muted">{msg`Of a machine that is no node the domain is given when its device is claimed, and changed on the page of the domain.`}</p>
      </div>
    </Card>
  );
}

/** One domain: what is in it, what its loss means, and for which vDisks. */
export function DomainPage({ name }: { name: string }) {
  const domain = useQuery("domain:" + name, () => call("GET /domains/{domain}", { path: { domain: name } }), statusEveryMs * 2);
  const d = domain.data;
  return (
    <Page title={name === "-" ? msg`Domain not said` : name} crumbs={[{ to: "/domains", text: msg`Domains` }]} state={d && <Tag {...faces[d.state]} />}>
      <Load query={domain} lines={6}>
        {(shown) => (
          <div class="grid">
            <Card title={msg`When it is lost`} class="span-6">
              <ul class="stack">
                {shown.loss.map((l) => (
                  <li key={l}>{l}</li>
                ))}
              </ul>
              {shown.surveyedAt && (
                <p class="muted small">
                  {rich`Objects as of the survey ${<Age at={shown.surveyedAt} />}.`}
                </p>
              )}
            </Card>
            <Card title={msg`What is in it`} class="span-6">
              <Facts
                rows={[
                  [msg`Nodes`, <NodeLinks key="nodes" domain={shown} />],
                  [msg`Devices`, shown.devices > 0 ? msg`${shown.devices}, ${bytes(shown.used)} of ${bytes(shown.total)} used` : "none"],
                  [msg`vDisks`, `${shown.vdisks}`],
                  [msg`Copies`, msg`${shown.copies} of journals of vDisks that are served elsewhere`],
                  ...(shown.nodes.some((n) => n.registry) ? [[msg`Registry`, shown.quorum ? msg`keeps its majority without it` : msg`loses its majority without it`] as [string, string]] : []),
                ]}
              />
            </Card>
            {shown.machines.length > 0 && <Machines domain={shown} />}
            <VDisks name={name} />
          </div>
        )}
      </Load>
    </Page>
  );
}

function NodeLinks({ domain: d }: { domain: Domain }) {
  if (d.nodes.length === 0) {
    return <span class="muted">{msg`none`}</span>;
  }
  return (
    <ul>
      {d.nodes.map((n) => (
        <li key={n.id}>
          <Link to={`/nodes/${encodeURIComponent(n.name)}`}>{n.name}</Link>
          <span class="muted small"> {[n.state, n.copies ? msg`takes copies` : msg`takes no copies`, n.registry && "registry"].filter(Boolean).join(", ")}</span>
        </li>
      ))}
    </ul>
  );
}

/** Machines with devices that are no nodes: their domain is what was said of them. */
function Machines({ domain: d }: { domain: Domain }) {
  const [moving, setMoving] = useState<string | undefined>(undefined);
  return (
    <Card title={msg`Machines with devices alone`} class="span-12">
      <ul class="stack">
        {d.machines.map((m) => (
          <li key={m} class="row">
            <span class="mono">{m}</span>
            <span class="spacer" />
            <Button small needs="manage" label={msg`Change domain of ${m}`} onClick={() => setMoving(m)}>
              {msg`Change domain`}
            </Button>
          </li>
        ))}
      </ul>
      {moving && <DomainDialog machine={moving} was={d.name} onClose={() => setMoving(undefined)} />}
    </Card>
  );
}

function DomainDialog({ machine, was, onClose }: { machine: string; was: string; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState(was);
  const save = async () => {
    const { items } = await call("GET /osds", { query: { node: machine, limit: 1 } });
    const [device] = items;
    if (device) {
      await call("PATCH /osds/{osd}", { path: { osd: device.number }, body: { domain: name.trim() } });
      toast("ok", msg`${machine} is in ${name.trim()}`);
    }
    devicesChanged();
    navigate(pathOf(name.trim())); // the one that it was in may be none any more
    onClose();
  };
  return (
    <FormDialog title={msg`Domain of ${machine}`} verb={msg`Save`} needs="manage" submit={submit} fields={["domain"]} save={save} onClose={onClose}>
      <p>{msg`It holds for all devices of the machine. What is too much in one domain then is moved.`}</p>
      <TextField label={msg`Domain`} name="domain" value={name} onValue={setName} error={submit.at("domain")} input={{ autofocus: true }} />
    </FormDialog>
  );
}

const diskColumns: Column<DomainVDisk>[] = [
  { key: "name", title: msg`vDisk`, cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}`}>{v.name}</Link> },
  { key: "vpool", title: msg`vPool`, cell: (v) => <Link to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link> },
  { key: "node", title: msg`Served by`, cell: (v) => <Where node={v.node} domain={v.domain} /> },
  { key: "copy", title: msg`Copy of its journal`, cell: (v) => (v.copy === null ? <span class="muted">{msg`none`}</span> : <Where node={v.copy} domain={v.copyDomain ?? ""} />) },
  { key: "fate", title: msg`When the domain is lost`, cell: (v) => <Tag {...fates[v.fate]} /> },
];

function Where({ node, domain }: { node: string; domain: string }) {
  return (
    <>
      {node} <span class="muted small">{called(domain)}</span>
    </>
  );
}

function VDisks({ name }: { name: string }) {
  const cursor = query.value.get("cursor") ?? undefined;
  const list = useQuery(`domainvdisks:${name}?${cursor ?? ""}`, () => call("GET /domains/{domain}/vdisks", { path: { domain: name }, query: { cursor, limit: pageSize } }), statusEveryMs * 2);
  return (
    <section class="span-12 stack">
      <h2>{msg`vDisks that it serves or has the copy of`}</h2>
      <Load query={list}>
        {(page) =>
          page.items.length === 0 && !cursor ? (
            <p class="muted">{msg`None.`}</p>
          ) : (
            <DataTable label={msg`vDisks that it serves or has the copy of`} columns={diskColumns} rows={page.items} rowKey={(v) => v.id} next={page.next} />
          )
        }
      </Load>
    </section>
  );
}
