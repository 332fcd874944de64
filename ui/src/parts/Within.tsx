import { createContext, type ComponentChildren } from "preact";
import { useContext } from "preact/hooks";
import type { Role } from "../api/gen";
import { denied } from "../store/session";

const Scope = createContext<string | undefined>(undefined);

/** What the actions inside are about: "vpool:NAME", "backend:NAME", or anywhere; undefined: the whole cluster. */
export function Within({ on, children }: { on: string | undefined; children: ComponentChildren }) {
  return <Scope.Provider value={on}>{children}</Scope.Provider>;
}

/** Tells why one may not act here without a role; undefined when one may. */
export function useDenied(): (needs: Role) => string | undefined {
  const on = useContext(Scope);
  return (needs) => denied(needs, on);
}
