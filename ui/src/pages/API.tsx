// The description of the API, drawn from its own document.
import { useMemo, useState } from "preact/hooks";
import { call } from "../api/client";
import { plural } from "../format";
import { query, setQuery } from "../router";
import { useQuery } from "../store/query";
import { CopyBlock } from "../parts/CopyBlock";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { msg, noun, rich } from "../text";

type Ref = { $ref?: string };

export type Schema = Ref & {
  type?: string;
  format?: string;
  description?: string;
  enum?: string[];
  nullable?: boolean;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
  allOf?: Schema[];
};

type Parameter = Ref & { name: string; in: string; required?: boolean; description?: string; schema: Schema };
type Content = Record<string, { schema: Schema }>;
type Body = Ref & { required?: boolean; content: Content };
type Answer = Ref & { description: string; content?: Content };

type Operation = {
  operationId: string;
  tags: string[];
  summary: string;
  description?: string;
  parameters?: Parameter[];
  requestBody?: Body;
  responses: Record<string, Answer>;
  "x-role": string;
};

type Item = Partial<Record<Method, Operation>> & { parameters?: Parameter[] };

type Spec = {
  info: { title: string; version: string; description?: string };
  tags: { name: string; description?: string }[];
  paths: Record<string, Item>;
  components: Record<string, Record<string, unknown>>;
};

const methods = ["get", "post", "put", "patch", "delete"] as const;
type Method = (typeof methods)[number];

/** An operation with where it is called. */
type Call = Operation & { method: Method; path: string; all: Parameter[] };

/** What a part of the document refers to, or the part itself. */
function resolve<T extends Ref>(spec: Spec, part: T): T {
  const [, , kind, name] = part.$ref?.split("/") ?? [];
  return kind && name ? ((spec.components[kind]?.[name] as T | undefined) ?? part) : part;
}

function callsOf(spec: Spec): Call[] {
  return Object.entries(spec.paths).flatMap(([path, item]) =>
    methods.flatMap((method) => {
      const op = item[method];
      return op ? [{ ...op, method, path, all: [...(item.parameters ?? []), ...(op.parameters ?? [])].map((p) => resolve(spec, p)) }] : [];
    }),
  );
}

/** The API: its operations by what they are about, each with what it takes and answers. */
export function APIPage() {
  const spec = useQuery("spec", async () => (await call("GET /openapi.json")) as unknown as Spec);
  return (
    <Page
      title={msg`API`}
      crumbs={[{ to: "/docs", text: msg`Documentation` }]}
      actions={
        <a class="btn" href="/api/v1/openapi.yaml" download="ovgate-openapi.yaml">
          {msg`OpenAPI document`}
        </a>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label={msg`Find operations`} placeholder={msg`Find operations`} />
      </div>
      <Load query={spec} lines={12}>
        {(s) => <Operations spec={s} />}
      </Load>
    </Page>
  );
}

function Operations({ spec }: { spec: Spec }) {
  const calls = useMemo(() => callsOf(spec), [spec]);
  const words = (query.value.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const open = query.value.get("op");
  const found = calls.filter((c) => {
    const text = `${c.method} ${c.path} ${c.operationId} ${c.summary} ${c.description ?? ""}`.toLowerCase();
    return words.every((w) => text.includes(w));
  });
  const tags = spec.tags.filter((t) => found.some((c) => c.tags.includes(t.name)));
  return (
    <div class="docs">
      <nav class="docs-side" aria-label={msg`Parts of the API`}>
        <ul>
          {tags.map((t) => (
            <li key={t.name}>
              <a href={`#tag-${t.name}`}>{t.name}</a>
            </li>
          ))}
        </ul>
      </nav>
      <div class="stack-wide">
        <p class="muted" role="status">
          {rich`${words.length > 0 ? msg`${plural(found.length, noun`operation`)} of ${calls.length}` : plural(calls.length, noun`operation`)}, below ${<code>/api/v1</code>}. A program sends a ${<Link to="/tokens">{msg`token`}</Link>} with each request: ${<code>Authorization: Bearer TOKEN</code>}.`}
        </p>
        {tags.map((t) => (
          <section key={t.name} id={`tag-${t.name}`} class="stack api-tag">
            <h2>{t.name}</h2>
            {t.description && <p class="muted">{t.description}</p>}
            {found
              .filter((c) => c.tags.includes(t.name))
              .map((c) => (
                <OperationBlock key={c.operationId} spec={spec} call={c} open={c.operationId === open} />
              ))}
          </section>
        ))}
      </div>
    </div>
  );
}

const roleWords: Record<string, string> = {
  none: msg`no credentials`,
  node: msg`nodes of the cluster`,
  read: msg`role read`,
  write: msg`role write`,
  manage: msg`role manage`,
};

function OperationBlock({ spec, call: c, open }: { spec: Spec; call: Call; open: boolean }) {
  return (
    <details
      class="api-op"
      open={open}
      onToggle={(event) => {
        const now = event.currentTarget.open;
        if (now !== open) {
          setQuery({ op: now ? c.operationId : undefined }, { replace: true });
        }
      }}
    >
      <summary>
        <span class={`api-method ${c.method}`}>{c.method.toUpperCase()}</span> <code>{c.path}</code>
        <span class="muted">{c.summary}</span>
      </summary>
      {open && <Details spec={spec} call={c} />}
    </details>
  );
}

function Details({ spec, call: c }: { spec: Spec; call: Call }) {
  const body = c.requestBody && resolve(spec, c.requestBody);
  const answers = Object.entries(c.responses).map(([code, a]) => [code, resolve(spec, a)] as const);
  return (
    <div class="stack api-details">
      {c.description && <p class="api-text">{c.description}</p>}
      <p>
        <span class="chip">{roleWords[c["x-role"]] ?? c["x-role"]}</span> <span class="chip mono">{c.operationId}</span>
      </p>
      {c.all.length > 0 && (
        <>
          <h3>{msg`Parameters`}</h3>
          <dl class="facts api-facts">
            {c.all.map((p) => [
              <dt key={p.name}>
                <code>{p.name}</code> <span class="muted small">{p.required ? msg`${p.in}, required` : p.in}</span>
              </dt>,
              <dd key={p.name + " value"}>
                <span class="muted">{typeWords(spec, p.schema)}</span> {p.description ?? resolve(spec, p.schema).description}
              </dd>,
            ])}
          </dl>
        </>
      )}
      {body && (
        <>
          <h3>{msg`Body`}</h3>
          <Contents spec={spec} content={body.content} />
        </>
      )}
      <h3>{msg`Answers`}</h3>
      {answers.map(([code, a]) => (
        <div key={code} class="stack-tight">
          <p>
            <b class="num">{code === "default" ? msg`other` : code}</b> {a.description}
          </p>
          {a.content && code !== "default" && <Contents spec={spec} content={a.content} />}
        </div>
      ))}
      <CopyBlock label={msg`curl`} text={curl(spec, c)} />
    </div>
  );
}

function Contents({ spec, content }: { spec: Spec; content: Content }) {
  return (
    <>
      {Object.entries(content).map(([type, { schema }]) =>
        type === "application/json" ? <SchemaView key={type} spec={spec} schema={schema} seen={[]} /> : <p key={type} class="muted">{type}</p>,
      )}
    </>
  );
}

/** Nested objects that are unfolded at once; deeper ones on demand. */
const unfoldedDepth = 1;

/** The properties of an object, the elements of a list, or a plain value; seen are the names above it. */
function SchemaView({ spec, schema, seen }: { spec: Spec; schema: Schema; seen: string[] }) {
  const name = refName(schema);
  const s = flatten(spec, schema);
  const inner = s.type === "array" && s.items ? flatten(spec, s.items) : s;
  const innerName = s.type === "array" && s.items ? refName(s.items) : name;
  if (!inner.properties) {
    return <p class="muted">{typeWords(spec, schema)}</p>;
  }
  if (innerName && seen.includes(innerName)) {
    return <p class="muted">{rich`${innerName}, as above`}</p>;
  }
  const above = innerName ? [...seen, innerName] : seen;
  return (
    <dl class="facts api-facts">
      {Object.entries(inner.properties).map(([key, p]) => [
        <dt key={key}>
          <code>{key}</code> {inner.required?.includes(key) && <span class="muted small">{msg`required`}</span>}
        </dt>,
        <dd key={key + " value"}>
          <span class="muted">{typeWords(spec, p)}</span> {p.description ?? flatten(spec, p).description}
          <Nested spec={spec} schema={p} seen={above} />
        </dd>,
      ])}
    </dl>
  );
}

/** What a property consists of, where that is an object or a list of objects. */
function Nested({ spec, schema, seen }: { spec: Spec; schema: Schema; seen: string[] }) {
  const [shown, show] = useState(seen.length < unfoldedDepth);
  const s = flatten(spec, schema);
  const inner = s.type === "array" && s.items ? flatten(spec, s.items) : s;
  if (!inner.properties) {
    return null;
  }
  return (
    <details open={shown} onToggle={(event) => show(event.currentTarget.open)}>
      <summary>{refName(s.type === "array" && s.items ? s.items : schema) ?? msg`its properties`}</summary>
      {shown && <SchemaView spec={spec} schema={schema} seen={seen} />}
    </details>
  );
}

function refName(s: Schema): string | undefined {
  return (s.$ref ?? (s.allOf?.length === 1 ? s.allOf[0]?.$ref : undefined))?.split("/").at(-1);
}

/** A schema without references and without an allOf of one around it. */
function flatten(spec: Spec, schema: Schema): Schema {
  const s = resolve(spec, schema);
  const [only] = s.allOf ?? [];
  return only ? { ...resolve(spec, only), ...s, allOf: undefined } : s;
}

/** Type and bounds of a value in words. */
export function typeWords(spec: Spec, schema: Schema): string {
  const s = flatten(spec, schema);
  const parts: string[] = [];
  if (s.enum) {
    parts.push(s.enum.join(" | "));
  } else if (s.type === "array" && s.items) {
    parts.push(msg`list of ` + (refName(s.items) ?? typeWords(spec, s.items)));
  } else if (s.type === "object" && s.additionalProperties && typeof s.additionalProperties === "object") {
    parts.push(msg`names with ` + typeWords(spec, s.additionalProperties));
  } else {
    parts.push(s.format ?? s.type ?? "any");
  }
  if (s.nullable) {
    parts.push(msg`or null`);
  }
  const bounds = [
    s.minimum !== undefined && msg`from ${s.minimum}`,
    s.maximum !== undefined && msg`to ${s.maximum}`,
    s.maxLength !== undefined && msg`at most ${s.maxLength} characters`,
    s.maxItems !== undefined && msg`at most ${s.maxItems}`,
    s.default !== undefined && msg`default ${JSON.stringify(s.default)}`,
  ].filter(Boolean);
  return parts.join(" ") + (bounds.length > 0 ? ` (${bounds.join(", ")})` : "");
}

/** A command line that makes the call, with places for what the caller has to say. */
function curl(spec: Spec, c: Call): string {
  const path = c.path.replace(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase());
  const lines = [`curl --cacert ca.pem -X ${c.method.toUpperCase()} ${location.origin}/api/v1${path}`];
  if (c["x-role"] !== "none") {
    lines.push(`-H "Authorization: Bearer $OVGATE_TOKEN"`);
  }
  const schema = c.requestBody && resolve(spec, c.requestBody).content["application/json"]?.schema;
  if (schema) {
    lines.push(`-H "Content-Type: application/json"`, `-d '${JSON.stringify(example(spec, schema, 0))}'`);
  }
  return lines.join(" \\\n  ");
}

/** Depth of an example; what is deeper is left out. */
const exampleDepth = 3;

/** A body with what has to be there, its values to be replaced. */
function example(spec: Spec, schema: Schema, depth: number): unknown {
  const s = flatten(spec, schema);
  if (s.enum) {
    return s.enum[0];
  }
  switch (s.type) {
    case "object":
      return depth > exampleDepth
        ? {}
        : Object.fromEntries(
            Object.entries(s.properties ?? {})
              .filter(([key]) => s.required?.includes(key))
              .map(([key, p]) => [key, example(spec, p, depth + 1)]),
          );
    case "array":
      return [];
    case "integer":
    case "number":
      return s.default ?? s.minimum ?? 0;
    case "boolean":
      return s.default ?? false;
    default:
      return s.default ?? (s.format === "date-time" ? "2026-01-02T03:04:05Z" : "…");
  }
}
