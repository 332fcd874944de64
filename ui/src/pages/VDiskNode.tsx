import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk, VDiskDtl } from "../api/gen";
import { bytes } from "../format";
import { reload } from "../store/query";
import { useNodes, useVPools } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Confirm } from "../parts/Dialog";
import { CheckField, SelectField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Tag } from "../parts/StateTag";

/** Whether another node has a copy of the journal. */
export function mirrored(d: VDiskDtl) {
  const where = d.node ? ` on ${d.node}` : "";
  switch (d.state) {
    case "ok":
      return <Tag tone="ok" word={`${d.mode}${where}${d.lagBytes > 0 ? `, ${bytes(d.lagBytes)} behind` : ""}`} />;
    case "catchup":
      return <Tag tone="info" word={`${d.mode}, a copy is being made${where}: ${d.caughtUp} of ${d.catchup} writes`} />;
    case "degraded":
      return <Tag tone="warn" word={`${d.mode}, but only this node has the newest writes: ${d.reason}`} />;
    default: // never shown green: nothing outlives the node
      return <Tag tone="idle" word={d.mode === "off" ? "off" : `${d.mode}, no other node takes a copy`} />;
  }
}

/** Hands a vDisk over to another node. */
export function MoveToNodeDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const nodes = useNodes();
  const [node, setNode] = useState("");
  const save = async () => {
    if (!node) {
      return;
    }
    await call("POST /vdisks/{vdisk}/handover", { path: { vdisk: vdisk.name }, body: { node } });
    toast("ok", `${vdisk.name} goes to ${node}`);
    reload("vdisk:", "vdisks?", "nodes?");
    onClose();
  };
  return (
    <FormDialog
      title={`Change the node of ${vdisk.name}`}
      verb="Hand over"
      submit={submit}
      fields={["node"]}
      save={save}
      onClose={onClose}
    >
      <Load query={nodes}>
        {(list) => (
          <SelectField
            label="Node"
            name="node"
            value={node}
            onValue={setNode}
            hint={`${vdisk.node} commits it and closes it, and that node opens it: a pause of less than a second. Hosts need a path there.`}
            error={submit.at("node")}
            options={[
              { value: "", text: "Choose a node" },
              ...list.items
                .filter((n) => n.name !== vdisk.node && n.state === "up" && !n.draining)
                .map((n) => ({ value: n.name, text: `${n.name}, ${n.vdisks} vDisks` })),
            ]}
          />
        )}
      </Load>
    </FormDialog>
  );
}

/** Whether a write waits for the copy of the journal. */
export const copyModes = [
  { value: "inherit", text: "As its vPool says" },
  { value: "sync", text: "sync: a write is answered when both nodes have it" },
  { value: "async", text: "async: the copy is behind by some moments" },
  { value: "off", text: "off: what the backend lacks is lost with the node" },
];

/** Says whether another node keeps a copy of the journal, and which. */
export function JournalCopyDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const nodes = useNodes();
  const [mode, setMode] = useState<string>(vdisk.dtl.inherited ? "inherit" : vdisk.dtl.mode);
  const [peer, setPeer] = useState(vdisk.dtl.peer || "auto");
  const save = async () => {
    const body = { mode: mode as "inherit" | VDisk["dtl"]["mode"], peer };
    await call("PUT /vdisks/{vdisk}/dtl", { path: { vdisk: vdisk.name }, body });
    toast("ok", `The journal copy of ${vdisk.name} is set`);
    reload("vdisk:", "vdisks?", "status");
    onClose();
  };
  return (
    <FormDialog title={`Copy of the journal of ${vdisk.name}`} verb="Save" submit={submit} fields={["mode", "peer"]} save={save} onClose={onClose}>
      <SelectField
        label="Copy"
        name="mode"
        value={mode}
        onValue={setMode}
        hint="The newest writes are in the journal of one node until the backend has them. Takes effect at once; hosts go on."
        error={submit.at("mode")}
        options={copyModes}
      />
      <Load query={nodes}>
        {(list) => (
          <SelectField
            label="Node that has the copy"
            name="peer"
            value={peer}
            onValue={setPeer}
            error={submit.at("peer")}
            options={[
              { value: "auto", text: "The best one: in another domain, with the fewest copies" },
              ...list.items.filter((n) => n.name !== vdisk.node).map((n) => ({ value: n.name, text: n.name })),
              ...(peer === "auto" || list.items.some((n) => n.name === peer) ? [] : [{ value: peer, text: peer }]),
            ]}
          />
        )}
      </Load>
    </FormDialog>
  );
}

/** Takes a vDisk to another vPool while hosts use it. */
export function MoveToVPoolDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const submit = useSubmit();
  const vpools = useVPools({}, 1000);
  const [vpool, setVPool] = useState(vdisk.move?.vpool ?? "");
  const [tried, setTried] = useState(false);
  const save = async () => {
    setTried(true);
    if (!vpool) {
      return;
    }
    await call("POST /vdisks/{vdisk}/move", { path: { vdisk: vdisk.name }, body: { vpool } });
    toast("ok", `${vdisk.name} is being moved to ${vpool}`);
    reload("vdisk:", "vdisks?", "vpools?", "jobs?");
    onClose();
  };
  return (
    <FormDialog title={`Move ${vdisk.name} to another vPool`} verb="Move" submit={submit} fields={["vpool"]} save={save} onClose={onClose}>
      <Load query={vpools}>
        {(list) => (
          <SelectField
            label="vPool"
            name="vpool"
            value={vpool}
            onValue={setVPool}
            hint={`With its snapshots, ${bytes(vdisk.stored)} in all. It is copied in the background; sessions of hosts stay, and wait for some moments at the end.`}
            error={(tried && !vpool ? "Choose a vPool" : undefined) ?? submit.at("vpool")}
            options={[
              { value: "", text: "Choose a vPool" },
              ...list.items.filter((v) => v.name !== vdisk.vpool).map((v) => ({ value: v.name, text: v.name })),
            ]}
          />
        )}
      </Load>
    </FormDialog>
  );
}

/** Ends a move; the vDisk stays where it is. */
export function CancelMoveDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  return (
    <Confirm
      title={`Stop the move of ${vdisk.name}`}
      verb="Stop the move"
      danger
      consequences={[`${vdisk.name} stays in vPool ${vdisk.vpool}.`, `What was copied to ${vdisk.move?.vpool ?? "the other vPool"} is deleted.`]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /vdisks/{vdisk}/move", { path: { vdisk: vdisk.name } });
        toast("ok", `${vdisk.name} stays in ${vdisk.vpool}`);
        reload("vdisk:", "vdisks?", "vpools?", "jobs?");
      }}
    />
  );
}

/** Ends a hand-over that has not ended; the vDisk stays where it is. */
export function CancelHandoverDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  return (
    <Confirm
      title={`Stop the hand-over of ${vdisk.name}`}
      verb="Stop the hand-over"
      consequences={[`${vdisk.name} stays at node ${vdisk.node}, unless ${vdisk.handover?.node ?? "the other one"} has it already.`]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /vdisks/{vdisk}/handover", { path: { vdisk: vdisk.name } });
        toast("ok", `${vdisk.name} is not handed over`);
        reload("vdisk:", "vdisks?", "nodes?", "jobs?");
      }}
    />
  );
}

/** Takes a vDisk over from a node that is down. */
export function StealDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  const [acceptLoss, setAcceptLoss] = useState(false);
  return (
    <Confirm
      title={`Take ${vdisk.name} over from ${vdisk.node}`}
      verb="Take it over"
      danger
      typeName={vdisk.name}
      consequences={[
        `The node of this page serves it, and ${vdisk.node} gives it up when it is back. It is refused while that node is up.`,
        `The newest writes may be in the journal of ${vdisk.node} alone. Start that node if you can: then nothing is lost.`,
      ]}
      onClose={onClose}
      act={async () => {
        const taken = await call("POST /vdisks/{vdisk}/steal", { path: { vdisk: vdisk.name }, body: { acceptLoss } });
        toast("ok", `${taken.name} is served by ${taken.node}`);
        reload("vdisk:", "vdisks?", "targets?", "target:", "status");
      }}
    >
      <CheckField name="acceptLoss" checked={acceptLoss} onValue={setAcceptLoss}>
        Do without the writes that only {vdisk.node} has; they do not come back
      </CheckField>
    </Confirm>
  );
}
