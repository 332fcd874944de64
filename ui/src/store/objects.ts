// The reads of the object side: devices, disks, presets, namespaces and jobs of the Alba, and registered
// stores. No event tells of them, so they are read again while they are shown.
import { useRef } from "preact/hooks";
import { call } from "../api/client";
import type {
  Alba,
  DiskList,
  Job,
  JobList,
  NamespaceList,
  OSD,
  OSDList,
  PresetList,
  RemoteBackend,
  RemoteBackendList,
} from "../api/gen";
import { patch, useQuery, type Query } from "./query";
import { pageSize, type ListFilter, type Running } from "./reads";

/** ms between reads of what changes slowly. */
const everyMs = 5000;

/** ms between reads of what somebody waits for. */
const waitMs = 2000;

/** ms between reads of the disks: the node asks each disk for an answer. */
const disksEveryMs = 30_000;

export function useAlba(): Query<Alba> {
  return useQuery("alba", () => call("GET /alba"), everyMs);
}

/** Devices of the object store. */
export function useOSDs(filter: ListFilter & { node?: string }): Query<OSDList> {
  return useQuery(
    "osds?" + JSON.stringify(filter),
    () => call("GET /osds", { query: { ...filter, limit: pageSize } }),
    everyMs,
  );
}

export function osdKey(number: number): string {
  return "osd:" + number;
}

export function useOSD(number: number): Query<OSD> {
  return useQuery(osdKey(number), () => call("GET /osds/{osd}", { path: { osd: number } }), waitMs);
}

/** Disks of the node that answers; soon: somebody waits for a new one. */
export function useDisks(filter: ListFilter, soon = false): Query<DiskList> {
  return useQuery(
    `disks?${soon}` + JSON.stringify(filter),
    () => call("GET /disks", { query: { ...filter, limit: pageSize } }),
    soon ? everyMs : disksEveryMs,
  );
}

export type JobFilter = ListFilter & { state?: string; kind?: string; object?: string; node?: string };

/** What all nodes work on; no event tells of it. */
export function useJobs(filter: JobFilter): Query<JobList> {
  const load = async () => {
    const list = await call("GET /jobs", { query: { ...filter, limit: pageSize } });
    patch<Running>("running", (r) => ({ ...r, count: list.running }));
    return list;
  };
  return useQuery("jobs?" + JSON.stringify(filter), load, waitMs);
}

/** The newest job under an id, null when there is none. */
export function useJob(id: string): Query<Job | null> {
  const load = async () => {
    const list = await call("GET /jobs", { query: { q: id, limit: pageSize } });
    return list.items.find((j) => j.id === id) ?? null;
  };
  return useQuery("job:" + id, load, waitMs);
}

export function usePresets(filter: ListFilter): Query<PresetList> {
  return useQuery(
    "presets?" + JSON.stringify(filter),
    () => call("GET /presets", { query: { ...filter, limit: pageSize } }),
    everyMs,
  );
}

export function useNamespaces(filter: ListFilter): Query<NamespaceList> {
  return useQuery("namespaces?" + JSON.stringify(filter), () =>
    call("GET /namespaces", { query: { ...filter, limit: pageSize } }),
  );
}

/** Registered stores, a page of them. */
export function useBackends(filter: ListFilter): Query<RemoteBackendList> {
  return useQuery(
    "backends?" + JSON.stringify(filter),
    () => call("GET /backends", { query: { ...filter, limit: pageSize } }),
    everyMs,
  );
}

/** A registered store; read by its id once that is known, because somebody may rename it while it is shown. */
export function useBackend(name: string): Query<RemoteBackend> {
  const id = useRef<string | undefined>(undefined);
  const load = async () => {
    const backend = await call("GET /backends/{backend}", { path: { backend: id.current ?? name } });
    id.current = backend.id;
    return backend;
  };
  return useQuery(backendKey(name), load, everyMs);
}

export function backendKey(name: string): string {
  return "backend:" + name;
}
