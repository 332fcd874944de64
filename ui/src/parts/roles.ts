import type { Grant, Role, RoleOrNone } from "../api/gen";

/** Roles and what they allow, least first. */
export const roleOptions: { value: Role; text: string }[] = [
  { value: "read", text: "read: see everything but secrets" },
  { value: "write", text: "write: also create, change and remove vDisks" },
  { value: "manage", text: "manage: also vPools, users and tokens" },
];

/** The same, and none. */
export const roleOrNoneOptions: { value: RoleOrNone; text: string }[] = [
  { value: "none", text: "none: only what is given on vPools and backends" },
  ...roleOptions,
];

/** A grant in words. */
export function grantText(g: Grant): string {
  const kind = g.scope.startsWith("vpool:") ? "vPool" : "backend";
  return `${g.role} on ${kind} ${g.name}${g.exists ? "" : " (gone)"}`;
}

/** In words what somebody may do. */
export function rightsText(role: RoleOrNone, grants: Grant[]): string {
  return [...(role === "none" ? [] : [role]), ...grants.map(grantText)].join(", ") || "nothing";
}
