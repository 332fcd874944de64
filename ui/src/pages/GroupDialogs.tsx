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
        label="Initiator names"
        hint="One a line; on Linux in /etc/iscsi/initiatorname.iscsi. A name is in one group of a target."
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
        Any other initiator that knows the CHAP secret
      </CheckField>
      <CheckField name="readOnly" checked={form.readOnly} onValue={(readOnly) => onForm({ ...form, readOnly })}>
        Read-only: members do not write
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
    return <Secrets title={`Group ${made.group.name} is there`} result={made} onClose={onClose} />;
  }
  return (
    <FormDialog
      title="New group"
      verb="Create"
      submit={submit}
      fields={["name", "initiators", "any"]}
      save={save}
      onClose={onClose}
    >
      <TextField
        label="Name"
        name="name"
        value={name}
        onValue={setName}
        hint="a-z, 0-9, dot, dash and underscore."
        error={submit.at("name")}
        input={{ autofocus: true }}
      />
      <Members form={form} onForm={setForm} error={submit.at("initiators") ?? submit.at("any")} />
      <CheckField name="mutual" checked={mutual} onValue={setMutual}>
        Mutual CHAP: the target proves itself too
      </CheckField>
    </FormDialog>
  );
}

/** What a call drew; it is not shown again. */
function Secrets({ title, result, onClose }: { title: string; result: GroupResult; onClose: () => void }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <div class="stack-wide">
        <Notice tone="warn">Copy the secrets now: they are not shown again.</Notice>
        <Facts
          rows={[
            ["CHAP user", <code key="user">{result.group.chapUser || "none"}</code>],
            ["The target's CHAP user", <code key="mutual">{result.group.mutualUser || "none"}</code>],
          ]}
        />
        {result.chapSecret && <CopyBlock label="CHAP secret" name="chapSecret" text={result.chapSecret} />}
        {result.mutualSecret && (
          <CopyBlock label="The target's CHAP secret" name="mutualSecret" text={result.mutualSecret} />
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
    toast("ok", `Group ${g.name} changed`);
    changed();
    onClose();
  };
  return (
    <FormDialog
      title={`Members of group ${g.name}`}
      verb="Save"
      submit={submit}
      fields={["initiators", "any"]}
      save={save}
      onClose={onClose}
    >
      <Members form={form} onForm={setForm} error={submit.at("initiators") ?? submit.at("any")} />
      <p class="muted small">Sessions of initiators that are not admitted any more are dropped; the others stay.</p>
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
    return <Secrets title={`New secrets of group ${g.name}`} result={made} onClose={onClose} />;
  }
  return (
    <Confirm
      title={`New secrets for group ${g.name}`}
      verb="Draw new secrets"
      consequences={[
        "Sessions stay; from the next sign-in on members need the new secrets.",
        "They are shown once.",
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
      title={`Delete group ${g.name}`}
      verb={g.sessions > 0 ? `Drop ${plural(g.sessions, "session")} and delete` : "Delete"}
      danger
      typeName={g.sessions > 0 ? g.name : undefined}
      consequences={[
        g.sessions > 0
          ? `${plural(g.sessions, "session")} of its members will be dropped.`
          : "No member is signed in.",
        "Its members cannot sign in any more, and its secrets are gone.",
      ]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /targets/{iqn}/groups/{group}", {
          path: { iqn, group: g.name },
          query: { force: g.sessions > 0 },
        });
        toast("ok", `Group ${g.name} deleted`);
        changed();
      }}
    />
  );
}
