import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { stream } from "../api/events";
import { path } from "../router";
import { dockOpen, healthOpen, narrow, setNarrow } from "../store/drawers";
import { useRunning, useStatus } from "../store/reads";
import { HealthDrawer } from "../pages/HealthDrawer";
import { Dock } from "./Dock";
import { Icon, Logo } from "./Icon";
import { Link } from "./Link";
import { navigation, type Entry } from "./navigation";
import { healthFace, Tag } from "./StateTag";
import { UserMenu } from "./UserMenu";
import { msg, rich } from "../text";

/** The key that K is pressed with, as this computer's keyboard calls it. */
const commandKey = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : msg`Ctrl`;

/** The frame of the console: top bar, navigation, page. */
export function Shell({ search, keys, children }: { search: () => void; keys: () => void; children: ComponentChildren }) {
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const here = path.value;
  useLayoutEffect(() => {
    // After a change of page the keyboard and the screen reader start at the new page, except under a dialog. Before
    // anything of it is shown: whoever sees it may go to a part of it, and stays there.
    if (!first.current && !document.querySelector("dialog[open]")) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [here]);
  return (
    <div class={narrow.value ? "shell narrow" : "shell"}>
      <a class="skip" href="#main">
        {msg`Skip to content`}
      </a>
      <TopBar search={search} keys={keys} />
      <Navigation />
      <main id="main" class="main" ref={main} tabIndex={-1}>
        {children}
      </main>
      <Dock />
      {healthOpen.value && <HealthDrawer />}
    </div>
  );
}

function TopBar({ search, keys }: { search: () => void; keys: () => void }) {
  const status = useStatus();
  const causes = status.data?.health.causes.length ?? 0;
  // Health that was true once is not shown as if it were true now.
  const unknown = { tone: "idle", word: msg`Health unknown` } as const;
  const face = status.data && (status.error ? unknown : healthFace(status.data.health.state));
  return (
    <header class="topbar">
      <Link class="brand" to="/">
        {rich`${<Logo />} ovgate${status.data && <span class="node">{status.data.node.name}</span>}`}
      </Link>
      <span class="spacer" />
      <button type="button" class="pill" onClick={search}>
        <Icon name="search" />
        <span class="unseen-phone">{msg`Search`}</span> <kbd class="hide-phone">{commandKey} K</kbd>
      </button>
      <Connection />
      {face && (
        <button type="button" class="pill" aria-haspopup="dialog" aria-expanded={healthOpen.value} onClick={() => (healthOpen.value = true)}>
          <Tag {...face} />
          {causes > 0 && !status.error && <span>{causes}</span>}
        </button>
      )}
      <Running />
      <UserMenu keys={keys} />
    </header>
  );
}

/** How many tasks run, with a way to them. */
function Running() {
  const running = useRunning();
  const n = running.error ? 0 : (running.data?.count ?? 0);
  return (
    <button
      type="button"
      class="pill"
      aria-label={n === 1 ? msg`1 task runs` : n > 0 ? msg`${n} tasks run` : msg`Tasks and events`}
      aria-expanded={dockOpen.value}
      aria-controls="dock"
      onClick={() => (dockOpen.value = !dockOpen.value)}
    >
      <Icon name="tasks" />
      {n > 0 && <span class="num">{n}</span>}
    </button>
  );
}

function Connection() {
  const faces = {
    live: { tone: "ok", word: msg`Live` },
    connecting: { tone: "info", word: msg`Connecting` },
    lost: { tone: "warn", word: msg`Reconnecting` },
  } as const;
  return (
    <span class={stream.value === "live" ? "hide-phone" : ""} role="status">
      <Tag {...faces[stream.value]} title={msg`Whether this page follows the node`} />
    </span>
  );
}

function Navigation() {
  const status = useStatus();
  const groups = navigation(status.data?.counts);
  const nav = useRef<HTMLElement>(null);
  const here = path.value;
  useEffect(() => {
    // On a phone the pages are one line, of which the present one may be out of sight.
    const current = nav.current?.querySelector<HTMLElement>("[aria-current=page]");
    if (nav.current && current) {
      nav.current.scrollLeft = current.offsetLeft - nav.current.clientWidth / 3;
    }
  }, [here]);
  return (
    <nav class="side" aria-label={msg`Main`} ref={nav}>
      {groups.map(([title, entries]) => (
        <Group key={title} title={title} entries={entries} />
      ))}
      <div class="foot">
        <button type="button" class="collapse" aria-pressed={narrow.value} title={msg`Icons alone`} onClick={() => setNarrow(!narrow.value)}>
          <span aria-hidden="true">{narrow.value ? "»" : "«"}</span> <span class="wide-only">{msg`Icons alone`}</span>
        </button>
        <span class="wide-only">{status.data && `ovgate ${status.data.version}`}</span>
      </div>
    </nav>
  );
}

function Group({ title, entries }: { title: string; entries: Entry[] }) {
  const here = path.value;
  const within = (to: string) => (to === "/" ? here === "/" : here === to || here.startsWith(to + "/"));
  return (
    <>
      {title && <h2>{title}</h2>}
      <ul>
        {entries.map((e) => (
          <li key={e.to}>
            <Link to={e.to} title={narrow.value ? e.text : undefined} aria-current={within(e.to) ? "page" : undefined}>
              <Icon name={e.icon} />
              <span>{e.text}</span>
              {e.count !== undefined && <span class="count num">{e.count}</span>}
            </Link>
          </li>
        ))}
      </ul>
    </>
  );
}
