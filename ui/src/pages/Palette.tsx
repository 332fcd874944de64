import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Role } from "../api/gen";
import { bytes } from "../format";
import { navigate } from "../router";
import { asApiError, useQuery } from "../store/query";
import { denied, signOut } from "../store/session";
import { toast } from "../store/toasts";
import { setTheme } from "../theme";
import { Finder, usePaused, type Group, type Item } from "../parts/Finder";
import { navigation } from "../parts/navigation";
import { VDiskTag, VPoolTag } from "../parts/StateTag";
import { msg } from "../text";

/** vDisks or vPools that one search shows. */
const foundMax = 8;

/** Finds pages, vDisks, vPools and actions by what is typed. */
export function Palette({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const asked = usePaused(text.trim());
  return (
    <Finder
      title={msg`Search and commands`}
      label={msg`Search pages, vDisks, vPools and actions`}
      placeholder={msg`Where to, or what to do?`}
      text={text}
      onText={setText}
      groups={[...known(text), ...useFound(asked)]}
      searching={asked !== text.trim()}
      onClose={onClose}
    />
  );
}

/** vDisks and vPools whose names or labels have the text; the node searches. */
function useFound(q: string): Group[] {
  const load = async () => {
    if (q === "") {
      return { vdisks: [], vpools: [] };
    }
    const [vdisks, vpools] = await Promise.all([
      call("GET /vdisks", { query: { q, sort: "name", limit: foundMax } }),
      call("GET /vpools", { query: { q, limit: foundMax } }),
    ]);
    return { vdisks: vdisks.items, vpools: vpools.items };
  };
  const found = useQuery("palette?" + q, load).data;
  return [
    {
      title: msg`vDisks`,
      items: (found?.vdisks ?? []).map((v) => ({
        key: "vdisk-" + v.id,
        text: v.name,
        icon: "vdisk",
        aside: (
          <>
            <span class="muted small">{bytes(v.size)}</span>
            <VDiskTag state={v.state} />
          </>
        ),
        act: () => navigate(`/vdisks/${encodeURIComponent(v.name)}`),
      })),
    },
    {
      title: msg`vPools`,
      items: (found?.vpools ?? []).map((p) => ({
        key: "vpool-" + p.id,
        text: p.name,
        icon: "vpool",
        aside: <VPoolTag state={p.state} />,
        act: () => navigate(`/vpools/${encodeURIComponent(p.name)}`),
      })),
    },
  ];
}

/** What is done often: words, the role it needs, and where. */
const actions: [string, Role, string][] = [
  [msg`Create vDisk`, "write", "/vdisks/new"],
  [msg`Import image`, "write", "/vdisks/import"],
  [msg`Create vPool`, "manage", "/vpools/new"],
  [msg`Recover vPool`, "manage", "/vpools/recover"],
  [msg`New shared target`, "write", "/iscsi/new"],
  [msg`Register backend`, "manage", "/backends/new"],
  [msg`Claim device`, "manage", "/disks/claim"],
  [msg`New preset`, "manage", "/alba/presets/new"],
  [msg`Add cloud`, "manage", "/openstack/new"],
  [msg`Attach to Cinder`, "write", "/openstack/driver"],
  [msg`Add vCenter`, "manage", "/vsphere/new"],
  [msg`Create datastore`, "manage", "/vsphere/datastores/new"],
  [msg`Import datastore`, "manage", "/vsphere/import"],
  [msg`Give a virtual machine a raw disk`, "manage", "/vsphere/rdms/new"],
  [msg`New silence`, "write", "/alerts/silences/new?tab=silences"],
  [msg`Add alert channel`, "manage", "/alerts/channels/new?tab=channels"],
  [msg`New alert rule`, "manage", "/alerts/rules/new?tab=rules"],
  [msg`New alert threshold`, "manage", "/alerts/thresholds/new?tab=thresholds"],
  [msg`Add node`, "manage", "/nodes/new"],
  [msg`Create user`, "manage", "/users/new"],
  [msg`Create token`, "read", "/tokens/new"],
];

/** Pages and actions that have every word of the text. */
function known(text: string): Group[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (item: { text: string }) => words.every((w) => item.text.toLowerCase().includes(w));
  const pages = navigation()
    .flatMap(([, entries]) => [...entries, ...(entries.some((e) => e.to === "/vdisks") ? [trash] : [])])
    .map((e): Item => ({ key: "page-" + e.to.slice(1), text: e.text, icon: e.icon, act: () => navigate(e.to) }));
  const doing = actions.map(([what, needs, to]): Item => ({
    key: "do-" + to.replace(/\W+/g, "-"),
    text: what,
    icon: "plus",
    reason: denied(needs),
    act: () => navigate(to),
  }));
  const themes = (["light", "dark"] as const).map((t): Item => ({ key: "theme-" + t, text: msg`Use the ${t} theme`, icon: "person", act: () => setTheme(t) }));
  const leave: Item = {
    key: "leave",
    text: msg`Sign out`,
    icon: "person",
    act: () => void signOut().catch((error: unknown) => toast("bad", asApiError(error).message)),
  };
  return [
    { title: msg`Pages`, items: pages.filter(fits) },
    { title: msg`Actions`, items: [...doing, ...themes, leave].filter(fits) },
  ];
}

const trash = { to: "/trash", text: msg`Trash`, icon: "close" } as const;
