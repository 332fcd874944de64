import type { ComponentChildren } from "preact";
import { match } from "./router";
import { OverviewPage } from "./pages/Overview";
import { NotFoundPage } from "./pages/NotFound";
import { Lazy } from "./parts/Lazy";
import { Within } from "./parts/Within";
import { anywhere } from "./store/session";

type Values = Record<string, string>;

type ListPages = typeof import("./pages/lists");
type ObjectPages = typeof import("./pages/object");
type IntegrationPages = typeof import("./pages/integration");
type OperationPages = typeof import("./pages/operations");

const loadLists = () => import("./pages/lists");
const loadObject = () => import("./pages/object");
const loadIntegration = () => import("./pages/integration");
const loadOperations = () => import("./pages/operations");

/** A list of the block side, or of users. */
function list(page: (pages: ListPages) => ComponentChildren): ComponentChildren {
  return <Lazy key="lists" load={loadLists}>{page}</Lazy>;
}

/** A list of what is on vPools. */
function listed(page: (pages: ListPages) => ComponentChildren): ComponentChildren {
  return <Within on={anywhere}>{list(page)}</Within>;
}

/** A page of the object side. */
function object(page: (pages: ObjectPages) => ComponentChildren): ComponentChildren {
  return <Lazy key="object" load={loadObject}>{page}</Lazy>;
}

/** A page of OpenStack or vSphere. */
function integration(page: (pages: IntegrationPages) => ComponentChildren): ComponentChildren {
  return <Lazy key="integration" load={loadIntegration}>{page}</Lazy>;
}

/** A page of alerts, events, schedules or the audit log. */
function operations(page: (pages: OperationPages) => ComponentChildren): ComponentChildren {
  return <Lazy key="operations" load={loadOperations}>{page}</Lazy>;
}

/** The map of what stands on what. */
const loadTopology = () => import("./pages/Topology");

/** One target. */
const loadTarget = () => import("./pages/Target");

/** One vDisk. */
const loadVDisk = () => import("./pages/VDisk");

/** One vPool. */
const loadVPool = () => import("./pages/VPool");

/** The nodes. */
const loadNodes = () => import("./pages/Nodes");

function nodes(dialog?: "join" | "cluster"): ComponentChildren {
  return <Lazy key="nodes" load={loadNodes}>{(n: typeof import("./pages/Nodes")) => <n.NodesPage dialog={dialog} />}</Lazy>;
}

/** One node. */
const loadNode = () => import("./pages/Node");

/** What fails together. */
const loadDomains = () => import("./pages/Domains");

/** What follows the first administrator. */
const loadFirstRun = () => import("./pages/FirstRun");

/** The description of the API. */
const loadAPI = () => import("./pages/API");

/** Versions and support. */
const loadSystem = () => import("./pages/System");

/** Tokens of people and programs. */
const loadTokens = () => import("./pages/Tokens");

/** Several objects over time. */
const loadPerformance = () => import("./pages/Performance");

/** The documentation. */
const loadDocuments = () => import("./pages/Documents");

function documents(name?: string): ComponentChildren {
  return <Lazy key="documents" load={loadDocuments}>{(d: typeof import("./pages/Documents")) => <d.DocumentsPage key={name} name={name} />}</Lazy>;
}

/** Addresses and their pages, the first match wins. Dialogs that create have addresses of their own. */
const routes: [string, (values: Values) => ComponentChildren][] = [
  ["/", () => <OverviewPage />],
  ["/setup", () => <Lazy key="setup" load={loadFirstRun}>{(f: typeof import("./pages/FirstRun")) => <f.FirstRunPage />}</Lazy>],
  ["/topology", () => <Lazy key="topology" load={loadTopology}>{(t: typeof import("./pages/Topology")) => <t.TopologyPage />}</Lazy>],
  ["/vdisks", () => listed((l) => <l.VDisksPage />)],
  ["/vdisks/new", () => listed((l) => <l.VDisksPage dialog="create" />)],
  ["/vdisks/import", () => listed((l) => <l.VDisksPage dialog="import" />)],
  ["/vdisks/:name", ({ name = "" }) => <Lazy key="vdisk" load={loadVDisk}>{(v: typeof import("./pages/VDisk")) => <v.VDiskPage key={name} name={name} />}</Lazy>],
  ["/templates", () => listed((l) => <l.TemplatesPage />)],
  ["/trash", () => listed((l) => <l.TrashPage />)],
  ["/vpools", () => list((l) => <l.VPoolsPage />)],
  ["/vpools/new", () => list((l) => <l.VPoolsPage dialog="create" />)],
  ["/vpools/recover", () => list((l) => <l.VPoolsPage dialog="recover" />)],
  ["/vpools/:name", ({ name = "" }) => <Within on={`vpool:${name}`}><Lazy key="vpool" load={loadVPool}>{(v: typeof import("./pages/VPool")) => <v.VPoolPage key={name} name={name} />}</Lazy></Within>],
  ["/iscsi", () => listed((l) => <l.ISCSIPage />)],
  ["/iscsi/new", () => listed((l) => <l.ISCSIPage create />)],
  ["/iscsi/:iqn", ({ iqn = "" }) => <Within on={anywhere}><Lazy key="target" load={loadTarget}>{(t: typeof import("./pages/Target")) => <t.TargetPage key={iqn} iqn={iqn} />}</Lazy></Within>],
  ["/alba", () => object((o) => <o.AlbaPage />)],
  ["/alba/presets/new", () => object((o) => <o.AlbaPage createPreset />)],
  ["/backends", () => object((o) => <o.BackendsPage />)],
  ["/backends/new", () => object((o) => <o.BackendsPage create />)],
  ["/backends/:name", ({ name = "" }) => <Within on={`backend:${name}`}>{object((o) => <o.BackendPage key={name} name={name} />)}</Within>],
  ["/disks", () => object((o) => <o.DisksPage />)],
  ["/disks/claim", () => object((o) => <o.DisksPage claim />)],
  ["/disks/:number", ({ number = "" }) => numbered(number, (n) => object((o) => <o.DiskPage key={n} number={n} />))],
  ["/disks/:number/replace", ({ number = "" }) => numbered(number, (n) => object((o) => <o.ReplaceDiskPage key={n} number={n} />))],
  ["/openstack", () => integration((i) => <i.OpenStackPage />)],
  ["/openstack/new", () => integration((i) => <i.OpenStackPage dialog="cloud" />)],
  ["/openstack/driver", () => integration((i) => <i.OpenStackPage dialog="driver" />)],
  ["/openstack/:name", ({ name = "" }) => integration((i) => <i.CloudPage key={name} name={name} />)],
  ["/vsphere", () => integration((i) => <i.VSpherePage />)],
  ["/vsphere/new", () => integration((i) => <i.VSpherePage dialog="center" />)],
  ["/vsphere/datastores/new", () => integration((i) => <i.VSpherePage dialog="datastore" />)],
  ["/vsphere/import", () => integration((i) => <i.VSpherePage dialog="import" />)],
  ["/vsphere/rdms/new", () => integration((i) => <i.VSpherePage dialog="rdm" />)],
  ["/performance", () => <Lazy key="performance" load={loadPerformance}>{(p: typeof import("./pages/Performance")) => <p.PerformancePage />}</Lazy>],
  ["/tasks", () => <Within on={anywhere}>{operations((o) => <o.TasksPage />)}</Within>],
  ["/alerts", () => operations((o) => <o.AlertsPage />)],
  ["/alerts/rules/new", () => operations((o) => <o.AlertsPage dialog="rule" />)],
  ["/alerts/thresholds/new", () => operations((o) => <o.AlertsPage dialog="threshold" />)],
  ["/alerts/channels/new", () => operations((o) => <o.AlertsPage dialog="channel" />)],
  ["/alerts/silences/new", () => operations((o) => <o.AlertsPage dialog="silence" />)],
  ["/events", () => operations((o) => <o.EventsPage />)],
  ["/schedules", () => <Within on={anywhere}>{operations((o) => <o.SchedulesPage />)}</Within>],
  ["/audit", () => operations((o) => <o.AuditPage />)],
  ["/settings", () => operations((o) => <o.SettingsPage />)],
  ["/nodes", () => nodes()],
  ["/nodes/new", () => nodes("join")],
  ["/nodes/cluster/new", () => nodes("cluster")],
  ["/nodes/:name", ({ name = "" }) => <Lazy key="node" load={loadNode}>{(n: typeof import("./pages/Node")) => <n.NodePage key={name} name={name} />}</Lazy>],
  ["/domains", () => <Lazy key="domains" load={loadDomains}>{(d: typeof import("./pages/Domains")) => <d.DomainsPage />}</Lazy>],
  ["/domains/:name", ({ name = "" }) => <Lazy key="domains" load={loadDomains}>{(d: typeof import("./pages/Domains")) => <d.DomainPage key={name} name={name} />}</Lazy>],
  ["/system", () => <Lazy key="system" load={loadSystem}>{(s: typeof import("./pages/System")) => <s.SystemPage />}</Lazy>],
  ["/docs", () => documents()],
  ["/docs/api", () => <Lazy key="api" load={loadAPI}>{(a: typeof import("./pages/API")) => <a.APIPage />}</Lazy>],
  ["/docs/:name", ({ name = "" }) => documents(name)],
  ["/users", () => list((l) => <l.UsersPage />)],
  ["/users/new", () => list((l) => <l.UsersPage create />)],
  ["/tokens", () => <Lazy key="tokens" load={loadTokens}>{(t: typeof import("./pages/Tokens")) => <t.TokensPage />}</Lazy>],
  ["/tokens/new", () => <Lazy key="tokens" load={loadTokens}>{(t: typeof import("./pages/Tokens")) => <t.TokensPage create />}</Lazy>],
];

/** The page of something with a number; what is none is not found. */
function numbered(text: string, page: (n: number) => ComponentChildren): ComponentChildren {
  return /^[1-9][0-9]{0,9}$/.test(text) ? page(Number(text)) : <NotFoundPage />;
}

/** The page at a path. */
export function route(path: string): ComponentChildren {
  for (const [pattern, page] of routes) {
    const values = match(pattern, path);
    if (values) {
      return page(values);
    }
  }
  return <NotFoundPage />;
}
