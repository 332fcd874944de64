import { useEffect } from "preact/hooks";
import type { GrantInput, Role, RoleOrNone } from "../api/gen";
import { useBackendChoices, useVPoolChoices } from "../store/reads";
import { anywhere, denied } from "../store/session";
import type { Submit } from "../store/submit";
import { SelectField } from "./Field";
import { roleOptions } from "./roles";
import { msg } from "../text";

/** The request for a role over everything, or over one scope. */
export function limitOf(role: Role, scope: string): { role: RoleOrNone; grants?: GrantInput[] } {
  return scope ? { role: "none", grants: [{ role, scope }] } : { role };
}

type Props = { role: Role; onRole: (role: Role) => void; scope: string; onScope: (scope: string) => void; submit: Submit };

/** Chooses what a token or client may at most: a role, and on what. */
export function ScopeField({ role, onRole, scope, onScope, submit }: Props) {
  const vpools = useVPoolChoices().data?.items ?? [];
  const backends = useBackendChoices().data?.items ?? [];
  const everything = denied("read") ? [] : [{ value: "", text: msg`Everything` }];
  const options = [
    ...everything,
    ...vpools.map((p) => ({ value: `vpool:${p.id}`, text: msg`vPool ${p.name}` })),
    ...backends.map((b) => ({ value: `backend:${b.id}`, text: msg`Backend ${b.name}` })),
  ];
  const first = options[0]?.value;
  useEffect(() => {
    if (first) {
      onScope(first); // everything is not theirs to give
    }
  }, [first]);
  return (
    <>
      <SelectField
        label={msg`Role`}
        name="role"
        value={role}
        onValue={(r) => onRole(r as Role)}
        options={roleOptions.filter((o) => !denied(o.value, anywhere))}
        error={submit.at("role")}
      />
      <SelectField label={msg`On`} name="scope" value={scope} onValue={onScope} options={options} error={submit.at("grants")} />
    </>
  );
}
