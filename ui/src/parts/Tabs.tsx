import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";

type Tab = { id: string; title: string; content: ComponentChildren };

/** Panels of which one shows; arrow keys move between the tabs. */
export function Tabs({ label, tabs }: { label: string; tabs: Tab[] }) {
  const id = useId();
  const [chosen, setChosen] = useState(tabs[0]?.id);
  const step = (event: KeyboardEvent, by: number) => {
    const at = tabs.findIndex((t) => t.id === chosen);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    if (next) {
      event.preventDefault();
      setChosen(next.id);
      document.getElementById(`${id}-${next.id}`)?.focus();
    }
  };
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
