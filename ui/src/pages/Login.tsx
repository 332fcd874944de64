import { useEffect, useState } from "preact/hooks";
import { ended, leaveForProvider, provider, readProvider, signIn, signInWith, takeAnswer } from "../store/session";
import { useSubmit } from "../store/submit";
import { Button } from "../parts/Button";
import { TextField } from "../parts/Field";
import { Gate } from "../parts/Gate";
import { ErrorPanel, FormError, Notice } from "../parts/Notice";
import { msg, rich } from "../text";

/** Sign-in. The address stays, so that the page asked for comes after it. */
export function LoginPage() {
  const submit = useSubmit();
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const elsewhere = useSubmit();
  const [answer] = useState(takeAnswer);
  useEffect(() => {
    void readProvider();
    if (answer) {
      void elsewhere.run(() => signInWith(answer));
    }
  }, []);
  return (
    <Gate title={msg`Sign in`}>
      {elsewhere.error && <ErrorPanel error={elsewhere.error} />}
      {provider.value && (
        <Button busy={elsewhere.busy} onClick={() => void elsewhere.run(leaveForProvider)}>
          {rich`Sign in with ${provider.value}`}
        </Button>
      )}
      {ended.value && !submit.error && <Notice tone="info">{msg`Your session has ended. Sign in again to go on.`}</Notice>}
      <form
        class="stack-wide"
        aria-label={msg`Sign in`}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(() => signIn(user.trim(), password));
        }}
      >
        <TextField
          label={msg`User`}
          name="user"
          value={user}
          onValue={setUser}
          error={submit.at("user")}
          input={{ autocomplete: "username", autofocus: true }}
        />
        <TextField
          label={msg`Password`}
          name="password"
          value={password}
          onValue={setPassword}
          error={submit.at("password")}
          input={{ type: "password", autocomplete: "current-password" }}
        />
        <FormError submit={submit} fields={["user", "password"]} />
        <Button type="submit" kind="primary" busy={submit.busy}>
          {msg`Sign in`}
        </Button>
      </form>
    </Gate>
  );
}
