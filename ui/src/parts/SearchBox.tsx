import { useEffect, useRef, useState } from "preact/hooks";
import { query, setQuery } from "../router";

/** Wait after a key before the node is asked: shorter asks for every letter. */
const pauseMs = 250;

/** A filter text that lives in the address as q. */
export function SearchBox({ label }: { label: string }) {
  const asked = query.value.get("q") ?? "";
  const [text, setText] = useState(asked);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => setText(asked), [asked]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <input
      type="search"
      aria-label={label}
      placeholder="Filter"
      value={text}
      onInput={(event) => {
        const value = event.currentTarget.value;
        setText(value);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => setQuery({ q: value.trim(), cursor: undefined }, { replace: true }), pauseMs);
      }}
    />
  );
}
