import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { Document } from "../api/gen";
import { query } from "../router";
import { useQuery } from "../store/query";
import { Button } from "../parts/Button";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Markdown, parse } from "../parts/Markdown";
import { Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { msg } from "../text";

/** The document that is shown first. */
const first = "operations";

/** The documentation that is part of the program: a list, a document with its outline, and what is found in it. */
export function DocumentsPage({ name = first }: { name?: string }) {
  const list = useQuery("documents", () => call("GET /documents", { query: { limit: 100 } }));
  const document = useQuery("document?" + name, () => call("GET /documents/{document}", { path: { document: name } }));
  const names = list.data?.items.map((d) => d.name) ?? [];
  return (
    <Page title={document.data?.title ?? msg`Documentation`} actions={<SearchBox label={msg`Find in this document`} placeholder={msg`Find in this document`} />}>
      <div class="docs">
        <div class="docs-side stack">
          <nav aria-label={msg`Documents`}>
            <Load query={list} lines={6}>
              {(data) => (
                <ul>
                  {data.items.map((d) => (
                    <li key={d.name}>
                      <Link to={`/docs/${d.name}`} aria-current={d.name === name ? "page" : undefined}>
                        {d.title}
                      </Link>
                    </li>
                  ))}
                  <li>
                    <Link to="/docs/api">{msg`API`}</Link>
                  </li>
                </ul>
              )}
            </Load>
          </nav>
        </div>
        <Load query={document} lines={12}>
          {(data) => <Shown key={data.name} document={data} names={names} />}
        </Load>
      </div>
    </Page>
  );
}

function Shown({ document, names }: { document: Document; names: string[] }) {
  const blocks = useMemo(() => parse(document.text), [document.text]);
  const find = (query.value.get("q") ?? "").toLowerCase();
  const article = useRef<HTMLElement>(null);
  const [found, setFound] = useState(0);
  const [at, setAt] = useState(0);
  const go = (n: number) => {
    const marks = [...(article.current?.querySelectorAll("mark") ?? [])];
    marks.forEach((m, i) => m.classList.toggle("at", i === n));
    marks[n]?.scrollIntoView({ block: "center" });
    setFound(marks.length);
    setAt(n);
  };
  useEffect(() => go(0), [find, document.name]);
  useEffect(() => {
    const id = decodeURIComponent(location.hash.slice(1));
    if (id) {
      window.document.getElementById(id)?.scrollIntoView();
    }
  }, [document.name]);
  const resolve = (to: string) => place(to, document.name, names);
  const nothing = found === 0 ? msg`There is nothing like that in this document` : undefined;
  const outline = blocks.flatMap((b) => (b.kind === "heading" && b.level === 2 ? [b] : []));
  return (
    <div class="docs-body">
      {find && (
        <div class="row docs-found" role="status">
          <span>{found === 0 ? msg`Not found` : msg`${at + 1} of ${found}`}</span>
          <Button small reason={nothing} onClick={() => go((at - 1 + found) % found)}>
            {msg`Previous`}
          </Button>
          <Button small reason={nothing} onClick={() => go((at + 1) % found)}>
            {msg`Next`}
          </Button>
        </div>
      )}
      {outline.length > 0 && (
        <nav class="docs-outline" aria-label={msg`Outline`}>
          <ul>
            {outline.map((b) => (
              <li key={b.anchor}>
                <a href={`#${b.anchor}`}>{b.text}</a>
              </li>
            ))}
          </ul>
        </nav>
      )}
      <article ref={article} aria-label={document.title}>
        <Markdown blocks={blocks} find={find} resolve={resolve} />
      </article>
    </div>
  );
}

/** Where a link of a document leads in the console; what is not part of the program is no link. */
function place(to: string, name: string, names: string[]): string | undefined {
  const [file = "", anchor] = to.split("#");
  const target = file === "" ? name : file.endsWith("observe/README.md") ? "health" : file.replace(/\.md$/, "");
  if (target === name) {
    return "#" + (anchor ?? "");
  }
  return names.includes(target) ? `/docs/${target}${anchor ? "#" + anchor : ""}` : undefined;
}
