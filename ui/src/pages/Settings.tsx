import { useState } from "preact/hooks";
import { badField, call } from "../api/client";
import type { Oidc, OidcInput, OidcRole, RemoteStep, Role } from "../api/gen";
import { reload, useQuery } from "../store/query";
import { denied } from "../store/session";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { Confirm } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { ErrorPanel, Notice } from "../parts/Notice";
import { Card, Facts, Page } from "../parts/Page";
import { Steps } from "../parts/RemoteTest";
import { TextArea } from "../parts/TextArea";
import { RestoredCards } from "./Restored";
import { msg } from "../text";

/** What is set for the whole cluster, and what a restore of its metadata left to do. */
export function SettingsPage() {
  const reason = denied("manage");
  return (
    <Page title={msg`Settings`}>
      {reason ? (
        <Notice tone="info">{reason}.</Notice>
      ) : (
        <div class="grid">
          <ProviderCard />
          <RestoredCards />
        </div>
      )}
    </Page>
  );
}

function ProviderCard() {
  const provider = useQuery<Oidc>("oidc", () => call("GET /oidc"));
  const submit = useSubmit();
  const [steps, setSteps] = useState<RemoteStep[] | undefined>(undefined);
  const [open, setOpen] = useState<"edit" | "remove" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <Card title={msg`Sign-in provider`} class="span-12">
      <Load query={provider}>
        {(o) => (
          <div class="stack">
            {o.configured ? <ProviderFacts provider={o} /> : <p>{msg`None: people sign in with passwords of this cluster.`}</p>}
            {steps && <Steps steps={steps} />}
            {submit.error && <ErrorPanel error={submit.error} />}
            <div class="row">
              <Button small kind={o.configured ? undefined : "primary"} needs="manage" onClick={() => setOpen("edit")}>
                {o.configured ? msg`Change provider` : msg`Set provider`}
              </Button>
              {o.configured && (
                <>
                  <Button
                    small
                    needs="manage"
                    busy={submit.busy}
                    onClick={() => void submit.run(async () => setSteps((await call("POST /oidc/test")).steps))}
                  >
                    {msg`Test now`}
                  </Button>
                  <Button small kind="danger" needs="manage" onClick={() => setOpen("remove")}>
                    {msg`Remove`}
                  </Button>
                </>
              )}
            </div>
            {open === "edit" && <ProviderDialog provider={o} onClose={close} onTried={setSteps} />}
            {open === "remove" && (
              <Confirm
                title={msg`Remove the sign-in provider`}
                verb={msg`Remove`}
                danger
                typeName={o.name}
                consequences={[msg`Its users stay, but cannot sign in.`, msg`Their sessions and tokens do not count until one of the same issuer is set.`]}
                onClose={close}
                act={async () => {
                  await call("DELETE /oidc");
                  toast("ok", msg`${o.name} is removed`);
                  setSteps(undefined);
                  reload("oidc", "users");
                }}
              />
            )}
          </div>
        )}
      </Load>
    </Card>
  );
}

function ProviderFacts({ provider: o }: { provider: Oidc }) {
  return (
    <>
      <Facts
        rows={[
          [msg`Name`, o.name],
          [msg`Issuer`, o.issuer],
          [msg`Client`, o.clientId + (o.hasSecret ? msg`, with a secret` : msg`, a public one`)],
          [msg`Scopes`, o.scopes.join(" ")],
          [msg`Claims`, msg`${o.nameClaim} names a new user, ${o.groupsClaim} has the groups`],
          [msg`Who may enter`, o.roles.map((r) => `${r.group} (${r.role})`).join(", ")],
        ]}
      />
      <p class="muted">{msg`Register at the provider:`}</p>
      <CopyBlock text={o.redirectUris.join("\n")} label={msg`Redirect URIs`} />
    </>
  );
}

const lines = (text: string) =>
  text
    .split("\n")
    .map((s) => s.trim())
    .filter(Boolean);

/** Lines of GROUP=ROLE; a group may have "=" in it. */
function rolesOf(text: string): OidcRole[] {
  return lines(text).map((line) => {
    const [, group, role] = /^(.+)=\s*(read|write|manage)$/.exec(line) ?? [];
    if (!group || !role) {
      throw badField("roles", msg`"${line}" is not GROUP=read, GROUP=write or GROUP=manage`);
    }
    return { group: group.trim(), role: role as Role };
  });
}

function ProviderDialog(props: { provider: Oidc; onClose: () => void; onTried: (steps: RemoteStep[]) => void }) {
  const { provider: o, onClose } = props;
  const submit = useSubmit();
  const [text, setText] = useState({
    name: o.configured ? o.name : "",
    issuer: o.issuer,
    clientId: o.clientId,
    secret: "",
    addresses: (o.configured ? o.addresses : [location.origin]).join("\n"),
    roles: o.roles.map((r) => `${r.group}=${r.role}`).join("\n"),
    scopes: o.scopes.join(" "),
    nameClaim: o.nameClaim,
    groupsClaim: o.groupsClaim,
    ca: o.ca,
  });
  const field = (name: keyof typeof text, label: string, hint?: string) => ({
    label,
    name,
    hint,
    value: text[name],
    onValue: (value: string) => setText({ ...text, [name]: value }),
    error: submit.at(name),
  });
  const save = async () => {
    const body: OidcInput = {
      issuer: text.issuer.trim(),
      clientId: text.clientId.trim(),
      addresses: lines(text.addresses),
      roles: rolesOf(text.roles),
      scopes: text.scopes.split(/\s+/).filter(Boolean),
      nameClaim: text.nameClaim.trim(),
      groupsClaim: text.groupsClaim.trim(),
      ca: text.ca.trim(),
    };
    if (text.name.trim()) {
      body.name = text.name.trim();
    }
    if (text.secret) {
      body.secret = text.secret;
    }
    const result = await call("PUT /oidc", { body });
    props.onTried(result.steps);
    toast("ok", msg`${result.provider.name} is set`);
    reload("oidc");
    onClose();
  };
  return (
    <FormDialog title={o.configured ? msg`Change provider` : msg`Set provider`} verb={msg`Save`} submit={submit} fields={Object.keys(text)} save={save} needs="manage" onClose={onClose}>
      <TextField {...field("name", msg`Name`, msg`On the button of the sign-in page`)} />
      <TextField {...field("issuer", msg`Issuer`, msg`Its https address, exactly as it calls itself`)} />
      <TextField {...field("clientId", msg`Client id`)} />
      <TextField
        {...field("secret", msg`Client secret`, o.hasSecret ? msg`One is known; left empty it stays` : msg`Left empty: a public client`)}
        input={{ type: "password", autocomplete: "new-password" }}
      />
      <TextArea {...field("roles", msg`Who may enter`, msg`GROUP=read, GROUP=write or GROUP=manage, one a line; nobody else gets in`)} />
      <TextArea {...field("addresses", msg`Addresses of the console`, msg`One a line, as browsers show them`)} rows={2} />
      <TextField {...field("scopes", msg`Scopes`)} />
      <TextField {...field("nameClaim", msg`Claim that names a new user`)} />
      <TextField {...field("groupsClaim", msg`Claim with the groups`)} />
      <TextArea {...field("ca", msg`Certificates to trust`, msg`PEM; left empty: those of the system`)} />
    </FormDialog>
  );
}
