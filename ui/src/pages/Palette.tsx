import { useEffect, useId, useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Role } from "../api/gen";
import { bytes } from "../format";
import { navigate } from "../router";
import { asApiError, useQuery } from "../store/query";
import { denied, signOut } from "../store/session";
import { toast } from "../store/toasts";
import { setTheme } from "../theme";
import { Dialog } from "../parts/Dialog";
import { Icon, type IconName } from "../parts/Icon";
import { navigation } from "../parts/navigation";
import { VDiskTag, VPoolTag } from "../parts/StateTag";
import type { ComponentChildren } from "preact";

/** Something to choose: a place to go to, or something to do. */
type Item = {
  key: string;
  text: string;
  icon: IconName;
  aside?: ComponentChildren;
  /** Why it cannot be chosen now. */
  reason?: string | undefined;
  act: () => void;
};

type Group = { title: string; items: Item[] };

/** vDisks or vPools that one search shows. */
const foundMax = 8;

/** Wait after a key before the node is asked. */
const pauseMs = 150;

/** Finds pages, vDisks, vPools and actions by what is typed; the keyboard is enough. */
export function Palette({ onClose }: { onClose: () => void }) {
  const id = useId();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const asked = usePaused(text.trim());
  // What the node finds comes last, because it comes later: what is chosen must not move under a hand.
  const groups = [...known(text), ...useFound(asked)].filter((g) => g.items.length > 0);
  const items = groups.flatMap((g) => g.items);
  const chosen = items[Math.min(at, items.length - 1)];
  const option = (item: Item) => `${id}-${item.key}`;
  useEffect(() => {
    if (chosen) {
      document.getElementById(option(chosen))?.scrollIntoView({ block: "nearest" });
    }
  }, [chosen?.key]);
  const choose = (item: Item) => {
    if (item.reason) {
      toast("info", item.reason);
      return;
    }
    onClose();
    item.act();
  };
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && items.length > 0) {
      event.preventDefault();
      setAt((Math.min(at, items.length - 1) + step + items.length) % items.length);
    } else if (event.key === "Enter" && chosen) {
      event.preventDefault();
      choose(chosen);
    }
  };
  return (
    <Dialog title="Search and commands" bare onClose={onClose}>
      <div class="palette">
        <input
          class="input"
          role="combobox"
          aria-label="Search pages, vDisks, vPools and actions"
          aria-expanded={items.length > 0}
          aria-controls={items.length > 0 ? id : undefined}
          aria-activedescendant={chosen && option(chosen)}
          aria-autocomplete="list"
          autofocus
          autocomplete="off"
          spellcheck={false}
          placeholder="Where to, or what to do?"
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={press}
        />
        {items.length > 0 ? (
          <div id={id} class="palette-list" role="listbox" aria-label="Results">
            {groups.map((g) => (
              <div key={g.title} role="group" aria-label={g.title}>
                <div class="palette-title" aria-hidden="true">
                  {g.title}
                </div>
                {g.items.map((item) => (
                  <div
                    key={item.key}
                    id={option(item)}
                    class="palette-item"
                    role="option"
                    aria-selected={item === chosen}
                    aria-disabled={item.reason ? true : undefined}
                    onClick={() => choose(item)}
                  >
                    <Icon name={item.icon} />
                    <span class="palette-text">{item.text}</span>
                    {item.reason ? <span class="small">{item.reason}</span> : item.aside}
                  </div>
                ))}
              </div>
            ))}
          </div>
        ) : (
          <p class="palette-none muted" role="status">
            {asked === text.trim() ? "Nothing has that in its name." : "Searching"}
          </p>
        )}
        <div class="palette-foot muted small">
          <span>
            <kbd>↑</kbd> <kbd>↓</kbd> choose
          </span>
          <span>
            <kbd>Enter</kbd> go
          </span>
          <span>
            <kbd>Esc</kbd> close
          </span>
        </div>
      </div>
    </Dialog>
  );
}

/** The text once nothing was typed for a moment. */
function usePaused(text: string): string {
  const [paused, setPaused] = useState(text);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => {
    timer.current = setTimeout(() => setPaused(text), pauseMs);
    return () => clearTimeout(timer.current);
  }, [text]);
  return paused;
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
      title: "vDisks",
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
      title: "vPools",
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
  ["Create vDisk", "write", "/vdisks/new"],
  ["Import image", "write", "/vdisks/import"],
  ["Create vPool", "manage", "/vpools/new"],
  ["Recover vPool", "manage", "/vpools/recover"],
  ["New shared target", "write", "/iscsi/new"],
  ["Register backend", "manage", "/backends/new"],
  ["Claim device", "manage", "/disks/claim"],
  ["New preset", "manage", "/alba/presets/new"],
  ["Add cloud", "manage", "/openstack/new"],
  ["Attach to Cinder", "write", "/openstack/driver"],
  ["Add vCenter", "manage", "/vsphere/new"],
  ["Create datastore", "manage", "/vsphere/datastores/new"],
  ["Import datastore", "manage", "/vsphere/import"],
  ["Give a virtual machine a raw disk", "manage", "/vsphere/rdms/new"],
  ["New silence", "write", "/alerts/silences/new?tab=silences"],
  ["Add alert channel", "manage", "/alerts/channels/new?tab=channels"],
  ["New alert rule", "manage", "/alerts/rules/new?tab=rules"],
  ["New alert threshold", "manage", "/alerts/thresholds/new?tab=thresholds"],
  ["Add node", "manage", "/nodes/new"],
  ["Create user", "manage", "/users/new"],
  ["Create token", "read", "/tokens/new"],
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
  const themes = (["light", "dark"] as const).map((t): Item => ({ key: "theme-" + t, text: `Use the ${t} theme`, icon: "person", act: () => setTheme(t) }));
  const leave: Item = {
    key: "leave",
    text: "Sign out",
    icon: "person",
    act: () => void signOut().catch((error: unknown) => toast("bad", asApiError(error).message)),
  };
  return [
    { title: "Pages", items: pages.filter(fits) },
    { title: "Actions", items: [...doing, ...themes, leave].filter(fits) },
  ];
}

const trash = { to: "/trash", text: "Trash", icon: "close" } as const;
