// The pages of the object side: a script of its own, loaded when one of them is opened first.
export { AlbaPage } from "./Alba";
export { BackendsPage } from "./Backends";
export { BackendPage } from "./Backend";
export { DisksPage } from "./Disks";
export { DiskPage } from "./Disk";
export { ReplaceDiskPage } from "./ReplaceDisk";
