// The reads of the pages, each under one key. store/live.ts knows these keys.
import { useRef } from "preact/hooks";
import { call } from "../api/client";
import type {
  CenterHostList,
  CenterList,
  Cloud,
  CloudBackendList,
  CloudList,
  CloudUsageList,
  CloudVolumeList,
  ClusterStatus,
  DatastoreList,
  DatastoreLive,
  DtlState,
  History,
  ISCSISessionDetail,
  ISCSISessionList,
  Job,
  JoinTokenList,
  MemberList,
  OAuthClientList,
  OrphanList,
  PortalList,
  RDMList,
  RemoteBackendList,
  Scrub,
  SnapshotList,
  Status,
  Target,
  TargetList,
  TokenList,
  TrashList,
  UserGroupList,
  UserList,
  VDisk,
  VDiskList,
  VDiskState,
  Verification,
  VirtualMachineList,
  VPool,
  VPoolList,
} from "../api/gen";
import { asApiError, useQuery, type Query } from "./query";

/** ms between reads of sums that no event carries. */
export const statusEveryMs = 5000;

/** ms between reads of a shown vDisk or vPool, whose age would otherwise grow while nothing changes. */
const detailEveryMs = 5000;

/** ms between reads of a history, which may be long, and of what runs in the background. */
const historyEveryMs = 10_000;
export const jobEveryMs = 2000;

/** Rows of one page of a table. */
export const pageSize = 100;

/** Most entries a choice offers, as many as one answer of the node may have. */
const choicesMax = 1000;

export type VDiskFilter = { q?: string; vpool?: string; node?: string; parent?: string; state?: VDiskState; dtl?: DtlState | undefined; sort?: string; cursor?: string };
export type ListFilter = { q?: string; sort?: string; cursor?: string };

export function useStatus(): Query<Status> {
  return useQuery("status", () => call("GET /status"), statusEveryMs);
}

/** How much runs on all nodes, and one of that. */
export type Running = { count: number; job: Job | undefined };

export function useRunning(): Query<Running> {
  const load = async () => {
    const list = await call("GET /jobs", { query: { state: "running", limit: 1 } });
    return { count: list.running, job: list.items[0] };
  };
  return useQuery("running", load, statusEveryMs);
}

export function useVDisks(filter: VDiskFilter): Query<VDiskList> {
  return useQuery("vdisks?" + JSON.stringify(filter), () =>
    call("GET /vdisks", { query: { ...filter, limit: pageSize } }),
  );
}

export function useTrash(filter: ListFilter): Query<TrashList> {
  return useQuery("trash?" + JSON.stringify(filter), () => call("GET /trash", { query: { ...filter, limit: pageSize } }));
}

/** A vDisk; read by its id once that is known, because somebody may rename it while it is shown. */
export function useVDisk(name: string): Query<VDisk> {
  const id = useRef<string | undefined>(undefined);
  const load = async () => {
    const vdisk = await call("GET /vdisks/{vdisk}", { path: { vdisk: id.current ?? name } });
    id.current = vdisk.id;
    return vdisk;
  };
  return useQuery(vdiskKey(name), load, detailEveryMs);
}

export function vdiskKey(name: string): string {
  return "vdisk:" + name;
}

/** Snapshots of a vDisk, newest first; no event tells of them. */
export function useSnapshots(vdisk: string, cursor?: string, limit = pageSize): Query<SnapshotList> {
  return useQuery(
    `snapshots:${vdisk}?${limit}&${cursor ?? ""}`,
    () => call("GET /vdisks/{vdisk}/snapshots", { path: { vdisk }, query: { sort: "-seq", cursor, limit } }),
    detailEveryMs,
  );
}

/** As many snapshots as one answer has. */
export function useAllSnapshots(vdisk: string): Query<SnapshotList> {
  return useSnapshots(vdisk, undefined, choicesMax);
}

/** Moments of a vDisk, the whole history or a part of it. */
export function useHistory(vdisk: string, from?: string, to?: string): Query<History> {
  return useQuery(
    `history:${vdisk}?${from ?? ""}&${to ?? ""}`,
    () => call("GET /vdisks/{vdisk}/history", { path: { vdisk }, query: { from, to } }),
    from ? undefined : historyEveryMs,
  );
}

/** The newest scrub; null when there was none since the node started. */
export function useScrub(vdisk: string): Query<Scrub | null> {
  const load = async () => {
    try {
      return await call("GET /vdisks/{vdisk}/scrub", { path: { vdisk } });
    } catch (error) {
      if (asApiError(error).code === "not_found") {
        return null;
      }
      throw error;
    }
  };
  return useQuery("scrub:" + vdisk, load, jobEveryMs);
}

export function useVerification(vdisk: string): Query<Verification> {
  return useQuery("verify:" + vdisk, () => call("GET /vdisks/{vdisk}/verify", { path: { vdisk } }), jobEveryMs);
}

export function useVPools(filter: ListFilter = {}, limit = pageSize): Query<VPoolList> {
  return useQuery("vpools?" + limit + JSON.stringify(filter), () =>
    call("GET /vpools", { query: { ...filter, limit } }),
  );
}

/** The vPools that a choice offers. */
export function useVPoolChoices(): Query<VPoolList> {
  return useVPools({}, choicesMax);
}

/** The registered stores that a choice offers. */
export function useBackendChoices(): Query<RemoteBackendList> {
  return useQuery("backends?", () => call("GET /backends", { query: { limit: choicesMax } }));
}

/** A vPool; read by its id once that is known, as a vDisk is. */
export function useVPool(name: string): Query<VPool> {
  const id = useRef<string | undefined>(undefined);
  const load = async () => {
    const vpool = await call("GET /vpools/{vpool}", { path: { vpool: id.current ?? name } });
    id.current = vpool.id;
    return vpool;
  };
  return useQuery(vpoolKey(name), load, detailEveryMs);
}

export function vpoolKey(name: string): string {
  return "vpool:" + name;
}

export function useTargets(filter: ListFilter = {}): Query<TargetList> {
  return useQuery("targets?" + JSON.stringify(filter), () =>
    call("GET /targets", { query: { ...filter, limit: pageSize } }),
  );
}

export function useTarget(iqn: string): Query<Target> {
  return useQuery(targetKey(iqn), () => call("GET /targets/{iqn}", { path: { iqn } }));
}

export function targetKey(iqn: string): string {
  return "target:" + iqn;
}

/** iSCSI sessions of one target, or of all. */
export function useSessions(target?: string, cursor?: string): Query<ISCSISessionList> {
  return useQuery(`sessions?${target ?? ""}&${cursor ?? ""}`, () =>
    call("GET /iscsi/sessions", { query: { target, cursor, limit: pageSize } }),
  );
}

/** ms that the node watches a session for an answer, and ms between two answers. */
const sampleMs = 1000;
const sessionEveryMs = 3000;

/** One iSCSI session with what it does now. */
export function useSession(id: string): Query<ISCSISessionDetail> {
  return useQuery(
    "session:" + id,
    () => call("GET /iscsi/sessions/{session}", { path: { session: id }, query: { sampleMs } }),
    sessionEveryMs,
  );
}

/** The nodes of the cluster; their load comes with no event. */
export function useNodes(filter: ListFilter = {}): Query<MemberList> {
  return useQuery(
    "nodes?" + JSON.stringify(filter),
    () => call("GET /nodes", { query: { ...filter, limit: pageSize } }),
    statusEveryMs,
  );
}

export function useCluster(): Query<ClusterStatus> {
  return useQuery("cluster", () => call("GET /cluster"), statusEveryMs);
}

/** Tokens that let nodes join; no event tells that one was used. */
export function useJoinTokens(cursor?: string): Query<JoinTokenList> {
  return useQuery("jointokens?" + (cursor ?? ""), () => call("GET /cluster/tokens", { query: { cursor, limit: pageSize } }), jobEveryMs);
}

export function useCenters(): Query<CenterList> {
  return useQuery("centers?", () => call("GET /vsphere/centers", { query: { limit: choicesMax } }));
}

/** The hosts of a vCenter, as it tells them now. */
export function useCenterHosts(center: string): Query<CenterHostList> {
  return useQuery("centerhosts:" + center, () => call("GET /vsphere/centers/{center}/hosts", { path: { center }, query: { limit: choicesMax } }));
}

/** Datastores; no event tells of the steps of their jobs. */
export function useDatastores(filter: ListFilter): Query<DatastoreList> {
  return useQuery(
    "datastores?" + JSON.stringify(filter),
    () => call("GET /vsphere/datastores", { query: { ...filter, limit: pageSize } }),
    jobEveryMs,
  );
}

/** vDisks that virtual machines have as their disks; no event tells of the steps of their jobs. */
export function useRDMs(cursor?: string): Query<RDMList> {
  return useQuery("rdms?" + (cursor ?? ""), () => call("GET /vsphere/rdms", { query: { cursor, limit: pageSize } }), jobEveryMs);
}

/** A datastore as its vCenter tells it now. */
export function useDatastoreLive(datastore: string): Query<DatastoreLive> {
  return useQuery("datastore:" + datastore, () => call("GET /vsphere/datastores/{datastore}/live", { path: { datastore } }), historyEveryMs);
}

/** The virtual machines on a datastore; the node is told of changes by the vCenter. */
export function useDatastoreVMs(datastore: string): Query<VirtualMachineList> {
  return useQuery("datastorevms:" + datastore, () => call("GET /vsphere/vms", { query: { datastore, limit: choicesMax } }), jobEveryMs);
}

export function useClouds(): Query<CloudList> {
  return useQuery("clouds?", () => call("GET /openstack/clouds", { query: { limit: choicesMax } }));
}

export function cloudKey(name: string): string {
  return "cloud:" + name;
}

/** A cloud; read by its id once that is known, as a vDisk is. */
export function useCloud(name: string): Query<Cloud> {
  const id = useRef<string | undefined>(undefined);
  const load = async () => {
    const cloud = await call("GET /openstack/clouds/{cloud}", { path: { cloud: id.current ?? name } });
    id.current = cloud.id;
    return cloud;
  };
  return useQuery(cloudKey(name), load, detailEveryMs);
}

/** The backends of a cloud that are this node, as its Cinder tells them now. */
export function useCloudBackends(cloud: string): Query<CloudBackendList> {
  return useQuery("cloudbackends:" + cloud, () => call("GET /openstack/clouds/{cloud}/backends", { path: { cloud }, query: { limit: choicesMax } }), historyEveryMs);
}

export function useCloudUsage(cloud: string): Query<CloudUsageList> {
  return useQuery("cloudusage:" + cloud, () => call("GET /openstack/clouds/{cloud}/usage", { path: { cloud } }), historyEveryMs);
}

export function useCloudVolumes(cloud: string, cursor?: string): Query<CloudVolumeList> {
  return useQuery(
    `cloudvolumes:${cloud}?${cursor ?? ""}`,
    () => call("GET /openstack/clouds/{cloud}/volumes", { path: { cloud }, query: { cursor, limit: pageSize } }),
    historyEveryMs,
  );
}

export function useOrphans(cursor?: string): Query<OrphanList> {
  return useQuery("orphans?" + (cursor ?? ""), () => call("GET /openstack/orphans", { query: { cursor, limit: pageSize } }));
}

export function usePortals(): Query<PortalList> {
  return useQuery("portals", () => call("GET /portals"));
}

export function useUsers(filter: ListFilter): Query<UserList> {
  return useQuery("users?" + JSON.stringify(filter), () =>
    call("GET /users", { query: { ...filter, limit: pageSize } }),
  );
}

export function useTokens(filter: ListFilter): Query<TokenList> {
  return useQuery("tokens?" + JSON.stringify(filter), () =>
    call("GET /tokens", { query: { ...filter, limit: pageSize } }),
  );
}

export function useGroups(filter: ListFilter): Query<UserGroupList> {
  return useQuery("groups?" + JSON.stringify(filter), () => call("GET /groups", { query: { ...filter, limit: pageSize } }));
}

export function useClients(filter: ListFilter): Query<OAuthClientList> {
  return useQuery("clients?" + JSON.stringify(filter), () => call("GET /clients", { query: { ...filter, limit: pageSize } }));
}
