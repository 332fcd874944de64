import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { toast } from "../store/toasts";
import { Button } from "./Button";
import { Icon } from "./Icon";
import { msg } from "../text";

/** show is how a line is shown, as it is unless given. */
type Props = { label: string; text: string; name?: string; show?: (line: string) => ComponentChildren };

/** Text to be taken elsewhere, wrapped and never cut, with a button that copies it. */
export function CopyBlock({ label, text, name, show = (line) => line }: Props) {
  const ref = useRef<HTMLPreElement>(null);
  return (
    <div class="copy">
      <div class="copy-head">
        <span>{label}</span>
        <span class="spacer" />
        <Button kind="quiet" small label={msg`Copy ${label}`} onClick={() => void copy(text, ref.current)}>
          <Icon name="copy" />{" "}{msg`Copy`}
        </Button>
      </div>
      <pre ref={ref} data-copy={name} tabIndex={0} role="group" aria-label={label}>
        {text.split("\n").map((line, i) => (
          <span key={i} class="line">
            {show(line)}
            {"\n"}
          </span>
        ))}
      </pre>
    </div>
  );
}

/** Copies by the clipboard API, which plain http lacks, else by a selection, which then stays. */
async function copy(text: string, element: HTMLElement | null): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast("ok", msg`Copied`);
    return;
  } catch {
    // Falls through to the selection below.
  }
  if (!element) {
    return;
  }
  const selection = getSelection();
  selection?.removeAllRanges();
  const range = document.createRange();
  range.selectNodeContents(element);
  selection?.addRange(range);
  if (document.execCommand("copy")) {
    toast("ok", msg`Copied`);
  } else {
    toast("info", msg`Selected: press Ctrl+C to copy`);
  }
}
