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
import { msg, noun } from "../text";

/** Bearer tokens for programs: one's own, or everybody's for who manages. */
export function TokensPage({ create = false }: { create?: boolean }) {
  return (
    <Page
      title={msg`Tokens`}
      actions={
        <Button kind="primary" onClick={() => navigate("/tokens/new")}>
          {msg`Create token`}
        </Button>
      }
    >
      <Tabs
        label={msg`Tokens and clients`}
        param="tab"
        tabs={[
          { id: "tokens", title: msg`Tokens`, content: <TokenList /> },
          { id: "clients", title: msg`OAuth2 clients`, content: <ClientsTab /> },
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
              <TableTools table="tokens" noun={noun`token`} columns={columns} read={(cursor, limit) => call("GET /tokens", { query: { cursor, limit } })} />
            </div>
            <DataTable label={msg`Tokens`} table="tokens" columns={columns} rows={list.items} rowKey={(t) => t.id} next={list.next} />
          </>
        ) : (
          <Empty
            title={msg`No tokens yet`}
            text={msg`A token lets a program use the API with a role of its own, without a password.`}
            command="OVGATE_URL=… OVGATE_TOKEN=… ovgate vdisk list"
          >
            <Button kind="primary" onClick={() => navigate("/tokens/new")}>
              {msg`Create token`}
            </Button>
          </Empty>
        )
      }
    </Load>
  );
}

const columns: Column<Token>[] = [
  { key: "name", csv: (t) => t.name, title: msg`Name`, cell: (t) => t.name },
  { key: "user", csv: (t) => t.user, title: msg`User`, cell: (t) => t.user },
  { key: "may", csv: (t) => rightsText(t.role, t.grants), title: msg`May`, wrap: true, cell: (t) => rightsText(t.role, t.grants) },
  { key: "created", csv: (t) => t.created, title: msg`Created`, right: true, cell: (t) => <Age at={t.created} /> },
  { key: "expires", csv: (t) => t.expires, title: msg`Expires`, cell: (t) => <Until at={t.expires} /> },
  { key: "actions", title: msg`Action`, right: true, cell: (t) => <Revoke token={t} /> },
];

function Revoke({ token }: { token: Token }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button small kind="danger" label={msg`Revoke ${token.name}`} onClick={() => setAsk(true)}>
        {msg`Revoke`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Revoke token ${token.name}`}
          verb={msg`Revoke`}
          danger
          consequences={[msg`Programs that use it are refused at once. It belongs to ${token.user}.`]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /tokens/{token}", { path: { token: token.id } });
            toast("ok", msg`Token ${token.name} is revoked`);
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
      <Dialog title={msg`Token ${made.token.name} is created`} onClose={onClose}>
        <Notice tone="warn">{msg`Copy it now: it is not shown again.`}</Notice>
        <CopyBlock label={msg`Bearer token`} name="token" text={made.secret} />
        <DoneFoot onClose={onClose} />
      </Dialog>
    );
  }
  return (
    <Dialog title={msg`Create token`} onClose={onClose}>
      <form
        class="stack-wide"
        aria-label={msg`Create token`}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit.run(create);
        }}
      >
        <TextField
          label={msg`Name`}
          name="name"
          value={name}
          onValue={setName}
          hint={msg`What will use it, such as backup-script.`}
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <ScopeField role={role} onRole={setRole} scope={scope} onScope={setScope} submit={submit} />
        <ExpiryField days={days} onDays={setDays} submit={submit} />
        <FormError submit={submit} fields={["name", "role", "grants", "expires"]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" busy={submit.busy}>
            {msg`Create`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
