import { useState } from "preact/hooks";
import { ended, signIn } from "../store/session";
import { useSubmit } from "../store/submit";
import { Button } from "../parts/Button";
import { TextField } from "../parts/Field";
import { Gate } from "../parts/Gate";
import { FormError, Notice } from "../parts/Notice";

/** Sign-in. The address stays, so that the page asked for comes after it. */
export function LoginPage() {
  const submit = useSubmit();
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  return (
    <Gate title="Sign in">
      {ended.value && !submit.error && <Notice tone="info">Your session has ended. Sign in again to go on.</Notice>}
      <form
        class="stack-wide"
        aria-label="Sign in"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(() => signIn(user.trim(), password));
        }}
      >
        <TextField
          label="User"
          name="user"
          value={user}
          onValue={setUser}
          error={submit.at("user")}
          input={{ autocomplete: "username", autofocus: true }}
        />
        <TextField
          label="Password"
          name="password"
          value={password}
          onValue={setPassword}
          error={submit.at("password")}
          input={{ type: "password", autocomplete: "current-password" }}
        />
        <FormError submit={submit} fields={["user", "password"]} />
        <Button type="submit" kind="primary" busy={submit.busy}>
          Sign in
        </Button>
      </form>
    </Gate>
  );
}
