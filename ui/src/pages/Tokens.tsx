import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { NewToken, Role, Token } from "../api/gen";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useTokens } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age, Until } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { ExpiryField, expiresIn } from "../parts/ExpiryField";
import { TextField } from "../parts/Field";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { Empty, Page } from "../parts/Page";
import { ScopeField, limitOf } from "../parts/ScopeField";
import { TableTools } from "../parts/TableTools";
import { Tabs } from "../parts/Tabs";
import { rightsText } from "../parts/roles";
import { ClientsTab } from "./Clients";

/** Bearer tokens for programs: one's own, or everybody's for who manages. */
export function TokensPage({ create = false }: { create?: boolean }) {
  return (
    <Page
      title="Tokens"
      actions={
        <Button kind="primary" onClick={() => navigate("/tokens/new")}>
          Create token
        </Button>
      }
    >
      <Tabs
        label="Tokens and clients"
        param="tab"
        tabs={[
          { id: "tokens", title: "Tokens", content: <TokenList /> },
          { id: "clients", title: "OAuth2 clients", content: <ClientsTab /> },
        ]}
      />
      {create && <CreateToken onClose={() => navigate("/tokens")} />}
    </Page>
  );
}

function TokenList() {
  const filter = { cursor: query.value.get("cursor") ?? undefined };
  const tokens = useTokens(filter);
  return (
    <Load query={tokens}>
      {(list) =>
        list.items.length > 0 || filter.cursor ? (
          <>
            <div class="toolbar">
              <TableTools table="tokens" noun="token" columns={columns} read={(cursor, limit) => call("GET /tokens", { query: { cursor, limit } })} />
            </div>
            <DataTable label="Tokens" table="tokens" columns={columns} rows={list.items} rowKey={(t) => t.id} next={list.next} />
          </>
        ) : (
          <Empty
            title="No tokens yet"
            text="A token lets a program use the API with a role of its own, without a password."
            command="OVGATE_URL=… OVGATE_TOKEN=… ovgate vdisk list"
          >
            <Button kind="primary" onClick={() => navigate("/tokens/new")}>
              Create token
            </Button>
          </Empty>
        )
      }
    </Load>
  );
}

const columns: Column<Token>[] = [
  { key: "name", csv: (t) => t.name, title: "Name", cell: (t) => t.name },
  { key: "user", csv: (t) => t.user, title: "User", cell: (t) => t.user },
  { key: "may", csv: (t) => rightsText(t.role, t.grants), title: "May", wrap: true, cell: (t) => rightsText(t.role, t.grants) },
  { key: "created", csv: (t) => t.created, title: "Created", right: true, cell: (t) => <Age at={t.created} /> },
  { key: "expires", csv: (t) => t.expires, title: "Expires", cell: (t) => <Until at={t.expires} /> },
  { key: "actions", title: "Action", right: true, cell: (t) => <Revoke token={t} /> },
];

function Revoke({ token }: { token: Token }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button small kind="danger" label={`Revoke ${token.name}`} onClick={() => setAsk(true)}>
        Revoke
      </Button>
      {ask && (
        <Confirm
          title={`Revoke token ${token.name}`}
          verb="Revoke"
          danger
          consequences={[`Programs that use it are refused at once. It belongs to ${token.user}.`]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /tokens/{token}", { path: { token: token.id } });
            toast("ok", `Token ${token.name} is revoked`);
            reload("tokens");
          }}
        />
      )}
    </>
  );
}

function CreateToken({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("read");
  const [scope, setScope] = useState("");
  const [days, setDays] = useState("90");
  const [made, setMade] = useState<NewToken | undefined>(undefined);
  const create = async (key: string) => {
    setMade(await call("POST /tokens", { key, body: { name: name.trim(), ...limitOf(role, scope), ...expiresIn(days) } }));
    reload("tokens");
  };
  if (made) {
    return (
      <Dialog title={`Token ${made.token.name} is created`} onClose={onClose}>
        <Notice tone="warn">Copy it now: it is not shown again.</Notice>
        <CopyBlock label="Bearer token" name="token" text={made.secret} />
        <DoneFoot onClose={onClose} />
      </Dialog>
    );
  }
  return (
    <Dialog title="Create token" onClose={onClose}>
      <form
        class="stack-wide"
        aria-label="Create token"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(create);
        }}
      >
        <TextField
          label="Name"
          name="name"
          value={name}
          onValue={setName}
          hint="What will use it, such as backup-script."
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <ScopeField role={role} onRole={setRole} scope={scope} onScope={setScope} submit={submit} />
        <ExpiryField days={days} onDays={setDays} submit={submit} />
        <FormError submit={submit} fields={["name", "role", "grants", "expires"]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" busy={submit.busy}>
            Create
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
