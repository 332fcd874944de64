// What every form does: send once, show what the node said at the field it said it about.
import { useRef, useState } from "preact/hooks";
import { newKey, type ApiError } from "../api/client";
import { asApiError } from "./query";

export type Submit = {
  busy: boolean;
  error: ApiError | undefined;
  /** The message for one field of the request; nested fields match by their last part. */
  at: (field: string) => string | undefined;
  /** Runs action unless one runs already; answers whether it succeeded. */
  run: (action: (key: string) => Promise<void>) => Promise<boolean>;
  clear: () => void;
};

/**
 * The state of one form. fields are the names that the form shows messages for; an error about
 * another field, or about none, is left to the form's ErrorPanel.
 */
export function useSubmit(): Submit {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const running = useRef(false);
  // One key for all attempts of one create: kept while it is unknown whether the node acted.
  const key = useRef(newKey());

  const run = async (action: (key: string) => Promise<void>): Promise<boolean> => {
    if (running.current) {
      return false;
    }
    running.current = true;
    setBusy(true);
    setError(undefined);
    try {
      await action(key.current);
      key.current = newKey();
      return true;
    } catch (thrown) {
      const failure = asApiError(thrown);
      if (!failure.outcomeUnknown) {
        key.current = newKey();
      }
      setError(failure);
      // After the form has marked the field: the keyboard goes where the correction is due, unless
      // somebody is typing elsewhere by then.
      const from = document.activeElement;
      requestAnimationFrame(() => {
        if (document.activeElement === from || document.activeElement === document.body) {
          document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
        }
      });
      return false;
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  const at = (field: string) =>
    matches(error, field) ? [error?.message, error?.hint].filter(Boolean).join(". ") : undefined;
  return { busy, error, at, run, clear: () => setError(undefined) };
}

function matches(error: ApiError | undefined, field: string): boolean {
  return Boolean(error?.field && (error.field === field || error.field.endsWith("." + field)));
}
