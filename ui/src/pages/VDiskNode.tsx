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
import { msg, rich } from "../text";

/** Whether another node has a copy of the journal. */
export function mirrored(d: VDiskDtl) {
  const where = d.node ? msg` on ${d.node}` : "";
  switch (d.state) {
    case "ok":
      return <Tag tone="ok" word={`${d.mode}${where}${d.lagBytes > 0 ? msg`, ${bytes(d.lagBytes)} behind` : ""}`} />;
    case "catchup":
      return <Tag tone="info" word={msg`${d.mode}, a copy is being made${where}: ${d.caughtUp} of ${d.catchup} writes`} />;
    case "degraded":
      return <Tag tone="warn" word={msg`${d.mode}, but only this node has the newest writes: ${d.reason}`} />;
    default: // never shown green: nothing outlives the node
      return <Tag tone="idle" word={d.mode === "off" ? "off" : msg`${d.mode}, no other node takes a copy`} />;
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
    toast("ok", msg`${vdisk.name} goes to ${node}`);
    reload("vdisk:", "vdisks?", "nodes?");
    onClose();
  };
  return (
    <FormDialog
      title={msg`Change the node of ${vdisk.name}`}
      verb={msg`Hand over`}
      submit={submit}
      fields={["node"]}
      save={save}
      onClose={onClose}
    >
      <Load query={nodes}>
        {(list) => (
          <SelectField
            label={msg`Node`}
            name="node"
            value={node}
            onValue={setNode}
            hint={msg`${vdisk.node} commits it and closes it, and that node opens it: a pause of less than a second. Hosts need a path there.`}
            error={submit.at("node")}
            options={[
              { value: "", text: msg`Choose a node` },
              ...list.items
                .filter((n) => n.name !== vdisk.node && n.state === "up" && !n.draining)
                .map((n) => ({ value: n.name, text: msg`${n.name}, ${n.vdisks} vDisks` })),
            ]}
          />
        )}
      </Load>
    </FormDialog>
  );
}

/** Whether a write waits for the copy of the journal. */
export const copyModes = [
  { value: "inherit", text: msg`As its vPool says` },
  { value: "sync", text: msg`sync: a write is answered when both nodes have it` },
  { value: "async", text: msg`async: the copy is behind by some moments` },
  { value: "off", text: msg`off: what the backend lacks is lost with the node` },
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
    toast("ok", msg`The journal copy of ${vdisk.name} is set`);
    reload("vdisk:", "vdisks?", "status");
    onClose();
  };
  return (
    <FormDialog title={msg`Copy of the journal of ${vdisk.name}`} verb={msg`Save`} submit={submit} fields={["mode", "peer"]} save={save} onClose={onClose}>
      <SelectField
        label={msg`Copy`}
        name="mode"
        value={mode}
        onValue={setMode}
        hint={msg`The newest writes are in the journal of one node until the backend has them. Takes effect at once; hosts go on.`}
        error={submit.at("mode")}
        options={copyModes}
      />
      <Load query={nodes}>
        {(list) => (
          <SelectField
            label={msg`Node that has the copy`}
            name="peer"
            value={peer}
            onValue={setPeer}
            error={submit.at("peer")}
            options={[
              { value: "auto", text: msg`The best one: in another domain, with the fewest copies` },
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
    toast("ok", msg`${vdisk.name} is being moved to ${vpool}`);
    reload("vdisk:", "vdisks?", "vpools?", "jobs?");
    onClose();
  };
  return (
    <FormDialog title={msg`Move ${vdisk.name} to another vPool`} verb={msg`Move`} submit={submit} fields={["vpool"]} save={save} onClose={onClose}>
      <Load query={vpools}>
        {(list) => (
          <SelectField
            label={msg`vPool`}
            name="vpool"
            value={vpool}
            onValue={setVPool}
            hint={msg`With its snapshots, ${bytes(vdisk.stored)} in all. It is copied in the background; sessions of hosts stay, and wait for some moments at the end.`}
            error={(tried && !vpool ? msg`Choose a vPool` : undefined) ?? submit.at("vpool")}
            options={[
              { value: "", text: msg`Choose a vPool` },
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
      title={msg`Stop the move of ${vdisk.name}`}
      verb={msg`Stop the move`}
      danger
      consequences={[msg`${vdisk.name} stays in vPool ${vdisk.vpool}.`, msg`What was copied to ${vdisk.move?.vpool ?? msg`the other vPool`} is deleted.`]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /vdisks/{vdisk}/move", { path: { vdisk: vdisk.name } });
        toast("ok", msg`${vdisk.name} stays in ${vdisk.vpool}`);
        reload("vdisk:", "vdisks?", "vpools?", "jobs?");
      }}
    />
  );
}

/** Ends a hand-over that has not ended; the vDisk stays where it is. */
export function CancelHandoverDialog({ vdisk, onClose }: { vdisk: VDisk; onClose: () => void }) {
  return (
    <Confirm
      title={msg`Stop the hand-over of ${vdisk.name}`}
      verb={msg`Stop the hand-over`}
      consequences={[msg`${vdisk.name} stays at node ${vdisk.node}, unless ${vdisk.handover?.node ?? msg`the other one`} has it already.`]}
      onClose={onClose}
      act={async () => {
        await call("DELETE /vdisks/{vdisk}/handover", { path: { vdisk: vdisk.name } });
        toast("ok", msg`${vdisk.name} is not handed over`);
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
      title={msg`Take ${vdisk.name} over from ${vdisk.node}`}
      verb={msg`Take it over`}
      danger
      typeName={vdisk.name}
      consequences={[
        msg`The node of this page serves it, and ${vdisk.node} gives it up when it is back. It is refused while that node is up.`,
        msg`The newest writes may be in the journal of ${vdisk.node} alone. Start that node if you can: then nothing is lost.`,
      ]}
      onClose={onClose}
      act={async () => {
        const taken = await call("POST /vdisks/{vdisk}/steal", { path: { vdisk: vdisk.name }, body: { acceptLoss } });
        toast("ok", msg`${taken.name} is served by ${taken.node}`);
        reload("vdisk:", "vdisks?", "targets?", "target:", "status");
      }}
    >
      <CheckField name="acceptLoss" checked={acceptLoss} onValue={setAcceptLoss}>
        {rich`Do without the writes that only ${vdisk.node} has; they do not come back`}
      </CheckField>
    </Confirm>
  );
}
