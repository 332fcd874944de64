import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { RoleOrNone, User, UserList } from "../api/gen";
import { navigate, query } from "../router";
import { whilePending } from "../store/pending";
import { asApiError, patch, reload } from "../store/query";
import { useUsers } from "../store/reads";
import { denied, session } from "../store/session";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { GrantsField, grantsOf } from "../parts/GrantsField";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { Facts, Page } from "../parts/Page";
import { NewPasswordField } from "../parts/PasswordField";
import { SearchBox } from "../parts/SearchBox";
import { TableTools } from "../parts/TableTools";
import { Tabs } from "../parts/Tabs";
import { rightsText, roleOrNoneOptions } from "../parts/roles";
import { GroupsTab } from "./Groups";
import { PasswordDialog } from "./PasswordDialog";
import { msg, noun, rich } from "../text";

/** Users and their roles. */
export function UsersPage({ create = false }: { create?: boolean }) {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const reason = denied("manage");
  if (reason) {
    return (
      <Page title={msg`Users`}>
        <Notice tone="info">{rich`${reason}. Your own password is in the menu at the top right.`}</Notice>
      </Page>
    );
  }
  return (
    <Page
      title={msg`Users`}
      actions={
        <Button kind="primary" needs="manage" onClick={() => navigate("/users/new")}>
          {msg`Create user`}
        </Button>
      }
    >
      <Tabs
        label={msg`Users and groups`}
        param="tab"
        tabs={[
          {
            id: "users",
            title: msg`Users`,
            content: (
              <div class="stack">
                <div class="toolbar" role="search">
                  <SearchBox label={msg`Filter users by name`} />
                  <TableTools table="users" noun={noun`user`} columns={columns} read={(cursor, limit) => call("GET /users", { query: { ...filter, cursor, limit } })} />
                </div>
                <List filter={filter} />
              </div>
            ),
          },
          { id: "groups", title: msg`Groups`, content: <GroupsTab /> },
        ]}
      />
      {create && <CreateUser onClose={() => navigate("/users")} />}
    </Page>
  );
}

function List({ filter }: { filter: { q?: string; cursor?: string } }) {
  const users = useUsers(filter);
  return (
    <Load query={users}>
      {(list) => (
        <DataTable label={msg`Users`} table="users" columns={columns} rows={list.items} rowKey={(u) => u.name} next={list.next} />
      )}
    </Load>
  );
}

const columns: Column<User>[] = [
  { key: "name", csv: (u) => u.name, title: msg`Name`, cell: (u) => (u.name === session.value?.user ? msg`${u.name} (you)` : u.name) },
  { key: "role", csv: (u) => u.role, title: msg`Role`, cell: (u) => (u.external ? msg`${u.role}, by its groups` : <RoleChoice user={u} />) },
  { key: "may", csv: (u) => rightsText(u.effective.role, u.effective.grants), title: msg`May in all`, wrap: true, cell: (u) => rightsText(u.effective.role, u.effective.grants) },
  { key: "groups", csv: (u) => u.groups.join(", "), title: msg`Groups`, wrap: true, cell: (u) => u.groups.join(", ") },
  { key: "from", csv: (u) => (u.external ? u.external.issuer : "password"), title: msg`Signs in`, cell: (u) => (!u.external ? msg`Password` : u.external.counts ? msg`Provider` : msg`Provider, refused now`) },
  { key: "created", csv: (u) => u.created, title: msg`Created`, right: true, cell: (u) => <Age at={u.created} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (u) => <UserActions user={u} /> },
];

function RoleChoice({ user }: { user: User }) {
  // Shown before the node has agreed, and as it was if it does not.
  const show = (role: RoleOrNone) => patch<UserList>("users?", (list) => ({ ...list, items: list.items.map((u) => (u.name === user.name ? { ...u, role } : u)) }));
  const change = async (role: RoleOrNone) => {
    show(role);
    try {
      await whilePending(user.name, () => call("PATCH /users/{user}", { path: { user: user.name }, body: { role } }));
      toast("ok", msg`${user.name} has role ${role} now`);
    } catch (error) {
      show(user.role);
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    reload("users");
  };
  return (
    <select
      class="input"
      aria-label={msg`Role of ${user.name}`}
      value={user.role}
      onChange={(event) => {
        void change(event.currentTarget.value as RoleOrNone);
      }}
    >
      {roleOrNoneOptions.map((o) => (
        <option key={o.value} value={o.value}>
          {o.value}
        </option>
      ))}
    </select>
  );
}

function UserActions({ user }: { user: User }) {
  const [open, setOpen] = useState<"rights" | "password" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const own = user.name === session.value?.user;
  return (
    <>
      <Button small label={msg`Rights of ${user.name}`} onClick={() => setOpen("rights")}>
        {msg`Rights`}
      </Button>{" "}
      <Button
        small
        label={msg`Set password of ${user.name}`}
        reason={own && user.external ? msg`Your provider vouches for you; ask another administrator` : undefined}
        onClick={() => setOpen("password")}
      >
        {msg`Set password`}
      </Button>{" "}
      <Button
        small
        kind="danger"
        label={msg`Delete ${user.name}`}
        reason={own ? msg`You cannot delete yourself; ask another administrator` : undefined}
        onClick={() => setOpen("delete")}
      >
        {msg`Delete`}
      </Button>
      {open === "rights" && <RightsDialog user={user} onClose={close} />}
      {open === "password" && <PasswordDialog user={user.name} own={own} external={Boolean(user.external)} onClose={close} />}
      {open === "delete" && (
        <Confirm
          title={msg`Delete user ${user.name}`}
          verb={msg`Delete user`}
          danger
          typeName={user.name}
          consequences={[msg`Its tokens stop working and its browser sessions end at once.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /users/{user}", { path: { user: user.name } });
            toast("ok", msg`User ${user.name} is deleted`);
            reload("users", "tokens");
          }}
        />
      )}
    </>
  );
}

/** What a user may and where it comes from, and its own roles on vPools and backends. */
function RightsDialog({ user, onClose }: { user: User; onClose: () => void }) {
  const submit = useSubmit();
  const [grants, setGrants] = useState(grantsOf(user.grants));
  return (
    <FormDialog
      title={msg`Rights of ${user.name}`}
      verb={msg`Save`}
      needs="manage"
      submit={submit}
      fields={["grants"]}
      save={async () => {
        await call("PATCH /users/{user}", { path: { user: user.name }, body: { grants } });
        toast("ok", msg`The rights of ${user.name} are changed`);
        reload("users");
        onClose();
      }}
      onClose={onClose}
    >
      <Facts
        rows={[
          ...user.sources.map((from): [string, string] => [from.group ? msg`By group ${from.group}` : msg`By itself`, rightsText(from.rights.role, from.rights.grants)]),
          [msg`In all`, rightsText(user.effective.role, user.effective.grants)],
        ]}
      />
      <GrantsField value={grants} onValue={setGrants} known={user.grants} error={submit.at("grants")} />
    </FormDialog>
  );
}

function CreateUser({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [role, setRole] = useState<RoleOrNone>("read");
  const [password, setPassword] = useState("");
  const create = async (key: string) => {
    await call("POST /users", { key, body: { name: name.trim(), role, password } });
    toast("ok", msg`User ${name.trim()} is created`);
    reload("users");
    onClose();
  };
  return (
    <Dialog title={msg`Create user`} onClose={onClose}>
      <form
        class="stack-wide"
        aria-label={msg`Create user`}
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
          error={submit.at("name")}
          input={{ autofocus: true }}
        />
        <SelectField
          label={msg`Role`}
          name="role"
          value={role}
          onValue={(r) => setRole(r as RoleOrNone)}
          options={roleOrNoneOptions}
          error={submit.at("role")}
        />
        <NewPasswordField
          label={msg`Password`}
          name="password"
          value={password}
          onValue={setPassword}
          error={submit.at("password")}
        />
        <FormError submit={submit} fields={["name", "role", "password"]} />
        <div class="dialog-foot">
          <Button onClick={onClose}>{msg`Cancel`}</Button>
          <Button type="submit" kind="primary" needs="manage" busy={submit.busy}>
            {msg`Create`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
