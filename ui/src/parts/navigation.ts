// The pages that the navigation and the command palette lead to.
import type { Counts } from "../api/gen";
import { denied, session } from "../store/session";
import type { IconName } from "./Icon";
import { msg } from "../text";

export type Entry = { to: string; text: string; icon: IconName; count?: number | undefined };

/** Groups of pages for who is signed in: who has a role on some vPools alone has no others to read. */
export function navigation(counts?: Counts): [string, Entry[]][] {
  const manager = !denied("manage");
  const all = pages(manager, counts);
  if (!denied("read")) {
    return all;
  }
  const own = ["/", "/vdisks", "/vpools", "/templates", "/iscsi", "/tasks", "/schedules", "/tokens", "/docs", ...(session.value?.grants.some((g) => g.scope.startsWith("backend:")) ? ["/backends"] : [])];
  return all.map(([title, entries]) => [title, entries.filter((e) => own.includes(e.to))] as [string, Entry[]]).filter(([, entries]) => entries.length > 0);
}

function pages(manager: boolean, counts?: Counts): [string, Entry[]][] {
  return [
    [
      "",
      [
        { to: "/", text: msg`Overview`, icon: "overview" },
        { to: "/topology", text: msg`Topology`, icon: "topology" },
      ],
    ],
    [
      msg`Block`,
      [
        { to: "/vdisks", text: msg`vDisks`, icon: "vdisk", count: counts?.vdisks },
        { to: "/vpools", text: msg`vPools`, icon: "vpool", count: counts?.vpools },
        { to: "/templates", text: msg`Templates`, icon: "copy" },
        { to: "/iscsi", text: msg`iSCSI`, icon: "iscsi", count: counts?.sessions },
      ],
    ],
    [
      msg`Integrations`,
      [
        { to: "/openstack", text: msg`OpenStack`, icon: "openstack" },
        { to: "/vsphere", text: msg`vSphere`, icon: "vsphere" },
      ],
    ],
    [
      msg`Object`,
      [
        { to: "/alba", text: msg`Object store`, icon: "alba" },
        { to: "/backends", text: msg`Backends`, icon: "backend" },
        { to: "/disks", text: msg`Disks`, icon: "disk" },
      ],
    ],
    [
      msg`Operations`,
      [
        { to: "/performance", text: msg`Performance`, icon: "performance" },
        { to: "/tasks", text: msg`Tasks`, icon: "tasks" },
        { to: "/alerts", text: msg`Alerts`, icon: "alerts" },
        { to: "/events", text: msg`Events`, icon: "events" },
        { to: "/schedules", text: msg`Schedules`, icon: "schedules" },
      ],
    ],
    [
      msg`Admin`,
      [
        { to: "/nodes", text: msg`Nodes`, icon: "nodes" },
        { to: "/domains", text: msg`Domains`, icon: "domain" },
        ...(manager ? [{ to: "/users", text: msg`Users`, icon: "users" } as const] : []),
        { to: "/tokens", text: msg`Tokens`, icon: "tokens" },
        ...(manager
          ? [
              { to: "/audit", text: msg`Audit log`, icon: "audit" } as const,
              { to: "/settings", text: msg`Settings`, icon: "settings" } as const,
            ]
          : []),
        { to: "/system", text: msg`Updates and support`, icon: "updates" },
        { to: "/docs", text: msg`Documentation`, icon: "docs" },
      ],
    ],
  ];
}
