import { keysOn, places, setKeys } from "../store/keys";
import { Dialog, DoneFoot } from "../parts/Dialog";
import { CheckField } from "../parts/Field";
import { Facts } from "../parts/Page";

const others: [string[], string][] = [
  [["Ctrl", "K"], "Search pages, vDisks, vPools and actions"],
  [["/"], "Filter the list of this page"],
  [["j"], "Next row"],
  [["k"], "Row before"],
  [["Enter"], "Open the row"],
  [["Space"], "Look at the row beside the list"],
  [["x"], "Choose the row"],
  [["c"], "Create, or what else the page's main button does"],
  [["r"], "Read what is shown again"],
  [["?"], "This list"],
];

/** What keys do, and whether single ones do something. */
export function KeysDialog({ onClose }: { onClose: () => void }) {
  const all: [string[], string][] = [...others, ...Object.entries(places).map(([key, [, text]]): [string[], string] => [["g", key], text])];
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <div class="stack-wide">
        <CheckField name="keys" checked={keysOn.value} onValue={setKeys}>
          Single keys do something, unless somebody types
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
