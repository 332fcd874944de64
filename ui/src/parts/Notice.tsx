import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/client";
import { useEffect, useState } from "preact/hooks";
import type { Submit } from "../store/submit";
import { Button } from "./Button";
import { glyphs, type Tone } from "./StateTag";
import { msg } from "../text";

type NoticeProps = { tone: Tone; children: ComponentChildren; alert?: boolean; waiting?: boolean };

/** A short message on the page with a glyph for its tone; waiting: something is under way. */
export function Notice({ tone, children, alert, waiting }: NoticeProps) {
  return (
    <div class={`notice ${tone}`} role={alert ? "alert" : undefined}>
      <span class={`glyph tone-${tone}`} aria-hidden="true">
        {tone === "info" && !waiting ? "i" : glyphs[tone]}
      </span>
      <div class="notice-body">{children}</div>
    </div>
  );
}

/** An error verbatim: message, what to do, code, object and request id, and a way to try again. */
export function ErrorPanel({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <Notice tone="bad" alert>
      <b>{error.message}</b>
      {error.hint && <span>{error.hint}</span>}
      <span class="muted small">
        {[error.code, error.object, error.requestId && "request " + error.requestId].filter(Boolean).join(" · ")}
      </span>
      {retry && (
        <span class="row">
          <Button small onClick={retry}>
            {msg`Try again`}
          </Button>
        </span>
      )}
    </Notice>
  );
}

/** The error of a form, unless it is about one of fields, where the form shows it itself. */
export function FormError({ submit, fields }: { submit: Submit; fields: string[] }) {
  if (!submit.error || fields.some((f) => submit.at(f))) {
    return null;
  }
  return <ErrorPanel error={submit.error} />;
}

/** Wait before a place holder shows: below it a flash disturbs more than it tells. */
const skeletonMs = 200;

/** Wait before a word joins the place holder. */
const wordMs = 2000;

/** Holds the place of what is being read. */
export function Skeleton({ lines = 4 }: { lines?: number }) {
  const [phase, setPhase] = useState(0);
  useEffect(() => {
    const first = setTimeout(() => setPhase(1), skeletonMs);
    const second = setTimeout(() => setPhase(2), wordMs);
    return () => {
      clearTimeout(first);
      clearTimeout(second);
    };
  }, []);
  if (phase === 0) {
    return null;
  }
  return (
    <div class="skeleton" role="status" aria-label={msg`Reading`}>
      {Array.from({ length: lines }, (_, i) => (
        <i key={i} />
      ))}
      {phase === 2 && <span class="muted">{msg`Still reading; the node is slow to answer.`}</span>}
    </div>
  );
}
