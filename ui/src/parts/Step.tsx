import type { ComponentChildren } from "preact";
import { msg } from "../text";

/** A step of a guided flow, in an ordered list of class "checklist steps"; done: it needs nothing more. */
export function Step(props: { title: string; done: boolean; children: ComponentChildren }) {
  return (
    <li class={props.done ? "done" : ""}>
      <span class="mark">{props.done && <span class="visually-hidden">{msg`Done`}</span>}</span>
      <div class="stack">
        <h3>{props.title}</h3>
        {props.children}
      </div>
    </li>
  );
}
