import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import type { ApiError } from "./api/client";
import { answerPath, loadSession, session, setup } from "./store/session";
import { pressed } from "./store/keys";
import { asApiError } from "./store/query";
import { navigate, path } from "./router";
import { Shell } from "./parts/Shell";
import { Toasts } from "./parts/Toasts";
import { ErrorPanel, Skeleton } from "./parts/Notice";
import { Gate } from "./parts/Gate";
import { Lazy } from "./parts/Lazy";
import { route } from "./routes";
import { SetupPage } from "./pages/Setup";
import { LoginPage } from "./pages/Login";

const failure = signal<ApiError | undefined>(undefined);

async function start(): Promise<void> {
  failure.value = undefined;
  try {
    await loadSession();
  } catch (error) {
    failure.value = asApiError(error);
  }
}

/** The application: set-up, then sign-in, then the console at the address that was asked for. */
export function App() {
  useEffect(() => void start(), []);
  return (
    <>
      <Content />
      <Toasts />
    </>
  );
}

function Content() {
  if (failure.value) {
    return (
      <Gate title="ovgate does not answer">
        <ErrorPanel error={failure.value} retry={() => void start()} />
      </Gate>
    );
  }
  if (session.value === undefined || setup.value === undefined) {
    return (
      <Gate title="ovgate">
        <Skeleton lines={3} />
      </Gate>
    );
  }
  if (setup.value.needed) {
    return <SetupPage />;
  }
  if (session.value === null) {
    return <LoginPage />;
  }
  return <Console />;
}

const loadPalette = () => import("./pages/Palette");
const loadKeys = () => import("./pages/Keys");

/** Pages, the command palette on Ctrl or Cmd with K, and what single keys do. */
function Console() {
  const here = path.value;
  const gate = here === "/login" || here === answerPath;
  useEffect(() => {
    if (gate) {
      navigate("/", { replace: true });
    }
  }, [gate]);
  const [search, setSearch] = useState(false);
  const [keys, setKeys] = useState(false);
  // Before anything of the page is shown: whoever sees it may press a key.
  useLayoutEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
        event.preventDefault();
        // What is being filled in under a dialog is not left by a slip of the hand.
        setSearch((open) => !open && !document.querySelector("dialog[open]:not(.peek)"));
      } else if (pressed(event, () => setKeys(true))) {
        event.preventDefault();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return (
    <>
      <Shell search={() => setSearch(true)} keys={() => setKeys(true)}>{gate ? null : route(here)}</Shell>
      {keys && (
        <Lazy load={loadKeys} waiting={null}>
          {(k) => <k.KeysDialog onClose={() => setKeys(false)} />}
        </Lazy>
      )}
      {search && (
        <Lazy load={loadPalette} waiting={null}>
          {(p) => <p.Palette onClose={() => setSearch(false)} />}
        </Lazy>
      )}
    </>
  );
}
