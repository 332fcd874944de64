import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import type { Role } from "../api/gen";
import { toast } from "../store/toasts";
import { useDenied } from "./Within";

type Props = {
  children: ComponentChildren;
  onClick?: () => void;
  type?: "button" | "submit";
  kind?: "primary" | "danger" | "quiet" | "danger primary";
  small?: boolean;
  /** The role the action needs; without it the button is disabled with that reason. */
  needs?: Role;
  /** Why the action is not possible now; disables the button and is told on request. */
  reason?: string | undefined;
  busy?: boolean;
  label?: string;
  icon?: boolean;
};

/** A button that, when it may not act, stays reachable and says why. */
export function Button(props: Props) {
  const id = useId();
  const denied = useDenied();
  const reason = (props.needs && denied(props.needs)) ?? props.reason;
  const classes = ["btn", props.kind, props.small && "small", props.icon && "icon"].filter(Boolean).join(" ");
  return (
    <>
      <button
        type={props.type ?? "button"}
        class={classes}
        aria-label={props.label}
        aria-disabled={reason || props.busy ? "true" : undefined}
        aria-describedby={reason ? id : undefined}
        aria-busy={props.busy || undefined}
        title={reason}
        onClick={(event) => {
          if (reason) {
            event.preventDefault();
            toast("info", reason);
          } else if (props.busy) {
            event.preventDefault();
          } else {
            props.onClick?.();
          }
        }}
      >
        {props.children}
      </button>
      {reason && (
        <span id={id} class="visually-hidden">
          {reason}
        </span>
      )}
    </>
  );
}
