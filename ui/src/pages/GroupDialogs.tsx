import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { GroupResult, TargetGroup } from "../api/gen";
import { plural } from "../format";
import { reload } from "../store/query";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { initiatorNames } from "../parts/AccessField";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { CheckField, Field, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { CopyBlock } from "../parts/CopyBlock";
import { Notice } from "../parts/Notice";
import { Facts } from "../parts/Page";
import { msg, noun } from "../text";

type Props = { iqn: string; onClose: () => void };
type GroupProps = Props & { group: TargetGroup };

/** What a change of a group may have changed on the pages. */
function changed(): void {
  reload("targets?", "target:", "sessions?", "vdisks?", "vdisk:");
}

/** The form of a group: who is in it and what members may do. */
type Form = { names: string; any: boolean; readOnly: boolean };

function Members({ form, onForm, error }: { form: Form; onForm: (form: Form) => void; error?: string | undefined }) {
  return (
    <>
      <Field
        label={msg`Initiator names`}
        hint={msg`One a line; on Linux in /etc/iscsi/initiatorname.iscsi. A name is in one group of a target.`}
        error={error}
      >
        {(control) => (
          <textarea
            {...control}
            name="initiators"
            rows={3}
            spellcheck={false}
            value={form.names}
            onInput={(event) => onForm({ ...form, names: event.currentTarget.value })}
          />
        )}
      </Field>
      <CheckField name="any" checked={form.any} onValue={(any) => onForm({ ...form, any })}>
        {msg`Any other initiator that knows the CHAP secret`}
      </CheckField>
      <CheckField name="readOnly" checked={form.readOnly} onValue={(readOnly) => onForm({ ...form, readOnly })}>
        {msg`Read-only: members do not write`}
      </CheckField>
    </>
  );
}

/** Lets a group of initiators sign in to a target, and shows the secret that was drawn. */
export function NewGroupDialog({ iqn, onClose }: Props) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [form, setForm] = useState<Form>({ names: "", any: false, readOnly: false });
  const [mutual, setMutual] = useState(false);
  const [made, setMade] = useState<GroupResult | undefined>(undefined);
  const save = async (key: string) => {
    const { any, readOnly } = form;
    const body = { name: name.trim(), initiators: initiatorNames(form.names), any, readOnly, mutual };
    setMade(await call("POST /targets/{iqn}/groups", { path: { iqn }, key, body }));
    changed();
  };
  if (made) {
    return <Secrets title={msg`Group ${made.group.name} is there`} result={made} onClose={onClose} />;
  }
  return (
    <FormDialog
      title={msg`New group`}
      verb={msg`Create`}
      submit={submit}
      fields={["name", "initiators", "any"]}
      save={save}
      onClose={onClose}
    >
      <TextField
        label={msg`Name`}
        name="name"
        value={name}
        onValue={setName}
        hint={msg`a-z, 0-9, dot, dash and underscore.`}
        error={submit.at("name")}
        input={{ autofocus: true }}
      />
      <Members form={form} onForm={setForm} error={submit.at("initiators") ?? submit.at("any")} />
      <CheckField name="mutual" checked={mutual} onValue={setMutual}>
        {msg`Mutual CHAP: the target proves itself too`}
      </CheckField>
    </FormDialog>
  );
}

/** What a call drew; it is not shown again. */
function Secrets({ title, result, onClose }: { title: string; result: GroupResult; onClose: () => void }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <div class="stack-wide">
        <Notice tone="warn">{msg`Copy the secrets now: they are not shown again.`}</Notice>
        <Facts
          rows={[
            [msg`CHAP user`, <code key="user">{result.group.chapUser || msg`none`}</code>],
            [msg`The target's CHAP user`, <code key="mutual">{result.group.mutualUser || msg`none`}</code>],
          ]}
        />
        {result.chapSecret && <CopyBlock label={msg`CHAP secret`} name="chapSecret" text={result.chapSecret} />}
        {result.mutualSecret && (
          <CopyBlock label={msg`The target's CHAP secret`} name="mutualSecret" text={result.mutualSecret} />
        )}
        {result.notes.map((note) => (
          <p key={note} class="muted small">
            {note}
          </p>
        ))}
        <DoneFoot onClose={onClose} />
      </div>
    </Dialog>
  );
}

/** Changes who is in a group and what members may do. */
export function MembersDialog({ iqn, group: g, onClose }: GroupProps) {
  const submit = useSubmit();
  const [form, setForm] = useState<Form>({ names: g.initiators.join("\n"), any: g.any, readOnly: g.readOnly });
  const save = async () => {
    const { any, readOnly } = form;
    const body = { initiators: initiatorNames(form.names), any, readOnly };
    await call("PATCH /targets/{iqn}/groups/{group}", { path: { iqn, group: g.name }, body });
    toast("ok", msg`Group ${g.name} changed`);
    changed();
    onClose();
  };
  return (
    <FormDialog
      title={msg`Members of group ${g.name}`}
      verb={msg`Save`}
      submit={submit}
      fields={["initiators", "any"]}
      save={save}
      onClose={onClose}
    >
      <Members form={form} onForm={setForm} error={submit.at("initiators") ?? submit.at("any")} />
      <p class="muted small">{msg`Sessions of initiators that are not admitted any more are dropped; the others stay.`}</p>
    </FormDialog>
  );
}

/** Draws new secrets for a group. */
export function RotateDialog({ iqn, group: g, onClose }: GroupProps) {
  const [made, setMade] = useState<GroupResult | undefined>(undefined);
  // The question closes itself when it was carried out; what was drawn comes in its place.
  const drawn = useRef(false);
  const act = async () => {
    const body = { rotateSecret: true, chap: true };
    setMade(await call("PATCH /targets/{iqn}/groups/{group}", { path: { iqn, group: g.name }, body }));
    drawn.current = true;
    changed();
  };
  if (made) {
    return <Secrets title={msg`New secrets of group ${g.name}`} result={made} onClose={onClose} />;
  }
  return (
    <Confirm
      title={msg`New secrets for group ${g.name}`}
      verb={msg`Draw new secrets`}
      consequences={[
        msg`Sessions stay; from the next sign-in on members need the new secrets.`,
        msg`They are shown once.`,
      ]}
      onClose={() => drawn.current || onClose()}
      act={act}
    />
  );
}

/** Deletes a group, with the sessions of its members. */
export function DeleteGroupDialog({ iqn, group: g, onClose }: GroupProps) {
  return (
    <Confirm
      title={msg`Delete group ${g.name}`}
      verb={g.sessions > 0 ? msg`Drop ${plural(g.sessions, noun`session`)} and delete` : msg`Delete`}
      danger
      typeName={g.sessions > 0 ? g.name : undefined}
      consequences={[
        g.sessions > 0
          ? msg`${plural(g.sessions, noun`session`)} of its members will be dropped.`
          : msg`No member is signed in.`,
        msg`Its members cannot sign in any more, and its secrets are gone.`,
      ]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /targets/{iqn}/groups/{group}", {
          path: { iqn, group: g.name },
          query: { force: g.sessions > 0 },
        });
        toast("ok", msg`Group ${g.name} deleted`);
        changed();
      }}
    />
  );
}
