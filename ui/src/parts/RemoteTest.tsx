import type { ComponentProps } from "preact";
import { useState } from "preact/hooks";
import type { RemoteStep } from "../api/gen";
import { useSubmit } from "../store/submit";
import { Button } from "./Button";
import { Dialog } from "./Dialog";
import { ErrorPanel, Notice } from "./Notice";
import { Facts } from "./Page";
import { Tag } from "./StateTag";
import { msg } from "../text";

/** What was tried at something remote, step by step. */
export function Steps({ steps }: { steps: RemoteStep[] }) {
  return (
    <ul class="stack">
      {steps.map((s) => (
        <li key={s.step}>
          <Tag tone={s.ok ? "ok" : "bad"} word={s.ok ? msg`Works` : msg`Does not work`} /> <b>{s.step}</b>
          {s.detail && `: ${s.detail}`}
        </li>
      ))}
    </ul>
  );
}

type Props = {
  name: string;
  facts: ComponentProps<typeof Facts>["rows"];
  warnings: string[];
  test: () => Promise<RemoteStep[]>;
  onClose: () => void;
};

/** Tries what a registered cloud or vCenter is needed for. */
export function RemoteTest({ name, facts, warnings, test, onClose }: Props) {
  const submit = useSubmit();
  const [steps, setSteps] = useState<RemoteStep[] | undefined>(undefined);
  return (
    <Dialog title={msg`Test ${name}`} onClose={onClose}>
      <Facts rows={facts} />
      {warnings.map((w) => (
        <Notice key={w} tone="warn">
          <span>{w}</span>
        </Notice>
      ))}
      {steps && <Steps steps={steps} />}
      {submit.error && <ErrorPanel error={submit.error} />}
      <div class="dialog-foot">
        <Button kind="primary" needs="manage" busy={submit.busy} onClick={() => void submit.run(async () => setSteps(await test()))}>
          {msg`Test now`}
        </Button>
      </div>
    </Dialog>
  );
}
