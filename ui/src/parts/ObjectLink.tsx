import { Link } from "./Link";
import { msg } from "../text";

/** The page of an object that is given as kind and name, such as "vdisk demo"; what follows is a part of it. */
export function objectAddress(object: string): string | undefined {
  const [kind, name, of] = object.split(" ", 3);
  switch (kind) {
    case "vdisk":
    case "vpool":
    case "backend":
    case "node":
      return name && `/${kind}s/${encodeURIComponent(name)}`;
    case "target":
      return name && `/iscsi/${encodeURIComponent(name)}`;
    case "osd":
      return name && `/disks/${name}`;
    case "user":
      return "/users";
    case "openstack": // openstack cloud NAME
      return name === "cloud" && of ? `/openstack/${encodeURIComponent(of)}` : "/openstack";
    case "cloud":
      return "/openstack";
    case "center":
    case "vsphere":
    case "datastore":
      return "/vsphere";
    case "alert":
      return "/alerts";
    case "object":
      return "/alba";
    default:
      return undefined;
  }
}

/** An object in words, with a link to its page where it has one. */
export function ObjectLink({ object }: { object: string }) {
  const to = objectAddress(object);
  return to ? <Link to={to}>{object}</Link> : <>{object || "–"}</>;
}

/** A link to what happened to an object. */
export function EventsOf({ object }: { object: string }) {
  return <Link to={"/events?object=" + encodeURIComponent(object)}>{msg`Events`}</Link>;
}
