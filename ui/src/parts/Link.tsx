import type { ComponentChildren } from "preact";
import { navigate } from "../router";

type Props = {
  to: string;
  class?: string;
  title?: string | undefined;
  children: ComponentChildren;
  "aria-current"?: "page" | undefined;
  "aria-label"?: string;
};

/** A link inside the application; modified clicks keep their browser meaning. */
export function Link({ to, children, ...rest }: Props) {
  return (
    <a
      href={to}
      {...rest}
      onClick={(event) => {
        if (!event.metaKey && !event.ctrlKey && !event.shiftKey && event.button === 0) {
          event.preventDefault();
          navigate(to);
        }
      }}
    >
      {children}
    </a>
  );
}
