import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { toast } from "../store/toasts";
import { Dialog } from "./Dialog";
import { Icon, type IconName } from "./Icon";
import { msg, rich } from "../text";

/** Something to choose: a place to go to, or something to do. */
export type Item = {
  key: string;
  text: string;
  icon: IconName;
  aside?: ComponentChildren;
  /** Why it cannot be chosen now. */
  reason?: string | undefined;
  act: () => void;
};

export type Group = { title: string; items: Item[] };

/** Wait after a key before the node is asked. */
const pauseMs = 150;

type Props = {
  title: string;
  /** Of the field that is typed into. */
  label: string;
  placeholder: string;
  text: string;
  onText: (text: string) => void;
  /** What fits the text so far; what comes later belongs behind, because what is chosen must not move under a hand. */
  groups: Group[];
  /** The node has not answered yet to what is typed. */
  searching: boolean;
  onClose: () => void;
};

/** A dialog to find something by what is typed; the keyboard is enough. */
export function Finder({ title, label, placeholder, text, onText, searching, onClose, ...props }: Props) {
  const id = useId();
  const [at, setAt] = useState(0);
  const groups = props.groups.filter((g) => g.items.length > 0);
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
    <Dialog title={title} bare onClose={onClose}>
      <div class="palette">
        <input
          class="input"
          role="combobox"
          aria-label={label}
          aria-expanded={items.length > 0}
          aria-controls={items.length > 0 ? id : undefined}
          aria-activedescendant={chosen && option(chosen)}
          aria-autocomplete="list"
          autofocus
          autocomplete="off"
          spellcheck={false}
          placeholder={placeholder}
          value={text}
          onInput={(event) => {
            onText(event.currentTarget.value);
            setAt(0);
          }}
          onKeyDown={press}
        />
        {items.length > 0 ? (
          <div id={id} class="palette-list" role="listbox" aria-label={msg`Results`}>
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
            {searching ? msg`Searching` : msg`Nothing has that in its name.`}
          </p>
        )}
        <div class="palette-foot muted small">
          <span>
            {rich`${<kbd>↑</kbd>} ${<kbd>↓</kbd>} choose`}
          </span>
          <span>
            {rich`${<kbd>{msg`Enter`}</kbd>} go`}
          </span>
          <span>
            {rich`${<kbd>{msg`Esc`}</kbd>} close`}
          </span>
        </div>
      </div>
    </Dialog>
  );
}

/** The text once nothing was typed for a moment. */
export function usePaused(text: string): string {
  const [paused, setPaused] = useState(text);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => {
    timer.current = setTimeout(() => setPaused(text), pauseMs);
    return () => clearTimeout(timer.current);
  }, [text]);
  return paused;
}
