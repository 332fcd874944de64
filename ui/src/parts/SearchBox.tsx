import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { query, setQuery } from "../router";
import { msg } from "../text";

/** Wait after a key before the node is asked: shorter asks for every letter. */
const pauseMs = 250;

type Props = { label: string; param?: string; placeholder?: string };

/** A filter text that lives in the address, as q unless param says otherwise. */
export function SearchBox({ label, param = "q", placeholder = msg`Filter` }: Props) {
  const asked = query.value.get(param) ?? "";
  const [text, setText] = useState(asked);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const sent = useRef(asked);
  // Only what others put there, such as the back button: the own address comes back while more is typed. At once: what is
  // typed next is not taken for what was there.
  useLayoutEffect(() => {
    if (asked !== sent.current) {
      clearTimeout(timer.current); // what was typed before that is not sent after it
      sent.current = asked;
      setText(asked);
    }
  }, [asked]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={placeholder}
      value={text}
      onInput={(event) => {
        const value = event.currentTarget.value;
        setText(value);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => {
          sent.current = value.trim();
          setQuery({ [param]: sent.current, cursor: undefined }, { replace: true });
        }, pauseMs);
      }}
    />
  );
}
