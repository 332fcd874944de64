// The pages of alerts, events, schedules and the audit log: a script of its own, loaded when one of them is
// opened first.
export { AlertsPage } from "./Alerts";
export { AuditPage } from "./Audit";
export { EventsPage } from "./Events";
export { SchedulesPage } from "./Schedules";
