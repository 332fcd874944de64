import { keysOn, places, setKeys } from "../store/keys";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { CheckField } from "../parts/Field";
import { Facts } from "../parts/Page";
import { msg } from "../text";

const others: [string[], string][] = [
  [[msg`Ctrl`, "K"], msg`Search pages, vDisks, vPools and actions`],
  [["/"], msg`Filter the list of this page`],
  [["j"], msg`Next row`],
  [["k"], msg`Row before`],
  [[msg`Enter`], msg`Open the row`],
  [[msg`Space`], msg`Look at the row beside the list`],
  [["x"], msg`Choose the row`],
  [["c"], msg`Create, or what else the page's main button does`],
  [["r"], msg`Read what is shown again`],
  [["?"], msg`This list`],
];

/** What keys do, and whether single ones do something. */
export function KeysDialog({ onClose }: { onClose: () => void }) {
  const all: [string[], string][] = [...others, ...Object.entries(places).map(([key, [, text]]): [string[], string] => [["g", key], text])];
  return (
    <Dialog title={msg`Keyboard`} onClose={onClose}>
      <div class="stack-wide">
        <CheckField name="keys" checked={keysOn.value} onValue={setKeys}>
          {msg`Single keys do something, unless somebody types`}
        </CheckField>
        <Facts
          rows={all.map(([keys, text]) => [
            text,
            <span key={text} class="row">
              {keys.map((k) => (
                <kbd key={k}>{k}</kbd>
              ))}
            </span>,
          ])}
        />
      </div>
      <DoneFoot onClose={onClose} />
    </Dialog>
  );
}
