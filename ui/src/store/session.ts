// Who is signed in and what the role allows. The node decides; the console only explains.
import { computed, signal } from "@preact/signals";
import { call, whenSignedOut } from "../api/client";
import type { Role, Session, Setup } from "../api/gen";
import { closeStream, openStream } from "../api/events";
import { forgetAll, withoutReads } from "./query";
import { forgetMetrics } from "./metrics";
import { forgetToasts } from "./toasts";

/** undefined: not known yet; null: nobody is signed in. */
export const session = signal<Session | null | undefined>(undefined);

/** Whether the first administrator has still to be created; undefined: not known yet. */
export const setup = signal<Setup | undefined>(undefined);

/** Set when a session ended by itself, so that the sign-in page says why it is there. */
export const ended = signal(false);

const rank: Record<Role, number> = { read: 1, write: 2, manage: 3 };

export const role = computed<Role | undefined>(() => session.value?.role ?? undefined);

/** Why the role does not allow an action that needs another one; undefined when it does. */
export function denied(needs: Role): string | undefined {
  const have = role.value;
  if (have && rank[have] >= rank[needs]) {
    return undefined;
  }
  return `Needs role ${needs}; you have ${have ?? "none"}`;
}

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

export async function completeSetup(token: string, user: string, password: string): Promise<void> {
  await call("POST /setup", { body: { token, user, password } });
  setup.value = { needed: false };
  await signIn(user, password);
}

export async function signOut(): Promise<void> {
  closeStream(); // first: the node ends it with the session, and the browser would report that
  await withoutReads(async () => {
    try {
      await call("DELETE /session");
    } catch (error) {
      openStream(stillSignedIn);
      throw error;
    }
    drop();
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
