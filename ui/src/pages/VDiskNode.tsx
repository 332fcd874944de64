import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk, VDiskDtl } from "../api/gen";
import { bytes } from "../format";
import { reload } from "../store/query";
import { useNodes } from "../store/reads";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { SelectField } from "../parts/Field";
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
