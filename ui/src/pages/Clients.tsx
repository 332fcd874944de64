import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { NewOAuthClient, OAuthClient, OAuthGrantType, Role } from "../api/gen";
import { query } from "../router";
import { reload } from "../store/query";
import { useClients } from "../store/reads";
import { denied } from "../store/session";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age, Until } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { ExpiryField, expiresIn } from "../parts/ExpiryField";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Empty } from "../parts/Page";
import { ScopeField, limitOf } from "../parts/ScopeField";
import { rightsText } from "../parts/roles";
import { msg } from "../text";

/** OAuth2 clients: programs that get tokens for an hour. */
export function ClientsTab() {
  const filter = { cursor: query.value.get("cursor") ?? undefined };
  const clients = useClients(filter);
  const [create, setCreate] = useState(false);
  const add = (
    <Button kind="primary" onClick={() => setCreate(true)}>
      {msg`Create client`}
    </Button>
  );
  return (
    <div class="stack">
      <Load query={clients}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <>
              <div class="toolbar">{add}</div>
              <DataTable label={msg`OAuth2 clients`} columns={columns} rows={list.items} rowKey={(c) => c.id} next={list.next} />
            </>
          ) : (
            <Empty
              title={msg`No OAuth2 clients yet`}
              text={msg`A client gets tokens of an hour with its id and secret, for programs that speak OAuth2.`}
              command="ovgate client create ci --role write --scope vpool:NAME"
            >
              {add}
            </Empty>
          )
        }
      </Load>
      {create && <CreateClient onClose={() => setCreate(false)} />}
    </div>
  );
}

const columns: Column<OAuthClient>[] = [
  { key: "name", title: msg`Name`, cell: (c) => c.name },
  { key: "id", title: msg`Client id`, cell: (c) => <span class="mono">{c.id}</span> },
  { key: "user", title: msg`User`, cell: (c) => c.user },
  { key: "types", title: msg`Grants`, wrap: true, cell: (c) => c.grantTypes.join(", ") },
  { key: "may", title: msg`May`, wrap: true, cell: (c) => rightsText(c.role, c.grants) },
  { key: "used", title: msg`Last used`, right: true, cell: (c) => (c.usedAt ? <Age at={c.usedAt} /> : "never") },
  { key: "expires", title: msg`Expires`, cell: (c) => <Until at={c.expires} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (c) => <ClientActions client={c} /> },
];

function Made({ made, onClose }: { made: NewOAuthClient; onClose: () => void }) {
  return (
    <Dialog title={msg`Secret of client ${made.client.name}`} onClose={onClose}>
      <Notice tone="warn">{msg`Copy the secret now: it is not shown again.`}</Notice>
      <CopyBlock label={msg`Client id`} name="client id" text={made.client.id} />
      <CopyBlock label={msg`Client secret`} name="client secret" text={made.secret} />
      <DoneFoot onClose={onClose} />
    </Dialog>
  );
}

function ClientActions({ client }: { client: OAuthClient }) {
  const [open, setOpen] = useState<"secret" | "delete" | undefined>(undefined);
  const [made, setMade] = useState<NewOAuthClient | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small label={msg`New secret of ${client.name}`} onClick={() => setOpen("secret")}>
        {msg`New secret`}
      </Button>{" "}
      <Button small kind="danger" label={msg`Delete client ${client.name}`} onClick={() => setOpen("delete")}>
        {msg`Delete`}
      </Button>
      {open === "secret" && (
        <Confirm
          title={msg`New secret of ${client.name}`}
          verb={msg`Make a new secret`}
          danger
          consequences={[msg`The old secret, and every token that the client has, stop working at once.`]}
          onClose={close}
          act={async () => {
            setMade(await call("POST /clients/{client}/secret", { path: { client: client.id } }));
          }}
        />
      )}
      {open === "delete" && (
        <Confirm
          title={msg`Delete client ${client.name}`}
          verb={msg`Delete client`}
          danger
          consequences={[msg`Every token that it has stops working at once.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /clients/{client}", { path: { client: client.id } });
            toast("ok", msg`Client ${client.name} is deleted`);
            reload("clients");
          }}
        />
      )}
      {made && <Made made={made} onClose={() => setMade(undefined)} />}
    </>
  );
}

const grantTypes = [
  { value: "client_credentials", text: msg`client_credentials: for itself, as its user` },
  { value: "password", text: msg`password: for people who give it their password` },
  { value: "client_credentials,password", text: msg`both` },
];

function CreateClient({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [types, setTypes] = useState("client_credentials");
  const [role, setRole] = useState<Role>("read");
  const [scope, setScope] = useState("");
  const [days, setDays] = useState("365");
  const [user, setUser] = useState("");
  const [made, setMade] = useState<NewOAuthClient | undefined>(undefined);
  if (made) {
    return <Made made={made} onClose={onClose} />;
  }
  return (
    <FormDialog
      title={msg`Create client`}
      verb={msg`Create`}
      needs="read"
      submit={submit}
      fields={["name", "user", "grantTypes", "role", "grants", "expires"]}
      save={async (key) => {
        const grantTypes = types.split(",") as OAuthGrantType[];
        const body = { name: name.trim(), user: user.trim() || undefined, grantTypes, ...limitOf(role, scope), ...expiresIn(days) };
        setMade(await call("POST /clients", { key, body }));
        reload("clients");
      }}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} hint={msg`What will use it, such as ci.`} error={submit.at("name")} input={{ autofocus: true }} />
      <SelectField label={msg`Grants`} name="grantTypes" value={types} onValue={setTypes} options={grantTypes} error={submit.at("grantTypes")} />
      <ScopeField role={role} onRole={setRole} scope={scope} onScope={setScope} submit={submit} />
      <ExpiryField days={days} onDays={setDays} submit={submit} />
      {!denied("manage") && (
        <TextField label={msg`User`} name="user" value={user} onValue={setUser} hint={msg`It acts as this one, and may no more. Empty: as you.`} error={submit.at("user")} />
      )}
    </FormDialog>
  );
}
