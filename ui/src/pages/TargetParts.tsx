import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { ISCSISession, Target } from "../api/gen";
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

/** Who may sign in to a target: its list of initiators, and whether it is open. */
export function TargetAccess({ iqn, vdisk }: { iqn: string; vdisk: string }) {
  const target = useTarget(iqn);
  return (
    <Card title="Who may connect">
      <Load query={target} lines={3}>
        {(t) =>
          t.shared ? (
            <p class="muted">{plural(t.acl.length, "initiator")}, as the groups of the shared target say.</p>
          ) : (
            <div class="stack">
              <Openness target={t} vdisk={vdisk} />
              {t.acl.map((name) => (
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

function Openness({ target, vdisk }: { target: Target; vdisk: string }) {
  const submit = useSubmit();
  const change = async () => {
    await call("POST /vdisks/{vdisk}/publish", { path: { vdisk }, body: { open: !target.open } });
    reload("targets?", "target:");
  };
  return (
    <>
      <Notice tone={target.open || target.acl.length > 0 ? "info" : "warn"}>
        <span>
          {target.open
            ? "Any initiator that knows the CHAP secret."
            : target.acl.length > 0
              ? "Only the initiators below, with the CHAP secret."
              : "Nobody: add an initiator, or open the target to all that know the secret."}
        </span>
        <span class="row">
          <Button small needs="write" busy={submit.busy} onClick={() => void submit.run(change)}>
            {target.open ? "Restrict to the list" : "Open to any with the secret"}
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
      <Button small needs="write" label={`Remove ${name}`} onClick={() => setAsk(true)}>
        Remove
      </Button>
      {ask && (
        <Confirm
          title="Remove an initiator"
          verb="Remove"
          danger
          consequences={[
            <code key="name">{name}</code>,
            open ? "The target is open: it can go on to sign in." : "Its sessions are dropped and it cannot sign in.",
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
    toast("ok", `${name.trim()} may sign in`);
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
        label="Add an initiator"
        name="initiator"
        value={name}
        onValue={setName}
        hint="Its iSCSI name; on Linux in /etc/iscsi/initiatorname.iscsi."
        error={missing ? "Enter an iSCSI name" : submit.at("initiator")}
        input={{ placeholder: "iqn.1993-08.org.debian:01:…" }}
      />
      <FormError submit={submit} fields={["initiator"]} />
      <div class="row">
        <Button type="submit" needs="write" busy={submit.busy}>
          Add
        </Button>
      </div>
    </form>
  );
}

const sessionColumns: Column<ISCSISession>[] = [
  { key: "initiator", title: "Initiator", wrap: true, cell: (s) => <span class="mono">{s.initiator}</span> },
  { key: "address", title: "From", cell: (s) => s.address },
  { key: "since", title: "Since", right: true, cell: (s) => <Age at={s.since} /> },
  { key: "drop", title: "Action", right: true, cell: (s) => <DropSession session={s} /> },
];

/** Sessions of one target. */
export function TargetSessions({ iqn }: { iqn: string }) {
  const sessions = useSessions(iqn, query.value.get("sessions") ?? undefined);
  return (
    <Card title="Sessions">
      <Load query={sessions} lines={2}>
        {(list) =>
          list.items.length === 0 ? (
            <p class="muted">No host is connected.</p>
          ) : (
            <DataTable
              label="Sessions"
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

/** A button that ends one session, after a question. */
export function DropSession({ session }: { session: ISCSISession }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button small needs="write" label={`Drop session of ${session.initiator}`} onClick={() => setAsk(true)}>
        Drop
      </Button>
      {ask && (
        <Confirm
          title="Drop a session"
          verb="Drop session"
          danger
          consequences={[
            `${session.initiator} from ${session.address} is disconnected at once.`,
            "It may sign in again; take it off the target's list to keep it out.",
          ]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /iscsi/sessions/{session}", { path: { session: session.id } });
            toast("ok", "Session dropped");
            reload("sessions?", "targets?", "target:", "vdisks?", "vdisk:", "status");
          }}
        />
      )}
    </>
  );
}
