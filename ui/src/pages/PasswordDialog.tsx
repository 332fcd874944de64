import { useState } from "preact/hooks";
import { call } from "../api/client";
import { reload } from "../store/query";
import { changeOwnPassword } from "../store/session";
import { toast } from "../store/toasts";
import { useSubmit } from "../store/submit";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormError } from "../parts/Notice";
import { NewPasswordField } from "../parts/PasswordField";
import { msg, rich } from "../text";

type Props = { user: string; own: boolean; external?: boolean; onClose: () => void };

/** Sets a user's password; one's own needs the present one. It ends a provider's say in an external user. */
export function PasswordDialog({ user, own, external, onClose }: Props) {
  const submit = useSubmit();
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const save = async () => {
    if (own) {
      await changeOwnPassword(user, current, password);
    } else {
      await call("PATCH /users/{user}", { path: { user }, body: external ? { password, external: false } : { password } });
      reload("users");
    }
    toast("ok", own ? msg`Password changed` : msg`Password of ${user} changed`);
    onClose();
  };
  return (
    <Dialog title={own ? msg`Change password` : msg`Set password of ${user}`} onClose={onClose}>
      <form
        class="stack-wide"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(save);
        }}
      >
        {own && (
          <TextField
            label={msg`Present password`}
            name="current"
            value={current}
            onValue={setCurrent}
            error={submit.at("currentPassword")}
            input={{ type: "password", autocomplete: "current-password" }}
          />
        )}
        <NewPasswordField
          label={msg`New password`}
          name="password"
          value={password}
          onValue={setPassword}
          error={submit.at("password")}
        />
        {external && (
          <p>{rich`The sign-in provider has no say in this user any more, for good: ${user} signs in with this password alone.`}</p>
        )}
        <p class="muted small">{rich`${own ? msg`Your other browser sessions` : msg`Browser sessions of ${user}`} end and need the new password.`}</p>
        <FormError submit={submit} fields={["currentPassword", "password"]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" busy={submit.busy}>
            {msg`Set password`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
