import { badField } from "../api/client";
import type { OSDInput } from "../api/gen";
import type { Submit } from "../store/submit";
import { SelectField, TextField } from "./Field";
import { SizeField, sizeBytes, type SizeInput } from "./SizeField";
import { msg } from "../text";

/** A new device as a form holds it. */
export type DeviceForm = {
  kind: "directory" | "asd";
  directory: string;
  capacity: SizeInput;
  address: string;
  fingerprint: string;
  accessKey: string;
  node: string;
  domain: string;
};

export const emptyDevice: DeviceForm = {
  kind: "directory",
  directory: "",
  capacity: { amount: "", unit: "GiB" },
  address: "",
  fingerprint: "",
  accessKey: "",
  node: "",
  domain: "",
};

/** The request that a form stands for. */
export function deviceOf(f: DeviceForm): OSDInput {
  if (f.kind === "directory") {
    const capacity = f.capacity.amount.trim() ? sizeBytes(f.capacity) : undefined;
    if (Number.isNaN(capacity)) {
      throw badField("capacity", msg`Enter a size above 0, such as 100, or nothing`);
    }
    return { directory: f.directory.trim(), capacity };
  }
  return {
    address: f.address.trim(),
    fingerprint: f.fingerprint.trim(),
    accessKey: f.accessKey.trim(),
    node: f.node.trim() || undefined,
    domain: f.domain.trim() || undefined,
  };
}

/** Fields of a request that the part below shows the errors of. */
export const deviceErrors = ["directory", "capacity", "address", "fingerprint", "accessKey", "node", "domain"];

type Props = { form: DeviceForm; onForm: (form: DeviceForm) => void; submit: Submit };

/** Names a device: a directory of the node, or an ASD. */
export function DeviceField({ form, onForm, submit }: Props) {
  const text = (name: "directory" | "address" | "fingerprint" | "accessKey" | "node" | "domain") => ({
    name,
    value: form[name],
    onValue: (value: string) => onForm({ ...form, [name]: value }),
    error: submit.at(name),
  });
  return (
    <>
      <SelectField
        label={msg`Device`}
        name="kind"
        value={form.kind}
        onValue={(kind) => onForm({ ...form, kind: kind as DeviceForm["kind"] })}
        hint={
          form.kind === "asd"
            ? msg`A program that serves a whole disk, on this machine or another: ovgate asd. It prints its address, fingerprint and the file of its key when it starts.`
            : msg`Best the mount point of a disk of its own: two devices on one disk are lost together.`
        }
        options={[
          { value: "directory", text: msg`Directory of this node` },
          { value: "asd", text: msg`ASD (a disk that is served)` },
        ]}
      />
      {form.kind === "directory" ? (
        <>
          <TextField
            {...text("directory")}
            label={msg`Directory on the node`}
            hint={msg`From the root; empty, or made when it is missing.`}
            input={{ placeholder: "/mnt/disk7/ovgate" }}
          />
          <SizeField
            label={msg`Most that it may take`}
            name="capacity"
            value={form.capacity}
            onValue={(capacity) => onForm({ ...form, capacity })}
            hint={msg`Empty: all that its file system has.`}
            error={submit.at("capacity")}
          />
        </>
      ) : (
        <>
          <TextField {...text("address")} label={msg`Address`} input={{ placeholder: "192.0.2.10:8500" }} />
          <TextField {...text("fingerprint")} label={msg`Fingerprint of its certificate`} />
          <TextField
            {...text("accessKey")}
            label={msg`Access key`}
            hint={msg`64 hexadecimal digits, the content of its key file.`}
            input={{ type: "password" }}
          />
          <TextField
            {...text("node")}
            label={msg`Machine`}
            hint={msg`The name of a node, when it is one of the cluster's. Empty: its address counts as a machine.`}
          />
          <TextField
            {...text("domain")}
            label={msg`Domain`}
            hint={msg`What fails together with that machine, such as its rack. Of a node of the cluster its own configuration says it.`}
            input={{ placeholder: "rack-3" }}
          />
        </>
      )}
    </>
  );
}
