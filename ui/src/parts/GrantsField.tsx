import type { Grant, GrantInput, Role } from "../api/gen";
import { useBackendChoices, useVPoolChoices } from "../store/reads";
import { Button } from "./Button";
import { roleOptions } from "./roles";
import { msg } from "../text";

/** What a form begins with. */
export function grantsOf(grants: Grant[]): GrantInput[] {
  return grants.map((g) => ({ role: g.role, scope: g.scope }));
}

type Props = { value: GrantInput[]; onValue: (value: GrantInput[]) => void; known?: Grant[]; error?: string | undefined };

/** Roles on vPools and backends, one a row. known names those that a form begins with, also when they are gone. */
export function GrantsField({ value, onValue, known = [], error }: Props) {
  const vpools = useVPoolChoices().data?.items ?? [];
  const backends = useBackendChoices().data?.items ?? [];
  const scopes = [
    ...vpools.map((p) => ({ value: `vpool:${p.id}`, text: msg`vPool ${p.name}` })),
    ...backends.map((b) => ({ value: `backend:${b.id}`, text: msg`Backend ${b.name}` })),
    ...known.filter((g) => !g.exists).map((g) => ({ value: g.scope, text: msg`${g.name} (gone)` })),
  ];
  const free = scopes.find((s) => !value.some((g) => g.scope === s.value));
  const set = (at: number, change: Partial<GrantInput>) => onValue(value.map((g, i) => (i === at ? { ...g, ...change } : g)));
  return (
    <fieldset class="stack">
      <legend>{msg`Roles on vPools and backends`}</legend>
      {value.map((g, i) => (
        <div key={i} class="row">
          <select class="input" aria-label={msg`Role of grant ${i + 1}`} value={g.role} onChange={(e) => set(i, { role: e.currentTarget.value as Role })}>
            {roleOptions.map((o) => (
              <option key={o.value} value={o.value}>
                {o.value}
              </option>
            ))}
          </select>
          <select class="input" aria-label={msg`Object of grant ${i + 1}`} value={g.scope} onChange={(e) => set(i, { scope: e.currentTarget.value })}>
            {scopes.map((s) => (
              <option key={s.value} value={s.value}>
                {s.text}
              </option>
            ))}
          </select>
          <Button small label={msg`Remove grant ${i + 1}`} onClick={() => onValue(value.filter((_, at) => at !== i))}>
            {msg`Remove`}
          </Button>
        </div>
      ))}
      {error && (
        <span class="error" role="alert">
          {error}
        </span>
      )}
      <div>
        <Button small reason={free ? undefined : msg`There is no other vPool or backend`} onClick={() => free && onValue([...value, { role: "read", scope: free.value }])}>
          {msg`Add a role on one`}
        </Button>
      </div>
    </fieldset>
  );
}
