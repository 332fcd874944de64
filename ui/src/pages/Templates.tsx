import { useRef, useState } from "preact/hooks";
import { call, newKey } from "../api/client";
import type { VDisk } from "../api/gen";
import { bytes, plural } from "../format";
import { navigate, query } from "../router";
import { asApiError, reload } from "../store/query";
import { useVDisks } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Empty, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { TableTools } from "../parts/TableTools";
import { msg, noun, rich } from "../text";

/** vDisks that are only there to be cloned. */
export function TemplatesPage() {
  const filter = {
    q: query.value.get("q") ?? undefined,
    sort: query.value.get("sort") ?? "name",
    cursor: query.value.get("cursor") ?? undefined,
  };
  const list = useVDisks({ ...filter, state: "template" });
  return (
    <Page title={msg`Templates`}>
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter templates by name or label`} />
        <TableTools table="templates" noun={noun`template`} columns={columns} read={(cursor, limit) => call("GET /vdisks", { query: { ...filter, state: "template" as const, cursor, limit } })} />
      </div>
      <Load query={list}>
        {(page) =>
          page.items.length > 0 || filter.cursor ? (
            <DataTable
              label={msg`Templates`}
              table="templates"
              columns={columns}
              rows={page.items}
              rowKey={(v) => v.id}
              order={filter.sort}
              next={page.next}
              peek={{ id: (v) => v.id, name: (v) => v.name }}
            />
          ) : (
            <Empty
              title={filter.q ? msg`No template matches` : msg`No templates yet`}
              text={msg`A template is a vDisk that does not change any more. Install a system on a vDisk, unpublish it, then make it a template on its Lineage tab.`}
              command="ovgate template create VDISK"
            >
              <Button onClick={() => navigate("/vdisks")}>{msg`vDisks`}</Button>
            </Empty>
          )
        }
      </Load>
      <PeekOf>{(m, id) => <m.PeekVDisk id={id} />}</PeekOf>
    </Page>
  );
}

const columns: Column<VDisk>[] = [
  { key: "name", csv: (v) => v.name, title: msg`Name`, sort: "name", cell: (v) => <Link to={`/vdisks/${encodeURIComponent(v.name)}?tab=lineage`}>{v.name}</Link> },
  { key: "vpool", csv: (v) => v.vpool, title: msg`vPool`, sort: "vpool", cell: (v) => <Link to={`/vpools/${encodeURIComponent(v.vpool)}`}>{v.vpool}</Link> },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (v) => v.size }, title: msg`Size`, sort: "size", right: true, cell: (v) => bytes(v.size) },
  { key: "stored", csv: { title: msg`Stored (bytes)`, value: (v) => v.stored }, title: msg`Stored`, sort: "stored", right: true, cell: (v) => bytes(v.stored) },
  { key: "created", csv: (v) => v.created, title: msg`Made`, sort: "created", right: true, cell: (v) => <Age at={v.created} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (v) => <CreateButton template={v} /> },
];

function CreateButton({ template }: { template: VDisk }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button small kind="primary" needs="write" label={msg`Create vDisks from ${template.name}`} onClick={() => setOpen(true)}>
        {msg`Create vDisks`}
      </Button>
      {open && <CreateDialog template={template} onClose={() => setOpen(false)} />}
    </>
  );
}

/** Most vDisks of one request: they are made one after the other while the dialog is open. */
const copiesMax = 100;

/** Names of n vDisks: # stands for the number, with as many digits as there are #. */
function namesOf(pattern: string, n: number): string[] {
  const marks = /#+/.exec(pattern);
  if (!marks) {
    return n === 1 ? [pattern] : [];
  }
  return Array.from({ length: n }, (_, i) => pattern.replace(marks[0], String(i + 1).padStart(marks[0].length, "0")));
}

type Outcome = { name: string; error: string | undefined };

function CreateDialog({ template, onClose }: { template: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const [pattern, setPattern] = useState(`${template.name}-##`);
  const [copies, setCopies] = useState("1");
  // One key for all attempts at one name: a vDisk whose answer was lost is not made twice, nor refused.
  const keys = useRef(new Map<string, string>());
  const [done, setDone] = useState<Outcome[]>([]);
  const n = Number(copies);
  const countError = Number.isInteger(n) && n >= 1 && n <= copiesMax ? undefined : msg`Enter a number from 1 to ${copiesMax}`;
  const names = countError ? [] : namesOf(pattern.trim(), n);
  const patternError = !countError && names.length === 0 ? msg`Put # where the number belongs, such as web-##` : undefined;
  const save = async () => {
    const made = new Set(done.filter((d) => !d.error).map((d) => d.name));
    const outcomes: Outcome[] = done.filter((d) => !d.error);
    for (const name of names.filter((x) => !made.has(x))) {
      const outcome: Outcome = { name, error: undefined };
      try {
        const key = keys.current.get(name) ?? newKey();
        keys.current.set(name, key);
        await call("POST /vdisks/{vdisk}/clone", { key, path: { vdisk: template.id }, body: { name } });
      } catch (error) {
        const failure = asApiError(error);
        if (!failure.outcomeUnknown) {
          keys.current.delete(name);
        }
        outcome.error = [failure.message, failure.hint].filter(Boolean).join(". ");
      }
      outcomes.push(outcome);
      setDone([...outcomes]);
    }
    reload("vdisks?", "vpools?", "status");
    if (outcomes.every((o) => !o.error)) {
      toast("ok", msg`${plural(outcomes.length, noun`vDisk`)} made from ${template.name}`);
      onClose();
      navigate(`/vdisks/${encodeURIComponent(template.name)}?tab=lineage`);
    }
  };
  return (
    <FormDialog
      title={msg`vDisks from ${template.name}`}
      verb={msg`Create ${plural(names.length, noun`vDisk`)}`}
      submit={submit}
      fields={[]}
      save={async () => {
        if (!countError && !patternError) {
          await save();
        }
      }}
      onClose={onClose}
    >
      <TextField
        label={msg`How many`}
        name="copies"
        value={copies}
        onValue={setCopies}
        error={countError}
        input={{ inputMode: "decimal", autofocus: true }}
      />
      <TextField
        label={msg`Names`}
        name="pattern"
        value={pattern}
        onValue={setPattern}
        hint={names.length > 0 ? msg`# stands for the number: ${names[0]}${names.length > 1 ? msg` to ${names[names.length - 1]}` : ""}` : msg`# stands for the number.`}
        error={patternError}
      />
      {done.some((d) => d.error) && (
        <Notice tone="bad" alert>
          <b>
            {rich`${plural(done.filter((d) => !d.error).length, noun`vDisk`)} made, ${done.filter((d) => d.error).length} not`}
          </b>
          {done
            .filter((d) => d.error)
            .map((d) => (
              <span key={d.name}>
                {d.name}: {d.error}
              </span>
            ))}
          <span>{msg`Again makes only those that are missing.`}</span>
        </Notice>
      )}
    </FormDialog>
  );
}
