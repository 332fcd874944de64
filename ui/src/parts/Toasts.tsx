import { closeToast, toasts } from "../store/toasts";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { glyphs } from "./StateTag";

/** The messages at the bottom right: read out when they come. */
export function Toasts() {
  return (
    <div class="toasts" aria-live="polite">
      {toasts.value.map((t) => (
        <div key={t.id} class="toast" role={t.tone === "bad" ? "alert" : "status"}>
          <span class={`glyph tone-${t.tone}`} aria-hidden="true">
            {glyphs[t.tone]}
          </span>
          <span>{t.text}</span>
          <Button kind="quiet" small icon label="Close message" onClick={() => closeToast(t.id)}>
            <Icon name="close" />
          </Button>
        </div>
      ))}
    </div>
  );
}
