// The reads of alerts, schedules and the audit log. No event tells of them, so they are read again while
// they are shown.
import { call } from "../api/client";
import type {
  AlertChannelList,
  AlertList,
  AlertRuleList,
  AuditList,
  EventCodeList,
  EventList,
  EventSeverity,
  MetricList,
  Schedule,
  ScheduleList,
  SilenceList,
  ThresholdList,
} from "../api/gen";
import { useQuery, type Query } from "./query";
import { pageSize, type ListFilter } from "./reads";

/** ms between reads of what somebody may wait for. */
const everyMs = 5000;

/** ms between reads of a schedule of which nothing runs. */
const slowEveryMs = 15_000;

export function useAlerts(filter: ListFilter): Query<AlertList> {
  return useQuery("alerts?" + JSON.stringify(filter), () => call("GET /alerts", { query: { ...filter, limit: pageSize } }), everyMs);
}

export function useAlertRules(cursor?: string): Query<AlertRuleList> {
  return useQuery("alertrules?" + (cursor ?? ""), () => call("GET /alerts/rules", { query: { cursor, limit: pageSize } }));
}

export function useThresholds(cursor?: string): Query<ThresholdList> {
  return useQuery("thresholds?" + (cursor ?? ""), () => call("GET /alerts/thresholds", { query: { cursor, limit: pageSize } }));
}

/** What thresholds can be set for: few, and the same until the node is upgraded. */
export function useMetrics(): Query<MetricList> {
  return useQuery("metrics?", () => call("GET /alerts/metrics", { query: { limit: 200 } }));
}

export function useChannels(cursor?: string): Query<AlertChannelList> {
  return useQuery("channels?" + (cursor ?? ""), () => call("GET /alerts/channels", { query: { cursor, limit: pageSize } }));
}

export function useSilences(cursor?: string): Query<SilenceList> {
  return useQuery("silences?" + (cursor ?? ""), () => call("GET /alerts/silences", { query: { cursor, limit: pageSize } }), slowEveryMs);
}

/** When it was so many hours ago. */
function since(hours: number | undefined): string | undefined {
  return hours ? new Date(Date.now() - hours * 3_600_000).toISOString() : undefined;
}

export type AuditFilter = { q?: string; user?: string; operation?: string; node?: string; cursor?: string };

/** What a filter of the audit log asks for. */
export function auditQuery(filter: AuditFilter, hours?: number) {
  return { ...filter, since: since(hours) };
}

/** The audit log of a node, newest first; hours back from now, absent: all of it. */
export function useAudit(filter: AuditFilter, hours?: number): Query<AuditList> {
  const load = () => call("GET /audit", { query: { ...auditQuery(filter, hours), limit: pageSize } });
  return useQuery(`audit?${hours ?? ""}${JSON.stringify(filter)}`, load, filter.cursor ? undefined : everyMs);
}

export type EventFilter = { q?: string; object?: string; code?: string; severity?: EventSeverity; node?: string };

/** What a filter of events asks for; hours back from now, absent: all of it. */
export function eventQuery(filter: EventFilter, hours?: number) {
  return { ...filter, since: since(hours) };
}

/** The history of events of all nodes, or of one, newest first. The stream tells of new ones. */
export function useEvents(filter: EventFilter, cursor?: string, hours?: number): Query<EventList> {
  const load = () => call("GET /events/history", { query: { ...eventQuery(filter, hours), cursor, limit: pageSize } });
  return useQuery(`events${cursor ? "" : "?"}${hours ?? ""}${cursor ?? ""}${JSON.stringify(filter)}`, load);
}

/** What events there are. */
export function useEventCodes(): Query<EventCodeList> {
  return useQuery("eventcodes", () => call("GET /events/codes", { query: { limit: 1000 } }));
}

/** Whose schedule: the cluster's, or that of a vPool or vDisk, by name. */
export type ScheduleScope = { vpool?: string; vdisk?: string };

/** What the cluster, vPools and vDisks say about jobs. */
export function useSayings(filter: ListFilter): Query<ScheduleList> {
  return useQuery("schedules?" + JSON.stringify(filter), () => call("GET /schedules", { query: { ...filter, limit: pageSize } }));
}

export function useSchedule(of: ScheduleScope): Query<Schedule> {
  return useQuery(scheduleKey(of), () => call("GET /schedule", { query: of }), of.vdisk ? everyMs : slowEveryMs);
}

export function scheduleKey(of: ScheduleScope): string {
  return `schedule:${of.vpool ?? ""}/${of.vdisk ?? ""}`;
}
