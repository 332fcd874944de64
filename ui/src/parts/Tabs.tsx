import type { ComponentChildren } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import { navigate, path, query } from "../router";

type Tab = { id: string; title: string; content: ComponentChildren };

/** Panels of which one shows; arrow keys move between the tabs. With param, the address says which. */
export function Tabs({ label, tabs, param }: { label: string; tabs: Tab[]; param?: string }) {
  const id = useId();
  const [own, setOwn] = useState(tabs[0]?.id);
  const named = param ? (query.value.get(param) ?? undefined) : own;
  const chosen = tabs.some((t) => t.id === named) ? named : tabs[0]?.id;
  const setChosen = (next: string) => {
    if (param) {
      // Pages and choices inside a panel are that panel's.
      navigate(path.value + (next === tabs[0]?.id ? "" : `?${param}=${next}`));
    } else {
      setOwn(next);
    }
  };
  const step = (event: KeyboardEvent, by: number) => {
    const at = tabs.findIndex((t) => t.id === chosen);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    if (next) {
      event.preventDefault();
      setChosen(next.id);
      document.getElementById(`${id}-${next.id}`)?.focus();
    }
  };
  // On a phone the row of tabs scrolls.
  useEffect(() => document.getElementById(`${id}-${chosen}`)?.scrollIntoView({ block: "nearest", inline: "nearest" }), [chosen]);
  const shown = tabs.find((t) => t.id === chosen);
  return (
    <div class="stack">
      <div class="tabs" role="tablist" aria-label={label}>
        {tabs.map((t) => (
          <button
            key={t.id}
            id={`${id}-${t.id}`}
            type="button"
            role="tab"
            aria-selected={t.id === chosen}
            aria-controls={`${id}-panel`}
            tabIndex={t.id === chosen ? 0 : -1}
            onClick={() => setChosen(t.id)}
            onKeyDown={(event) => {
              if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
                step(event, event.key === "ArrowRight" ? 1 : -1);
              }
            }}
          >
            {t.title}
          </button>
        ))}
      </div>
      <div id={`${id}-panel`} role="tabpanel" aria-labelledby={`${id}-${shown?.id}`} class="stack">
        {shown?.content}
      </div>
    </div>
  );
}
