import type { Role } from "../api/gen";

/** Roles and what they allow, least first. */
export const roleOptions: { value: Role; text: string }[] = [
  { value: "read", text: "read: see everything but secrets" },
  { value: "write", text: "write: also create, change and remove vDisks" },
  { value: "manage", text: "manage: also vPools, users and tokens" },
];
