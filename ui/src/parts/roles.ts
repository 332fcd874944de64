import type { Grant, Role, RoleOrNone } from "../api/gen";
import { msg } from "../text";

/** Roles and what they allow, least first. */
export const roleOptions: { value: Role; text: string }[] = [
  { value: "read", text: msg`read: see everything but secrets` },
  { value: "write", text: msg`write: also create, change and remove vDisks` },
  { value: "manage", text: msg`manage: also vPools, users and tokens` },
];

/** The same, and none. */
export const roleOrNoneOptions: { value: RoleOrNone; text: string }[] = [
  { value: "none", text: msg`none: only what is given on vPools and backends` },
  ...roleOptions,
];

/** A grant in words. */
export function grantText(g: Grant): string {
  const kind = g.scope.startsWith("vpool:") ? msg`vPool` : "backend";
  return msg`${g.role} on ${kind} ${g.name}${g.exists ? "" : msg` (gone)`}`;
}

/** In words what somebody may do. */
export function rightsText(role: RoleOrNone, grants: Grant[]): string {
  return [...(role === "none" ? [] : [role]), ...grants.map(grantText)].join(", ") || msg`nothing`;
}
