// The pages of alerts, events, schedules, the audit log and settings: a script of its own, loaded when one of
// them is opened first.
export { AlertsPage } from "./Alerts";
export { AuditPage } from "./Audit";
export { EventsPage } from "./Events";
export { SchedulesPage } from "./Schedules";
export { TasksPage } from "./Tasks";
export { SettingsPage } from "./Settings";
