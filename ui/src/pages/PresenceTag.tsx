import type { DatastoreJob } from "../api/gen";
import { Tag } from "../parts/StateTag";
import { msg } from "../text";

/** Whether something is at a vCenter, or the step of the job that works on it. */
export function PresenceTag({ of: { state, job: j } }: { of: { state: string; job: DatastoreJob | null } }) {
  if (!j) {
    return state === "present" ? <Tag tone="ok" word={msg`Present`} /> : <Tag tone="info" word={state} />;
  }
  const at = msg`${j.kind}, step ${j.steps.indexOf(j.step) + 1} of ${j.steps.length}: ${j.step}`;
  return <Tag tone={j.error ? "warn" : "info"} word={at} title={[j.error, j.hint].filter(Boolean).join(". ")} />;
}
