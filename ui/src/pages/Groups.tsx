import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { RoleOrNone, UserGroup } from "../api/gen";
import { query } from "../router";
import { reload, unread } from "../store/query";
import { useGroups, useUsers } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { GrantsField, grantsOf } from "../parts/GrantsField";
import { Load } from "../parts/Load";
import { Empty } from "../parts/Page";
import { rightsText, roleOrNoneOptions } from "../parts/roles";
import { msg } from "../text";

/** Groups of users, and what their members may. */
export function GroupsTab() {
  const filter = { cursor: query.value.get("cursor") ?? undefined };
  const groups = useGroups(filter);
  const [create, setCreate] = useState(false);
  const add = (
    <Button kind="primary" needs="manage" onClick={() => setCreate(true)}>
      {msg`Create group`}
    </Button>
  );
  return (
    <div class="stack">
      <Load query={groups}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <>
              <div class="toolbar">{add}</div>
              <DataTable label={msg`Groups`} columns={columns} rows={list.items} rowKey={(g) => g.id} next={list.next} />
            </>
          ) : (
            <Empty title={msg`No groups yet`} text={msg`A group gives all its members a role, or roles on single vPools and backends.`} command="ovgate group create builders --grant write:vpool:NAME">
              {add}
            </Empty>
          )
        }
      </Load>
      {create && <EditGroup onClose={() => setCreate(false)} />}
    </div>
  );
}

const columns: Column<UserGroup>[] = [
  { key: "name", title: msg`Name`, cell: (g) => g.name },
  { key: "may", title: msg`Members may`, wrap: true, cell: (g) => rightsText(g.role, g.grants) },
  { key: "members", title: msg`Members`, wrap: true, cell: (g) => g.members.join(", ") || msg`none` },
  { key: "description", title: msg`Description`, wrap: true, cell: (g) => g.description },
  { key: "actions", title: msg`Actions`, right: true, cell: (g) => <GroupActions group={g} /> },
];

function GroupActions({ group }: { group: UserGroup }) {
  const [open, setOpen] = useState<"edit" | "members" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="manage" label={msg`Edit group ${group.name}`} onClick={() => setOpen("edit")}>
        {msg`Edit`}
      </Button>{" "}
      <Button small needs="manage" label={msg`Members of ${group.name}`} onClick={() => setOpen("members")}>
        {msg`Members`}
      </Button>{" "}
      <Button small kind="danger" needs="manage" label={msg`Delete group ${group.name}`} onClick={() => setOpen("delete")}>
        {msg`Delete`}
      </Button>
      {open === "edit" && <EditGroup group={group} onClose={close} />}
      {open === "members" && <Members group={group} onClose={close} />}
      {open === "delete" && (
        <Confirm
          title={msg`Delete group ${group.name}`}
          verb={msg`Delete group`}
          danger
          consequences={[msg`Its members lose at once what it gives.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /groups/{group}", { path: { group: group.id } });
            toast("ok", msg`Group ${group.name} is deleted`);
            reload("groups", "users");
          }}
        />
      )}
    </>
  );
}

function EditGroup({ group, onClose }: { group?: UserGroup; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState(group?.name ?? "");
  const [description, setDescription] = useState(group?.description ?? "");
  const [role, setRole] = useState<RoleOrNone>(group?.role ?? "none");
  const [grants, setGrants] = useState(grantsOf(group?.grants ?? []));
  const save = async (key: string) => {
    const body = { name: name.trim(), description: description.trim(), role, grants };
    if (group) {
      await call("PATCH /groups/{group}", { path: { group: group.id }, body });
    } else {
      await call("POST /groups", { key, body });
    }
    toast("ok", msg`Group ${body.name} is ${group ? msg`changed` : msg`created`}`);
    reload("groups", "users");
    onClose();
  };
  return (
    <FormDialog
      title={group ? msg`Edit group ${group.name}` : msg`Create group`}
      verb={group ? msg`Save` : msg`Create`}
      needs="manage"
      submit={submit}
      fields={["name", "description", "role", "grants"]}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} error={submit.at("name")} input={{ autofocus: true }} />
      <TextField label={msg`Description`} name="description" value={description} onValue={setDescription} error={submit.at("description")} />
      <SelectField
        label={msg`Role over everything`}
        name="role"
        value={role}
        onValue={(r) => setRole(r as RoleOrNone)}
        options={roleOrNoneOptions}
        error={submit.at("role")}
      />
      <GrantsField value={grants} onValue={setGrants} known={group?.grants} error={submit.at("grants")} />
    </FormDialog>
  );
}

function Members({ group, onClose }: { group: UserGroup; onClose: () => void }) {
  const submit = useSubmit();
  const users = useUsers({});
  const others = (users.data?.items ?? []).filter((u) => !group.members.includes(u.name));
  const [user, setUser] = useState("");
  const chosen = user || others[0]?.name;
  const change = async (act: () => Promise<unknown>) => {
    await act();
    reload("groups", "users");
  };
  const remove = (name: string) =>
    submit.run(() => change(() => call("DELETE /groups/{group}/members/{user}", { path: { group: group.id, user: name } })));
  return (
    <FormDialog
      title={msg`Members of ${group.name}`}
      verb={msg`Add`}
      needs="manage"
      reason={unread(users)}
      submit={submit}
      fields={[]}
      save={() =>
        change(async () => {
          if (chosen) {
            await call("PUT /groups/{group}/members/{user}", { path: { group: group.id, user: chosen } });
            setUser("");
          }
        })
      }
      onClose={onClose}
    >
      <ul class="stack" aria-label={msg`Members of ${group.name}`}>
        {group.members.map((m) => (
          <li key={m} class="row">
            {m}{" "}
            <Button small label={msg`Remove ${m} from ${group.name}`} onClick={() => void remove(m)}>
              {msg`Remove`}
            </Button>
          </li>
        ))}
      </ul>
      {others.length > 0 && (
        <SelectField label={msg`User to add`} name="user" value={chosen ?? ""} onValue={setUser} options={others.map((u) => ({ value: u.name, text: u.name }))} />
      )}
    </FormDialog>
  );
}
