import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { ISCSISession, Target, TargetGroup } from "../api/gen";
import { plural } from "../format";
import { query } from "../router";
import { reload } from "../store/query";
import { useSessions, useTarget } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { Card } from "../parts/Page";
import { Tag } from "../parts/StateTag";
import { SessionDetails } from "./SessionDialog";
import { msg, noun, rich } from "../text";

/** Who may sign in to a target: its list of initiators, and whether it is open. */
export function TargetAccess({ iqn, vdisk }: { iqn: string; vdisk: string }) {
  const target = useTarget(iqn);
  return (
    <Card title={msg`Who may connect`}>
      <Load query={target} lines={3}>
        {(t) =>
          t.shared ? (
            <p class="muted">{rich`${plural(t.acl.length, noun`initiator`)}, as the groups of the shared target say.`}</p>
          ) : (
            <div class="stack">
              <Openness group={defaultGroup(t)} vdisk={vdisk} />
              {(defaultGroup(t)?.initiators ?? []).map((name) => (
                <Initiator key={name} iqn={iqn} name={name} open={t.open} />
              ))}
              <AddInitiator iqn={iqn} />
            </div>
          )
        }
      </Load>
    </Card>
  );
}

/** The group that publishing a vDisk is about; others are in the card of the groups. */
function defaultGroup(t: Target): TargetGroup | undefined {
  return t.groups.find((g) => g.name === "default");
}

function Openness({ group, vdisk }: { group: TargetGroup | undefined; vdisk: string }) {
  const open = group?.any ?? false;
  const named = (group?.initiators.length ?? 0) > 0;
  const submit = useSubmit();
  const change = async () => {
    await call("POST /vdisks/{vdisk}/publish", { path: { vdisk }, body: { open: !open } });
    reload("targets?", "target:");
  };
  return (
    <>
      <Notice tone={open || named ? "info" : "warn"}>
        <span>
          {open
            ? msg`Any initiator that knows the CHAP secret.`
            : named
              ? msg`Only the initiators below, with the CHAP secret.`
              : msg`Nobody: add an initiator, or open the target to all that know the secret.`}
        </span>
        <span class="row">
          <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(change)}>
            {open ? msg`Restrict to the list` : msg`Open to any with the secret`}
          </Button>
        </span>
      </Notice>
      <FormError submit={submit} fields={[]} />
    </>
  );
}

function Initiator({ iqn, name, open }: { iqn: string; name: string; open: boolean }) {
  const [ask, setAsk] = useState(false);
  return (
    <div class="row">
      <code>{name}</code>
      <span class="spacer" />
      <Button small needs="write" label={msg`Remove ${name}`} onClick={() => setAsk(true)}>
        {msg`Remove`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Remove an initiator`}
          verb={msg`Remove`}
          danger
          consequences={[
            <code key="name">{name}</code>,
            open ? msg`The target is open: it can go on to sign in.` : msg`Its sessions are dropped and it cannot sign in.`,
          ]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /targets/{iqn}/acl/{initiator}", { path: { iqn, initiator: name } });
            reload("targets?", "target:", "sessions?", "vdisks?", "vdisk:");
          }}
        />
      )}
    </div>
  );
}

function AddInitiator({ iqn }: { iqn: string }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [missing, setMissing] = useState(false);
  const add = async () => {
    await call("PUT /targets/{iqn}/acl/{initiator}", { path: { iqn, initiator: name.trim() } });
    toast("ok", msg`${name.trim()} may sign in`);
    setName("");
    reload("targets?", "target:");
  };
  return (
    <form
      class="stack"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        setMissing(!name.trim());
        if (name.trim()) {
          void submit.run(add);
        }
      }}
    >
      <TextField
        label={msg`Add an initiator`}
        name="initiator"
        value={name}
        onValue={setName}
        hint={msg`Its iSCSI name; on Linux in /etc/iscsi/initiatorname.iscsi.`}
        error={missing ? msg`Enter an iSCSI name` : submit.at("initiator")}
        input={{ placeholder: "iqn.1993-08.org.debian:01:…" }}
      />
      <FormError submit={submit} fields={["initiator"]} />
      <div class="row">
        <Button type="submit" needs="write" busy={submit.busy}>
          {msg`Add`}
        </Button>
      </div>
    </form>
  );
}

const sessionColumns: Column<ISCSISession>[] = [
  { key: "initiator", title: msg`Initiator`, wrap: true, cell: (s) => <span class="mono">{s.initiator}</span> },
  { key: "address", title: msg`From`, cell: (s) => s.address },
  { key: "state", title: msg`State`, cell: (s) => <SessionState session={s} /> },
  { key: "since", title: msg`Since`, right: true, cell: (s) => <Age at={s.since} /> },
  { key: "drop", title: msg`Action`, right: true, cell: (s) => <SessionActions session={s} /> },
];

/** Sessions of one target. */
export function TargetSessions({ iqn }: { iqn: string }) {
  const sessions = useSessions(iqn, query.value.get("sessions") ?? undefined);
  return (
    <Card title={msg`Sessions`}>
      <Load query={sessions} lines={2}>
        {(list) =>
          list.items.length === 0 ? (
            <p class="muted">{msg`No host is connected.`}</p>
          ) : (
            <DataTable
              label={msg`Sessions`}
              columns={sessionColumns}
              rows={list.items}
              rowKey={(s) => s.id}
              next={list.next}
              cursor="sessions"
            />
          )
        }
      </Load>
    </Card>
  );
}

/** Whether the initiator of a session answers and sees LUNs. */
export function SessionState({ session }: { session: ISCSISession }) {
  switch (session.state) {
    case "silent":
      return <Tag tone="warn" word={msg`Silent`} title={msg`Its initiator does not answer, and is dropped within seconds`} />;
    case "no_luns":
      return <Tag tone="warn" word={msg`No LUN`} title={msg`No LUN of the target is shown to it`} />;
    case "forwarded":
      return <Tag tone="ok" word={msg`By another node`} title={msg`It is signed in there, and its commands come here`} />;
    default:
      return <Tag tone="ok" word={msg`OK`} />;
  }
}

/** What can be done with a session. */
export function SessionActions({ session }: { session: ISCSISession }) {
  return (
    <span class="row">
      <SessionDetails session={session} />
      <DropSession session={session} />
    </span>
  );
}

/** A button that ends one session, after a question. */
function DropSession({ session }: { session: ISCSISession }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button small needs="write" label={msg`Drop session of ${session.initiator}`} onClick={() => setAsk(true)}>
        {msg`Drop`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Drop a session`}
          verb={msg`Drop session`}
          danger
          consequences={[
            msg`${session.initiator} from ${session.address} is disconnected at once.`,
            msg`It may sign in again; take it off the target's list to keep it out.`,
          ]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /iscsi/sessions/{session}", { path: { session: session.id } });
            toast("ok", msg`Session dropped`);
            reload("sessions?", "targets?", "target:", "vdisks?", "vdisk:", "status");
          }}
        />
      )}
    </>
  );
}
