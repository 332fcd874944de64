// Who is signed in and what the role allows. The node decides; the console only explains.
import { computed, signal } from "@preact/signals";
import { call, whenReading, whenSignedOut } from "../api/client";
import type { Grant, OidcAnswerInput, Role, RoleOrNone, Session, Setup } from "../api/gen";
import { navigate } from "../router";
import { closeStream, openStream } from "../api/events";
import { forgetAll, withoutReads } from "./query";
import { forgetMetrics } from "./metrics";
import { forgetToasts } from "./toasts";
import { msg } from "../text";

/** undefined: not known yet; null: nobody is signed in. */
export const session = signal<Session | null | undefined>(undefined);

/** Whether the first administrator has still to be created; undefined: not known yet. */
export const setup = signal<Setup | undefined>(undefined);

/** Set when a session ended by itself, so that the sign-in page says why it is there. */
export const ended = signal(false);

/** What people know the sign-in provider by; null: there is none. */
export const provider = signal<string | null>(null);

const rank: Record<RoleOrNone, number> = { none: 0, read: 1, write: 2, manage: 3 };

export const role = computed<RoleOrNone | undefined>(() => session.value?.role ?? undefined);

/** The place of an action that may be about any vPool or backend: the node says where it is allowed. */
export const anywhere = "anywhere";

/** Why one may not act without a role; undefined when one may. on: "vpool:NAME", "backend:NAME", anywhere, or the cluster. */
export function denied(needs: Role, on?: string): string | undefined {
  const have = role.value;
  if (have && rank[have] >= rank[needs]) {
    return undefined;
  }
  const grants = (session.value?.grants ?? []).filter((g) => g.exists);
  const here = grants.filter((g) => on === anywhere || on === scopeName(g));
  if (here.some((g) => rank[g.role] >= rank[needs])) {
    return undefined;
  }
  if (here[0] && on !== anywhere) {
    return msg`Needs role ${needs} on ${on?.replace(":", " ")}; you have ${here[0].role} there`;
  }
  return msg`Needs role ${needs}; you have ${have ?? msg`none`}`;
}

/** A grant's scope as people write it. */
export function scopeName(g: Grant): string {
  return `${g.scope.split(":")[0]}:${g.name}`;
}

/** What is read with a role on some vPools or backends alone, as beginnings of operations. */
const scopedReads = [
  "backends", "clients", "documents", "events/codes", "exports", "imports", "iscsi/sessions", "jobs", "nodes", "portals",
  "schedule", "session", "setup", "status", "targets", "tokens", "trash", "vdisks", "version", "vpools",
];

/** Why something is not read: the node would refuse it, which the browser reports each time. */
whenReading((op) => {
  const path = op.replace("GET /", "");
  const closed = /^nodes\/.*\/|^users/.test(path) || !scopedReads.some((r) => path === r || path.startsWith(r + "/") || path === r + "s");
  return session.value?.user && denied("read") && closed ? denied("read") : undefined;
});

/** Reads session and set-up state and opens the stream for a user who is signed in. */
export async function loadSession(): Promise<void> {
  const [who, state] = await Promise.all([call("GET /session"), call("GET /setup")]);
  setup.value = state;
  accept(who);
}

export async function signIn(user: string, password: string): Promise<void> {
  const who = await call("POST /session", { body: { user, password } });
  ended.value = false;
  accept(who);
}

/** Reads what people may sign in through: it may have been set since somebody signed in here. */
export async function readProvider(): Promise<void> {
  try {
    provider.value = (await call("GET /session")).provider;
  } catch {
    // What was known stays; passwords work without it.
  }
}

/** Where the provider sends a browser back to. */
export const answerPath = "/login/oidc";

/** Leaves for the provider; the page that is shown now is the one to come back to. */
export async function leaveForProvider(): Promise<void> {
  const returnTo = location.pathname.startsWith("/login") ? "/" : location.pathname + location.search;
  const { url } = await call("POST /session/oidc", { body: { address: location.origin, returnTo } });
  location.assign(url);
}

/** Takes what the provider answered out of the address, where it must not stay; undefined: there is none. */
export function takeAnswer(): OidcAnswerInput | undefined {
  const given = new URLSearchParams(location.search);
  const state = given.get("state");
  if (location.pathname !== answerPath) {
    return undefined;
  }
  navigate("/login", { replace: true });
  const answer: OidcAnswerInput = { state: state ?? "" };
  for (const [from, name] of [["code", "code"], ["iss", "iss"], ["error", "error"], ["error_description", "errorDescription"]] as const) {
    const value = given.get(from);
    if (value) {
      answer[name] = value;
    }
  }
  return state ? answer : undefined;
}

/** Signs in with what the provider answered, and shows the page that was left. */
export async function signInWith(answer: OidcAnswerInput): Promise<void> {
  const { session: who, returnTo } = await call("POST /session/oidc/answer", { body: answer });
  ended.value = false;
  navigate(returnTo, { replace: true });
  accept(who);
}

export async function completeSetup(token: string, user: string, password: string): Promise<void> {
  await call("POST /setup", { body: { token, user, password } });
  setup.value = { needed: false };
  await signIn(user, password);
}

export async function signOut(): Promise<void> {
  closeStream(); // first: the node ends it with the session, and the browser would report that
  await withoutReads(async () => {
    let there: { url: string } | undefined;
    try {
      there = await call("DELETE /session");
    } catch (error) {
      openStream(stillSignedIn);
      throw error;
    }
    drop();
    if (there) {
      location.assign(there.url); // the session at the provider ends too
    }
  });
}

/** Changes one's own password. That ends every session of the user, so this one is made anew. */
export async function changeOwnPassword(user: string, currentPassword: string, password: string): Promise<void> {
  await withoutReads(async () => {
    await call("PATCH /users/{user}", { path: { user }, body: { password, currentPassword } });
    await signIn(user, password);
  });
}

function accept(who: Session): void {
  session.value = who.user ? who : null;
  provider.value = who.provider;
  if (who.user) {
    openStream(stillSignedIn);
  }
}

function drop(): void {
  closeStream();
  forgetAll();
  forgetMetrics();
  forgetToasts();
  session.value = null;
}

async function stillSignedIn(): Promise<boolean> {
  try {
    const who = await call("GET /session");
    if (!who.user) {
      ended.value = true;
      drop();
    }
    return Boolean(who.user);
  } catch {
    return true; // the node is away, not the session: the stream tries again
  }
}

whenSignedOut(() => {
  if (session.value) {
    ended.value = true;
    drop();
  }
});
