import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Link } from "./Link";
import { msg } from "../text";

type Props = {
  title: string;
  /** Pages above this one, outermost first. */
  crumbs?: { to: string; text: string }[];
  state?: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
};

/** A page: where it is, its name, its state, its actions, its content. */
export function Page({ title, crumbs, state, actions, children }: Props) {
  useEffect(() => {
    document.title = msg`${title} · ovgate`;
  }, [title]);
  return (
    <div class="page">
      <div class="page-head">
        {crumbs && (
          <nav class="crumbs" aria-label={msg`Breadcrumb`}>
            {crumbs.map((c, i) => (
              <span key={c.to}>
                {i > 0 && <span aria-hidden="true"> / </span>}
                <Link to={c.to}>{c.text}</Link>
              </span>
            ))}
          </nav>
        )}
        <h1>{title}</h1>
        {state}
        <span class="spacer" />
        <div class="row">{actions}</div>
      </div>
      {children}
    </div>
  );
}

/** A part of a page with a heading. */
export function Card(props: { title: string; class?: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class={`card ${props.class ?? ""}`}>
      <div class="card-head">
        <h2>{props.title}</h2>
        <span class="spacer" />
        {props.aside}
      </div>
      {props.children}
    </section>
  );
}

/** Names and values of an object. */
export function Facts({ rows }: { rows: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => [<dt key={name}>{name}</dt>, <dd key={name + " value"}>{value}</dd>])}
    </dl>
  );
}

/** What a place says that has nothing to show yet: what belongs here and how to make one. */
export function Empty(props: { title: string; text: string; command?: string | undefined; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{props.title}</h2>
      <p>{props.text}</p>
      {props.children && <div class="row">{props.children}</div>}
      {props.command && <code>{props.command}</code>}
    </div>
  );
}
