import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Button } from "./Button";
import { ErrorPanel } from "./Notice";
import { Icon } from "./Icon";
import { useSubmit } from "../store/submit";
import { msg, rich } from "../text";

type Props = {
  title: string;
  onClose: () => void;
  /** Its title is told to screen readers alone, and there is no cross. */
  bare?: boolean;
  children: ComponentChildren;
};

/** A modal dialog; Escape and the cross close it, focus returns to where it was. */
export function Dialog(props: Props) {
  return <Modal class="dialog" {...props} />;
}

/** A dialog at the edge of the window, which a click beside it closes too, and a link in it. */
export function Drawer(props: Omit<Props, "bare">) {
  return <Modal class="dialog drawer" light {...props} />;
}

/** light: it is left as easily as it was opened. */
function Modal({ title, onClose, bare, children, class: name, light }: Props & { class: string; light?: boolean }) {
  const id = useId();
  const ref = useRef<HTMLDialogElement>(null);
  // At once, not after the next picture: what is typed then goes where the focus returned to.
  useLayoutEffect(() => {
    const element = ref.current;
    const before = document.activeElement;
    element?.showModal();
    return () => {
      element?.close();
      if (before instanceof HTMLElement) {
        before.focus();
      }
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={name}
      aria-labelledby={bare ? undefined : id}
      aria-label={bare ? title : undefined}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        const at = event.target;
        if (light && (at === ref.current || (at instanceof Element && at.closest("a")))) {
          onClose();
        }
      }}
    >
      {bare ? (
        children
      ) : (
        <div class="dialog-body">
          <div class="dialog-head">
            <h2 id={id}>{title}</h2>
            <span class="spacer" />
            <Button kind="quiet" small icon label={msg`Close`} onClick={onClose}>
              <Icon name="close" />
            </Button>
          </div>
          {children}
        </div>
      )}
    </dialog>
  );
}

/** The foot of a dialog that only tells something. */
export function DoneFoot({ onClose }: { onClose: () => void }) {
  return (
    <div class="dialog-foot">
      <Button kind="primary" onClick={onClose}>
        {msg`Done`}
      </Button>
    </div>
  );
}

type ConfirmProps = {
  title: string;
  verb: string;
  /** What follows, one sentence each. */
  consequences: ComponentChildren[];
  /** When given, this has to be typed first: for what cannot be undone. */
  typeName?: string;
  danger?: boolean;
  /** Why it cannot be done now. */
  reason?: string | undefined;
  /** Choices that go with it. */
  children?: ComponentChildren;
  onClose: () => void;
  act: () => Promise<void>;
};

/** Asks before an action with consequences, and shows the node's answer if it refuses. */
export function Confirm(props: ConfirmProps) {
  const submit = useSubmit();
  const [typed, setTyped] = useState("");
  const id = useId();
  const missing = props.typeName !== undefined && typed !== props.typeName;
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <form
        class="stack-wide"
        noValidate
        onSubmit={async (event) => {
          event.preventDefault();
          if (!missing && !props.reason && (await submit.run(props.act))) {
            props.onClose();
          }
        }}
      >
        <ul class="stack">
          {props.consequences.map((c, i) => (
            <li key={i}>{c}</li>
          ))}
        </ul>
        {props.children}
        {props.typeName !== undefined && (
          <div class="field">
            <label for={id}>
              {rich`Type ${<code>{props.typeName}</code>} to confirm`}
            </label>
            <input
              id={id}
              class="input"
              name="confirm"
              autocomplete="off"
              spellcheck={false}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          </div>
        )}
        {submit.error && <ErrorPanel error={submit.error} />}
        <div class="dialog-foot">
          <Button onClick={props.onClose}>{msg`Cancel`}</Button>
          <Button
            type="submit"
            kind={props.danger ? "danger primary" : "primary"}
            busy={submit.busy}
            reason={props.reason ?? (missing ? msg`Type ${props.typeName} first` : undefined)}
          >
            {props.verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
