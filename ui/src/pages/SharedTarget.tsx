import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Target } from "../api/gen";
import { plural } from "../format";
import { navigate } from "../router";
import { ending, reload } from "../store/query";
import { targetKey } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { msg, noun } from "../text";

/** Creates a target that several vDisks share. */
export function NewTargetDialog({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const save = async (key: string) => {
    const target = await call("POST /targets", { key, body: { name: name.trim() } });
    toast("ok", msg`Target ${target.name} is there; give it a group next`);
    reload("targets?", "status");
    navigate(`/iscsi/${encodeURIComponent(target.iqn)}`);
  };
  return (
    <FormDialog
      title={msg`New shared target`}
      verb={msg`Create`}
      submit={submit}
      fields={["name", "iqn"]}
      save={save}
      onClose={onClose}
    >
      <TextField
        label={msg`Name`}
        name="name"
        value={name}
        onValue={setName}
        hint={msg`Several vDisks become LUNs of it, as clusters of hypervisors like them. It admits nobody until it has a group.`}
        error={submit.at("name") ?? submit.at("iqn")}
        input={{ autofocus: true }}
      />
    </FormDialog>
  );
}

/** Deletes a shared target; with LUNs it says what keeps it. */
export function DeleteTarget({ target: t }: { target: Target }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button
        kind="danger"
        needs="write"
        reason={t.luns.length > 0 ? msg`Unpublish its vDisks first` : undefined}
        onClick={() => setAsk(true)}
      >
        {msg`Delete`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Delete target ${t.name}`}
          verb={t.sessions > 0 ? msg`Drop ${plural(t.sessions, noun`session`)} and delete` : msg`Delete`}
          danger
          typeName={t.name}
          consequences={[
            t.sessions > 0 ? msg`${plural(t.sessions, noun`session`)} will be dropped.` : msg`No host is connected.`,
            msg`The target and its groups are removed.`,
          ]}
          onClose={() => setAsk(false)}
          act={() =>
            ending(targetKey(t.iqn), async () => {
              await call("DELETE /targets/{iqn}", { path: { iqn: t.iqn }, query: { force: t.sessions > 0 } });
              toast("ok", msg`Target ${t.name} deleted`);
              reload("targets?", "sessions?", "status");
              navigate("/iscsi");
            })
          }
        />
      )}
    </>
  );
}
