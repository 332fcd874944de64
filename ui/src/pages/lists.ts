// The lists of the block side and of users: one script, loaded when one of them is opened first.
export { VDisksPage } from "./VDisks";
export { VPoolsPage } from "./VPools";
export { TemplatesPage } from "./Templates";
export { TrashPage } from "./Trash";
export { ISCSIPage } from "./ISCSI";
export { UsersPage } from "./Users";
