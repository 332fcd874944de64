// The pages that the navigation and the command palette lead to.
import type { Counts } from "../api/gen";
import { denied, session } from "../store/session";
import type { IconName } from "./Icon";

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
        { to: "/", text: "Overview", icon: "overview" },
        { to: "/topology", text: "Topology", icon: "topology" },
      ],
    ],
    [
      "Block",
      [
        { to: "/vdisks", text: "vDisks", icon: "vdisk", count: counts?.vdisks },
        { to: "/vpools", text: "vPools", icon: "vpool", count: counts?.vpools },
        { to: "/templates", text: "Templates", icon: "copy" },
        { to: "/iscsi", text: "iSCSI", icon: "iscsi", count: counts?.sessions },
      ],
    ],
    [
      "Integrations",
      [
        { to: "/openstack", text: "OpenStack", icon: "openstack" },
        { to: "/vsphere", text: "vSphere", icon: "vsphere" },
      ],
    ],
    [
      "Object",
      [
        { to: "/alba", text: "Object store", icon: "alba" },
        { to: "/backends", text: "Backends", icon: "backend" },
        { to: "/disks", text: "Disks", icon: "disk" },
      ],
    ],
    [
      "Operations",
      [
        { to: "/performance", text: "Performance", icon: "performance" },
        { to: "/tasks", text: "Tasks", icon: "tasks" },
        { to: "/alerts", text: "Alerts", icon: "alerts" },
        { to: "/events", text: "Events", icon: "events" },
        { to: "/schedules", text: "Schedules", icon: "schedules" },
      ],
    ],
    [
      "Admin",
      [
        { to: "/nodes", text: "Nodes", icon: "nodes" },
        { to: "/domains", text: "Domains", icon: "domain" },
        ...(manager ? [{ to: "/users", text: "Users", icon: "users" } as const] : []),
        { to: "/tokens", text: "Tokens", icon: "tokens" },
        ...(manager
          ? [
              { to: "/audit", text: "Audit log", icon: "audit" } as const,
              { to: "/settings", text: "Settings", icon: "settings" } as const,
            ]
          : []),
        { to: "/system", text: "Updates and support", icon: "updates" },
        { to: "/docs", text: "Documentation", icon: "docs" },
      ],
    ],
  ];
}
