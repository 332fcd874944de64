import { Fragment } from "preact";
import { useId, useRef } from "preact/hooks";
import type { Role } from "../api/gen";
import { Anchored } from "./Anchored";
import { useDenied } from "./Within";
import { msg } from "../text";

export type MenuItem = {
  text: string;
  act: () => void;
  /** The role the action needs; without it the item is disabled with that reason. */
  needs?: Role;
  /** Why the action is not possible now; disables the item and is shown with it. */
  reason?: string | undefined;
  /** It destroys something or disturbs hosts. */
  danger?: boolean;
};

/** Items of one kind; what is dangerous goes into the last group. */
export type MenuGroup = { title?: string; items: MenuItem[] };

type Props = { groups: MenuGroup[]; text?: string; label?: string; small?: boolean };

/** A menu of actions behind a button: what a row of buttons has no room for. */
export function Menu({ groups, text = msg`More`, label, small }: Props) {
  const panel = useRef<HTMLDivElement>(null);
  const items = () => [...(panel.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
  return (
    <Anchored
      class={small ? "btn small" : "btn"}
      text={
        <>
          {text} <span aria-hidden="true">▾</span>
        </>
      }
      label={label}
      haspopup="menu"
      content={panel}
      opened={(last) => items().at(last ? -1 : 0)?.focus({ preventScroll: true })}
    >
      {(close) => <Items groups={groups} label={label ?? text} items={items} close={close} />}
    </Anchored>
  );
}

type ItemsProps = { groups: MenuGroup[]; label: string; items: () => HTMLElement[]; close: () => void };

function Items({ groups, label, items, close }: ItemsProps) {
  const id = useId();
  const denied = useDenied();
  const reasonOf = (item: MenuItem) => (item.needs && denied(item.needs)) ?? item.reason;
  const all = groups.flatMap((g) => g.items);
  const first = all[0] && reasonOf(all[0]);
  // One reason for all is said once.
  const common = first && all.every((i) => reasonOf(i) === first) ? first : undefined;
  const move = (event: KeyboardEvent) => {
    const list = items();
    const now = list.indexOf(document.activeElement as HTMLElement);
    const next = step(event.key, now, list);
    if (next !== undefined) {
      event.preventDefault();
      list[next]?.focus();
    } else if (event.key === "Tab") {
      close(); // and the focus goes on from the button
    }
  };
  return (
    <>
      {common && (
        <p id={id + "all"} class="menu-why">
          {common}
        </p>
      )}
      <div role="menu" aria-label={label} onKeyDown={move}>
        {groups.map((g, n) => (
          <div key={n} role="group" aria-label={g.title} class="menu-group">
            {g.title && (
              <div class="menu-title" aria-hidden="true">
                {g.title}
              </div>
            )}
            {g.items.map((item, i) => {
              const reason = reasonOf(item);
              const why = common ? id + "all" : `${id}${n}-${i}`;
              return (
                <Fragment key={item.text}>
                  <button
                    type="button"
                    role="menuitem"
                    tabIndex={-1}
                    class={item.danger ? "menu-item danger" : "menu-item"}
                    aria-disabled={reason ? "true" : undefined}
                    aria-describedby={reason ? why : undefined}
                    onClick={() => {
                      if (!reason) {
                        close();
                        item.act();
                      }
                    }}
                  >
                    {item.text}
                  </button>
                  {reason && !common && (
                    <span id={why} class="menu-why">
                      {reason}
                    </span>
                  )}
                </Fragment>
              );
            })}
          </div>
        ))}
      </div>
    </>
  );
}

/** The item that a key leads to, or undefined: arrows go round, a letter leads to the next item that begins with it. */
function step(key: string, now: number, list: HTMLElement[]): number | undefined {
  const n = list.length;
  switch (key) {
    case "ArrowDown":
      return (now + 1) % n;
    case "ArrowUp":
      return (now - 1 + n) % n;
    case "Home":
      return 0;
    case "End":
      return n - 1;
  }
  if (key.length !== 1 || key === " ") {
    return undefined;
  }
  const after = Array.from({ length: n }, (_, i) => (now + 1 + i) % n);
  return after.find((i) => list[i]?.textContent?.toLowerCase().startsWith(key.toLowerCase()));
}
