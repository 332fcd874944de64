import { signal } from "@preact/signals";
import type { Status } from "../api/gen";
import { useUsers } from "../store/reads";
import { denied } from "../store/session";
import { Button } from "../parts/Button";
import { Link } from "../parts/Link";
import { Card } from "../parts/Page";
import { msg } from "../text";

type Step = { done: boolean; title: string; text: string; action: string; to: string };

const place = "ovgate.checklist.hidden";
const hidden = signal(localStorage.getItem(place) === "yes");

function hide(): void {
  localStorage.setItem(place, "yes");
  hidden.value = true;
}

/** What to do next, in order; shown until all is done, or until it is hidden. */
export function Checklist({ status }: { status: Status }) {
  return hidden.value || denied("write") ? null : <Steps status={status} />;
}

function Steps({ status: { counts } }: { status: Status }) {
  const users = useUsers({}).data?.items.length;
  const steps: Step[] = [
    {
      done: counts.vpools > 0,
      title: msg`Check the node and its disks`,
      text: msg`Clock, network and places are looked at, and the disks proposed for what they are good for.`,
      action: msg`Open set-up`,
      to: "/setup",
    },
    {
      done: counts.vpools > 0,
      title: msg`Create a vPool`,
      text: msg`A vPool says where data is kept; a directory of this node is enough to start.`,
      action: msg`Create vPool`,
      to: "/vpools/new",
    },
    {
      done: counts.vdisks > 0,
      title: msg`Create a vDisk`,
      text: msg`It takes space as data is written to it, so choose a generous size.`,
      action: msg`Create vDisk`,
      to: "/vdisks/new",
    },
    {
      done: counts.published > 0,
      title: msg`Publish it`,
      text: msg`Publishing gives the vDisk an iSCSI target and the commands to reach it.`,
      action: msg`Open vDisks`,
      to: "/vdisks",
    },
    {
      done: counts.sessions > 0,
      title: msg`Connect a host`,
      text: msg`Paste the commands on a host; its session appears here by itself.`,
      action: msg`Open iSCSI`,
      to: "/iscsi",
    },
    {
      // Until it is known, nothing is shown for it alone.
      done: users === undefined ? counts.sessions > 0 : users > 1,
      title: msg`Add a second user`,
      text: msg`With a password of their own everybody is told apart in the audit log, and nobody is locked out with you.`,
      action: msg`Create user`,
      to: "/users/new",
    },
  ].filter((s) => s.to !== "/users/new" || !denied("manage"));
  const open = steps.findIndex((s) => !s.done);
  if (open < 0) {
    return null;
  }
  return (
    <Card
      title={msg`Get started`}
      class="span-12"
      aside={
        <Button small kind="quiet" onClick={hide}>
          {msg`Hide`}
        </Button>
      }
    >
      <ol class="checklist">
        {steps.map((s, i) => (
          <li key={s.title} class={s.done ? "done" : ""}>
            <span class="mark">{s.done && <span class="visually-hidden">{msg`Done`}</span>}</span>
            <div>
              <h3>{s.title}</h3>
              <p class="muted">{s.text}</p>
            </div>
            {!s.done && (
              <Link class={i === open ? "btn primary" : "btn"} to={s.to}>
                {s.action}
              </Link>
            )}
          </li>
        ))}
      </ol>
    </Card>
  );
}
