import type { ComponentChildren } from "preact";
import type { Role } from "../api/gen";
import type { Submit } from "../store/submit";
import { Button } from "./Button";
import { Dialog } from "./Dialog";
import { FormError } from "./Notice";
import { msg } from "../text";

type Props = {
  title: string;
  verb: string;
  submit: Submit;
  /** Fields of the request whose messages the form shows itself. */
  fields: string[];
  save: (key: string) => Promise<void>;
  onClose: () => void;
  /** The role that the change needs; without it write. */
  needs?: Role;
  /** Why it cannot be sent now. */
  reason?: string | undefined;
  children: ComponentChildren;
};

/** A dialog with one form that changes something. */
export function FormDialog({ verb, needs = "write", reason, ...form }: Props) {
  return (
    <DialogForm
      {...form}
      foot={
        <>
          <Button onClick={form.onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" needs={needs} reason={reason} busy={form.submit.busy}>
            {verb}
          </Button>
        </>
      }
    />
  );
}

type FormProps = Omit<Props, "verb" | "needs" | "reason"> & { foot: ComponentChildren };

/** A dialog with one form, and what its foot has. */
export function DialogForm({ title, submit, fields, save, onClose, foot, children }: FormProps) {
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        class="stack-wide"
        aria-label={title}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(save);
        }}
      >
        {children}
        <FormError submit={submit} fields={fields} />
        <div class="dialog-foot">{foot}</div>
      </form>
    </Dialog>
  );
}
