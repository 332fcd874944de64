import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Trashed } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useTrash } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { TableTools } from "../parts/TableTools";
import { msg, noun } from "../text";

/** Deleted vDisks that their vPools keep for a while. */
export function TrashPage() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const trash = useTrash(filter);
  return (
    <Page title={msg`Trash`}>
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter the trash by name or label`} />
        <TableTools table="trash" noun={noun`vDisk`} columns={columns} read={(cursor, limit) => call("GET /trash", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={trash}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable label={msg`Trash`} table="trash" columns={columns} rows={list.items} rowKey={(v) => v.id} next={list.next} />
          ) : (
            <Empty
              title={msg`Nothing in the trash`}
              text={msg`Deleted vDisks stay here for as long as their vPool's settings say.`}
              command="ovgate trash list"
            >
              <Button onClick={() => navigate("/vdisks")}>{msg`vDisks`}</Button>
            </Empty>
          )
        }
      </Load>
    </Page>
  );
}

const columns: Column<Trashed>[] = [
  { key: "name", csv: (v) => v.name, title: msg`Name`, cell: (v) => v.name },
  { key: "vpool", csv: (v) => v.vpool, title: msg`vPool`, cell: (v) => v.vpool },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (v) => v.size }, title: msg`Size`, right: true, cell: (v) => bytes(v.size) },
  { key: "stored", csv: { title: msg`Stored (bytes)`, value: (v) => v.stored }, title: msg`Stored`, right: true, cell: (v) => bytes(v.stored) },
  { key: "trashedAt", csv: (v) => v.trashedAt, title: msg`Deleted`, right: true, cell: (v) => <Age at={v.trashedAt} /> },
  { key: "purgeAt", csv: (v) => v.purgeAt, title: msg`Gone at`, right: true, cell: (v) => new Date(v.purgeAt).toLocaleString() },
  { key: "actions", title: msg`Actions`, right: true, cell: (v) => <Actions vdisk={v} /> },
];

function Actions({ vdisk }: { vdisk: Trashed }) {
  const [open, setOpen] = useState<"restore" | "purge" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="write" label={msg`Restore ${vdisk.name}`} onClick={() => setOpen("restore")}>
        {msg`Restore`}
      </Button>{" "}
      <Button small kind="danger" needs="write" label={msg`Purge ${vdisk.name}`} onClick={() => setOpen("purge")}>
        {msg`Purge`}
      </Button>
      {open === "restore" && <RestoreDialog vdisk={vdisk} onClose={close} />}
      {open === "purge" && (
        <Confirm
          title={msg`Purge ${vdisk.name}`}
          verb={msg`Delete for good`}
          danger
          typeName={vdisk.name}
          consequences={[msg`${bytes(vdisk.stored)} on vPool ${vdisk.vpool} will be deleted.`, msg`This cannot be undone.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /trash/{vdisk}", { path: { vdisk: vdisk.id } });
            toast("ok", msg`${vdisk.name} is gone`);
            reload("trash?", "vpools?", "status");
          }}
        />
      )}
    </>
  );
}

function RestoreDialog({ vdisk, onClose }: { vdisk: Trashed; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState(vdisk.name);
  const save = async () => {
    const v = await call("POST /trash/{vdisk}/restore", { path: { vdisk: vdisk.id }, body: { name } });
    toast("ok", msg`${v.name} is restored`);
    reload("trash?", "vdisks?", "vpools?", "status");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Restore ${vdisk.name}`}
      verb={msg`Restore`}
      submit={submit}
      fields={["name"]}
      save={save}
      onClose={onClose}
    >
      <TextField
        label={msg`Name`}
        name="name"
        value={name}
        onValue={setName}
        hint={msg`It comes back with its data, snapshots and labels, and is not published.`}
        error={submit.at("name")}
      />
    </FormDialog>
  );
}
