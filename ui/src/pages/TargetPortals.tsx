import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Target } from "../api/gen";
import { reload } from "../store/query";
import { usePortals } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { CheckField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { msg } from "../text";

/** Chooses the portals through which hosts reach a target. */
export function TargetPortalsDialog({ target: t, onClose }: { target: Target; onClose: () => void }) {
  const submit = useSubmit();
  const portals = usePortals();
  const [all, setAll] = useState(t.allPortals);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(t.portals.map((p) => p.address)));
  const [redirect, setRedirect] = useState(t.redirect);
  const [tried, setTried] = useState(false);
  const none = !all && chosen.size === 0;
  const save = async () => {
    setTried(true);
    if (none) {
      return;
    }
    await call("PUT /targets/{iqn}/portals", { path: { iqn: t.iqn }, body: { addresses: all ? [] : [...chosen], redirect } });
    toast("ok", msg`The portals of ${t.name} are set`);
    reload("target:", "targets?");
    onClose();
  };
  const toggle = (address: string, on: boolean) => {
    const next = new Set(chosen);
    if (on) {
      next.add(address);
    } else {
      next.delete(address);
    }
    setChosen(next);
  };
  return (
    <FormDialog title={msg`Portals of ${t.name}`} verb={msg`Save`} submit={submit} fields={[]} save={save} onClose={onClose}>
      <CheckField name="all" checked={all} onValue={setAll}>
        {msg`Every portal of the node, also later ones`}
      </CheckField>
      {!all && (
        <Load query={portals}>
          {(list) => (
            <fieldset class="stack">
              <legend>{msg`Only these`}</legend>
              {list.items.map((p) => (
                <CheckField key={p.address} name={p.address} checked={chosen.has(p.address)} onValue={(on) => toggle(p.address, on)}>
                  <span class="mono">{p.address}</span>
                </CheckField>
              ))}
            </fieldset>
          )}
        </Load>
      )}
      {!t.shared && (
        <CheckField name="redirect" checked={redirect} onValue={setRedirect}>
          {msg`Hosts have no multipath: send them to the node that serves the vDisk`}
        </CheckField>
      )}
      {tried && none && <Notice tone="bad" alert>{msg`Choose a portal: without one no host reaches the target.`}</Notice>}
    </FormDialog>
  );
}
