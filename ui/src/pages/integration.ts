// The pages of OpenStack and vSphere: a script of its own, loaded when one of them is opened first.
export { CloudPage } from "./Cloud";
export { OpenStackPage } from "./OpenStack";
export { VSpherePage } from "./VSphere";
