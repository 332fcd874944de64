import { useState } from "preact/hooks";
import { completeSetup } from "../store/session";
import { navigate, query } from "../router";
import { useSubmit } from "../store/submit";
import { Button } from "../parts/Button";
import { TextField } from "../parts/Field";
import { Gate } from "../parts/Gate";
import { FormError } from "../parts/Notice";
import { NewPasswordField } from "../parts/PasswordField";
import { msg } from "../text";

/** First run: the one-time token makes the first administrator, who is then signed in and goes on with pages/FirstRun.tsx. */
export function SetupPage() {
  const submit = useSubmit();
  const [token, setToken] = useState(query.value.get("token") ?? "");
  const [user, setUser] = useState("admin");
  const [password, setPassword] = useState("");
  const [repeat, setRepeat] = useState("");
  const [mismatch, setMismatch] = useState(false);
  return (
    <Gate title={msg`Set up this node`}>
      <form
        class="stack-wide"
        aria-label={msg`Set up`}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          setMismatch(repeat !== password);
          if (repeat === password) {
            void submit.run(async () => {
              await completeSetup(token.trim(), user.trim(), password);
              navigate("/setup", { replace: true });
            });
          }
        }}
      >
        <p class="muted">{msg`Create the first administrator. There is no default password.`}</p>
        <TextField
          label={msg`Set-up token`}
          name="token"
          value={token}
          onValue={setToken}
          hint={msg`The node printed it at its first start; it works once.`}
          error={submit.error?.code === "bad_setup_token" ? submit.error.message : submit.at("token")}
        />
        <TextField
          label={msg`User`}
          name="user"
          value={user}
          onValue={setUser}
          error={submit.at("user")}
          input={{ autocomplete: "username" }}
        />
        <NewPasswordField
          label={msg`Password`}
          name="password"
          value={password}
          onValue={setPassword}
          error={submit.at("password")}
        />
        <TextField
          label={msg`Password again`}
          name="repeat"
          value={repeat}
          onValue={setRepeat}
          error={mismatch ? msg`The two passwords differ` : undefined}
          input={{ type: "password", autocomplete: "new-password" }}
        />
        {submit.error?.code !== "bad_setup_token" && (
          <FormError submit={submit} fields={["token", "user", "password"]} />
        )}
        <Button type="submit" kind="primary" busy={submit.busy}>
          {msg`Create administrator`}
        </Button>
      </form>
    </Gate>
  );
}
