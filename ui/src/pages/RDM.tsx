import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Center, HostAction, RDM } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useRDMs } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { CheckField, SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Card, Empty } from "../parts/Page";
import { TableTools } from "../parts/TableTools";
import { Plan } from "./CreateDatastore";
import { PresenceTag } from "./PresenceTag";
import { msg, noun } from "../text";

/** vDisks that virtual machines have as disks of their own. */
export function RDMCard() {
  const cursor = query.value.get("rdms") ?? undefined;
  const rdms = useRDMs(cursor);
  return (
    <Card
      title={msg`Raw disks of virtual machines`}
      aside={
        <span class="row">
          <Button small needs="manage" onClick={() => navigate("/vsphere/rdms/new")}>
            {msg`Give a raw disk`}
          </Button>
          <TableTools table="vsphere.rdms" noun={noun`raw disk`} columns={columns} read={(cursor, limit) => call("GET /vsphere/rdms", { query: { cursor, limit } })} />
        </span>
      }
    >
      <Load query={rdms}>
        {(list) =>
          list.items.length === 0 && !cursor ? (
            <Empty title={msg`No raw disks yet`} text={msg`A virtual machine may have a vDisk itself as its disk (RDM), such as the quorum disk of a cluster of guests.`} command="ovgate vsphere rdm attach VDISK --center CENTER --vm VM" />
          ) : (
            <DataTable label={msg`Raw disks`} table="vsphere.rdms" columns={columns} rows={list.items} rowKey={(d) => d.id} next={list.next} cursor="rdms" />
          )
        }
      </Load>
    </Card>
  );
}

const columns: Column<RDM>[] = [
  { key: "vm", csv: (d) => d.vmName || d.vm, title: msg`Virtual machine`, wrap: true, cell: (d) => d.vmName || d.vm },
  { key: "state", title: msg`State`, cell: (d) => <PresenceTag of={d} /> },
  { key: "vdisk", csv: vdiskOf, title: msg`vDisk`, wrap: true, cell: (d) => <Link to={`/vdisks/${encodeURIComponent(d.vdisk)}`}>{vdiskOf(d)}</Link> },
  { key: "center", csv: (d) => `${d.center}, ${d.cluster}`, title: msg`vCenter`, cell: (d) => `${d.center}, ${d.cluster}` },
  { key: "mode", csv: (d) => d.mode, title: msg`Compatibility`, cell: (d) => (d.shared ? msg`${d.mode}, shared` : d.mode) },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (d) => d.size }, title: msg`Size`, right: true, cell: (d) => bytes(d.size) },
  { key: "created", csv: (d) => d.created, title: msg`Made`, right: true, cell: (d) => <Age at={d.created} /> },
  { key: "actions", title: msg`Action`, right: true, cell: (d) => <Take rdm={d} /> },
];

/** The name of the vDisk, which that of the disk begins with: VDISK.VM. */
function vdiskOf(d: RDM): string {
  return d.name.endsWith("." + d.vm) ? d.name.slice(0, -d.vm.length - 1) : d.name;
}

function Take({ rdm: d }: { rdm: RDM }) {
  const [ask, setAsk] = useState(false);
  return (
    <>
      <Button small kind="danger" needs="manage" label={msg`Take ${d.name}`} onClick={() => setAsk(true)}>
        {msg`Take`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Take ${vdiskOf(d)} from ${d.vmName}`}
          verb={msg`Take the disk`}
          danger
          typeName={vdiskOf(d)}
          consequences={[
            msg`Virtual machine ${d.vmName} loses the disk, even while it is on. When no other has it, its hosts lose the LUN.`,
            msg`The vDisk stays, with its data. It is done in the background.`,
          ]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /vsphere/rdms/{rdm}", { path: { rdm: d.id } });
            toast("ok", msg`${vdiskOf(d)} is being taken from ${d.vmName}`);
            reload("rdms?");
          }}
        />
      )}
    </>
  );
}

/** Gives a virtual machine a vDisk: first the plan is shown, then the same is asked for in earnest. */
export function GiveRDM({ centers, onClose }: { centers: Center[]; onClose: () => void }) {
  const submit = useSubmit();
  const [vdisk, setVDisk] = useState("");
  const [center, setCenter] = useState(centers[0]?.id ?? "");
  const [vm, setVM] = useState("");
  const [mode, setMode] = useState("physical");
  const [shared, setShared] = useState(false);
  const [plan, setPlan] = useState<HostAction[] | undefined>(undefined);
  // A plan is of the values that were asked about.
  const changed = <T,>(set: (value: T) => void) => (value: T) => {
    setPlan(undefined);
    set(value);
  };
  const save = async (key: string) => {
    const body = { vdisk: vdisk.trim(), center, vm: vm.trim(), mode: mode as "physical" | "virtual", shared, dryRun: plan === undefined };
    const made = await call("POST /vsphere/rdms", { key: plan ? key : undefined, body });
    if (plan === undefined) {
      setPlan(made.actions);
      return;
    }
    toast("ok", msg`${vdisk.trim()} is being given to ${made.rdm.vmName}`);
    reload("rdms?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Give a raw disk`}
      verb={plan ? msg`Give it` : msg`Show the plan`}
      needs="manage"
      submit={submit}
      fields={["vdisk", "center", "vm", "mode"]}
      save={save}
      onClose={onClose}
    >
      <TextField label={msg`vDisk`} name="vdisk" value={vdisk} onValue={changed(setVDisk)} hint={msg`One that is not published, and has no datastore on it.`} error={submit.at("vdisk")} input={{ autofocus: true }} />
      <SelectField label={msg`vCenter`} name="center" value={center} onValue={changed(setCenter)} options={centers.map((c) => ({ value: c.id, text: c.name }))} error={submit.at("center")} />
      <TextField label={msg`Virtual machine`} name="vm" value={vm} onValue={changed(setVM)} hint={msg`Its name, or its managed object id.`} error={submit.at("vm")} />
      <SelectField
        label={msg`Compatibility`}
        name="mode"
        value={mode}
        onValue={changed(setMode)}
        options={[
          { value: "physical", text: msg`Physical: SCSI commands of the guest go to the vDisk` },
          { value: "virtual", text: msg`Virtual: the disk is in snapshots of the virtual machine` },
        ]}
        error={submit.at("mode")}
      />
      <CheckField name="shared" checked={shared} onValue={changed(setShared)}>
        {msg`Other virtual machines may have it too: their guests agree about it, and its SCSI controller shares its bus`}
      </CheckField>
      {plan && <Plan actions={plan} />}
    </FormDialog>
  );
}
