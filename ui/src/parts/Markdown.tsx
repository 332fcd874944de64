import type { ComponentChildren } from "preact";
import { CopyBlock } from "./CopyBlock";
import { Link } from "./Link";
import { msg } from "../text";

/** A part of a document. */
export type Block =
  | { kind: "heading"; level: number; text: string; anchor: string }
  | { kind: "text"; text: string }
  | { kind: "list"; ordered: boolean; items: string[] }
  | { kind: "table"; head: string[]; rows: string[][] }
  | { kind: "code"; text: string };

/** How a link of a document is shown: as a place in the console, or not as a link. */
export type Resolve = (to: string) => string | undefined;

/** The parts of a document: what our documents use of Markdown, and nothing that is HTML. */
export function parse(markdown: string): Block[] {
  const lines = markdown.split("\n");
  const out: Block[] = [];
  for (let i = 0; i < lines.length; ) {
    const line = lines[i] ?? "";
    const heading = /^(#{1,6}) (.*)$/.exec(line);
    if (line.trim() === "") {
      i++;
    } else if (heading) {
      const text = heading[2] ?? "";
      out.push({ kind: "heading", level: heading[1]?.length ?? 1, text, anchor: anchorOf(text) });
      i++;
    } else if (line.startsWith("```")) {
      const end = lines.indexOf("```", i + 1);
      const last = end < 0 ? lines.length : end;
      out.push({ kind: "code", text: lines.slice(i + 1, last).join("\n") });
      i = last + 1;
    } else if (line.startsWith("|")) {
      const rows = take(lines, i, (l) => l.startsWith("|"));
      const [head, , ...rest] = rows.map(cells);
      out.push({ kind: "table", head: head ?? [], rows: rest });
      i += rows.length;
    } else if (item.test(line)) {
      const taken = take(lines, i, (l) => item.test(l) || /^ {2,}\S/.test(l));
      const items: string[] = [];
      for (const l of taken) {
        if (item.test(l)) {
          items.push(l.replace(item, ""));
        } else {
          items.push(`${items.pop() ?? ""} ${l.trim()}`);
        }
      }
      out.push({ kind: "list", ordered: /^\d/.test(line), items });
      i += taken.length;
    } else {
      const taken = take(lines, i, (l, at) => l.trim() !== "" && (at === 0 || !/^(#{1,6} |```|\||- |\d+\. )/.test(l)));
      out.push({ kind: "text", text: taken.join(" ") });
      i += taken.length;
    }
  }
  return out;
}

const item = /^(?:-|\d+\.) +/;

/** The lines from one on for which a condition holds. */
function take(lines: string[], from: number, holds: (line: string, at: number) => boolean): string[] {
  let n = 0;
  while (from + n < lines.length && holds(lines[from + n] ?? "", n)) {
    n++;
  }
  return lines.slice(from, from + n);
}

/** The cells of a row; a bar in code does not end one. */
function cells(row: string): string[] {
  return (row.trim().slice(1, -1).match(/(?:`[^`]*`|[^|])*(?:\||$)/g) ?? []).map((c) => c.replace(/\|$/, "").trim()).slice(0, -1);
}

/** How links name a heading. */
export function anchorOf(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9 _-]/g, "")
    .replace(/ /g, "-");
}

type Props = { blocks: Block[]; find: string; resolve: Resolve };

/** A document. What is found in it is marked. */
export function Markdown({ blocks, find, resolve }: Props) {
  const show = (text: string) => inline(text, find, resolve);
  return (
    <>
      {blocks.map((b, i) => {
        switch (b.kind) {
          case "heading":
            return b.level === 1 ? null : b.level === 2 ? (
              <h2 key={i} id={b.anchor} tabIndex={-1}>
                {show(b.text)}
              </h2>
            ) : (
              <h3 key={i} id={b.anchor} tabIndex={-1}>
                {show(b.text)}
              </h3>
            );
          case "text":
            return <p key={i}>{show(b.text)}</p>;
          case "list": {
            const items = b.items.map((text, n) => <li key={n}>{show(text)}</li>);
            return b.ordered ? <ol key={i}>{items}</ol> : <ul key={i}>{items}</ul>;
          }
          case "table":
            return (
              <div key={i} class="table-card" role="region" aria-label={msg`Table: ${b.head.filter(Boolean).join(", ") || msg`values`}`} tabIndex={0}>
                <table class="table">
                  {b.head.some(Boolean) && (
                    <thead>
                      <tr>
                        {b.head.map((c, n) => (c ? <th key={n}>{show(c)}</th> : <td key={n} />))}
                      </tr>
                    </thead>
                  )}
                  <tbody>
                    {b.rows.map((row, r) => (
                      <tr key={r}>
                        {row.map((c, n) => (
                          <td key={n} class="wrap">
                            {show(c)}
                          </td>
                        ))}
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            );
          case "code":
            return <CopyBlock key={i} label={msg`Commands`} text={b.text} show={(line) => marked(line, find)} />;
        }
      })}
    </>
  );
}

/** Text with code, bold and links. */
function inline(text: string, find: string, resolve: Resolve): ComponentChildren {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/).map((part, i) => {
    const link = /^\[([^\]]+)\]\(([^)]+)\)$/.exec(part);
    if (link) {
      const to = resolve(link[2] ?? "");
      const shown = inline(link[1] ?? "", find, () => undefined);
      return to?.startsWith("#") ? (
        <a key={i} href={to}>
          {shown}
        </a>
      ) : to ? (
        <Link key={i} to={to}>
          {shown}
        </Link>
      ) : (
        <span key={i}>{shown}</span>
      );
    }
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) {
      return <code key={i}>{marked(part.slice(1, -1), find)}</code>;
    }
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) {
      return <strong key={i}>{marked(part.slice(2, -2), find)}</strong>;
    }
    return <span key={i}>{marked(part, find)}</span>;
  });
}

/** Text in which what is looked for is marked, whatever the case. */
function marked(text: string, find: string): ComponentChildren {
  if (find === "") {
    return text;
  }
  const out: ComponentChildren[] = [];
  const low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(find); at >= 0; at = low.indexOf(find, from)) {
    out.push(text.slice(from, at), <mark key={at}>{text.slice(at, at + find.length)}</mark>);
    from = at + find.length;
  }
  out.push(text.slice(from));
  return out;
}
