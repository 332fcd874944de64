// Typed calls to the API: the only place that uses fetch.
import { idempotent, type Error as ErrorBody, type Ops } from "./gen";
import { msg } from "../text";

/** Longest wait for what only reads: a node that is away never answers. */
const readTimeoutMs = 30_000;

/** Longest wait for a change: opening, committing and recovering wait for the backend. */
const changeTimeoutMs = 120_000;

/** Longest wait for a file that the node has to put together. */
const downloadTimeoutMs = 180_000;

/** A refused or failed call, with what the node said about it. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly field?: string;
  readonly object?: string;
  readonly hint?: string;
  readonly requestId?: string;

  constructor(status: number, body: Partial<ErrorBody> & { code: string; message: string }) {
    super(sentence(body.message));
    this.name = "ApiError";
    this.status = status;
    this.code = body.code;
    this.field = body.field;
    this.object = body.object;
    this.hint = body.hint && sentence(body.hint);
    this.requestId = body.requestId;
  }

  /** Whether the node may have acted although no answer came. */
  get outcomeUnknown(): boolean {
    return this.status === 0;
  }
}

/** The node's words as the start of a sentence: its messages also stand after a colon in logs. */
function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What the console itself refuses to send, because it could not be told from an empty field. */
export function badField(field: string, message: string): ApiError {
  return new ApiError(400, { code: "invalid", field, message });
}

/** What a call takes: path and query values, a body, and a key that makes a repeated create harmless. */
export type Args<K extends keyof Ops> = {
  path?: Ops[K]["path"];
  query?: Ops[K]["query"];
  body?: Ops[K]["body"];
  key?: string;
};

let onSignedOut: () => void = () => {};

/** Registers what happens when the node says that the session has ended. */
export function whenSignedOut(act: () => void): void {
  onSignedOut = act;
}

let closed: (op: string) => string | undefined = () => undefined;

/** Registers what tells why an operation that reads is not even asked for. */
export function whenReading(why: (op: string) => string | undefined): void {
  closed = why;
}

/** Draws a key for one create. crypto.randomUUID is missing on plain http, getRandomValues is not. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Calls one operation of the API, or throws an ApiError. */
export async function call<K extends keyof Ops>(op: K, args: Args<K> = {}): Promise<Ops[K]["res"]> {
  const response = await ask(op, args);
  const text = await response.text(); // 202 and 204 may have none
  return (text ? JSON.parse(text) : undefined) as Ops[K]["res"];
}

/** Calls an operation that answers with bytes, or throws an ApiError. */
export async function callBytes<K extends keyof Ops>(op: K, args: Args<K>): Promise<Blob> {
  return (await ask(op, args)).blob();
}

async function ask<K extends keyof Ops>(op: K, args: Args<K>): Promise<Response> {
  const [method, template] = op.split(" ") as [string, string];
  const why = method === "GET" ? closed(op) : undefined;
  if (why) {
    throw new ApiError(403, { code: "forbidden", message: why });
  }
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") {
    headers["X-CSRF-Token"] = cookie("ovgate_csrf");
  }
  const body: unknown = args.body;
  if (body !== undefined) {
    headers["Content-Type"] = body instanceof Blob ? "application/octet-stream" : "application/json";
  }
  if (idempotent.includes(op)) {
    headers["Idempotency-Key"] = args.key ?? newKey();
  }
  const timeoutMs = method === "GET" ? readTimeoutMs : changeTimeoutMs;
  let response: Response;
  try {
    response = await fetch("/api/v1" + fill(template, args.path) + search(args.query), {
      method,
      headers,
      credentials: "same-origin",
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    });
  } catch (cause) {
    throw noAnswer(cause, timeoutMs);
  }
  if (!response.ok) {
    throw await refused(response, op);
  }
  return response;
}

/** Fetches a file, and hands it to the browser under the name that the node gives it. */
export async function download(path: "/support-bundle" | "/metadata/backup"): Promise<void> {
  let response: Response;
  let content: Blob;
  try {
    response = await fetch("/api/v1" + path, { credentials: "same-origin", signal: AbortSignal.timeout(downloadTimeoutMs) });
    content = response.ok ? await response.blob() : new Blob();
  } catch (cause) {
    throw noAnswer(cause, downloadTimeoutMs);
  }
  if (!response.ok) {
    throw await refused(response, "GET " + path);
  }
  save(content, /filename="([^"/\\]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "download");
}

/** Hands a file to the browser under a name. */
export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function fill(template: string, values: object | undefined): string {
  const lookup = (values ?? {}) as Record<string, string>;
  return template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(lookup[name] ?? ""));
}

function search(values: object | undefined): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "") {
        query.append(name, String(one));
      }
    }
  }
  const text = query.toString();
  return text ? "?" + text : "";
}

function cookie(name: string): string {
  const entry = document.cookie.split("; ").find((c) => c.startsWith(name + "="));
  return entry ? decodeURIComponent(entry.slice(name.length + 1)) : "";
}

function noAnswer(cause: unknown, timeoutMs: number): ApiError {
  const late = cause instanceof DOMException && cause.name === "TimeoutError";
  return new ApiError(0, {
    code: late ? "timeout" : "unreachable",
    message: late ? msg`The node did not answer within ${timeoutMs / 1000} s` : msg`The node cannot be reached`,
    hint: msg`Check that ovgate is running and that this computer still reaches it, then try again`,
  });
}

async function refused(response: Response, op: string): Promise<ApiError> {
  const body = (await response.json().catch(() => ({}))) as Partial<ErrorBody>;
  if (response.status === 401 && !op.startsWith("POST /session") && op !== "POST /setup") {
    onSignedOut();
  }
  return new ApiError(response.status, {
    ...body,
    code: body.code ?? "http_" + response.status,
    message: body.message ?? msg`The node answered ${response.status} ${response.statusText}`,
    requestId: body.requestId ?? response.headers.get("X-Request-Id") ?? undefined,
  });
}
