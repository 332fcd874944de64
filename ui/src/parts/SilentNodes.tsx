import type { SilentNode } from "../api/gen";
import { Age } from "./Age";
import { Notice } from "./Notice";
import { msg, rich } from "../text";

/** Names nodes that did not answer; what they would have told is in words, such as "Its tasks". */
export function SilentNodes({ nodes, what }: { nodes: SilentNode[]; what: string }) {
  return (
    <>
      {nodes.map((n) => (
        <Notice key={n.node} tone="warn">
          <span>
            {msg`Node ${n.node} does not answer.`} {n.observedAt ? rich`What is shown of it was so ${<Age at={n.observedAt} />}.` : msg`${what} are not shown.`}
          </span>
          <span class="muted small">{n.error}</span>
        </Notice>
      ))}
    </>
  );
}
