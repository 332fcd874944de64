import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Connection, VDisk } from "../api/gen";
import { bytes, KiB } from "../format";
import { navigate, query } from "../router";
import { reload } from "../store/query";
import { useVPoolChoices } from "../store/reads";
import { useSubmit, type Submit } from "../store/submit";
import { AccessField, initiatorNames, type Access } from "../parts/AccessField";
import { Button } from "../parts/Button";
import { ConnectPanel } from "../parts/ConnectPanel";
import { Dialog } from "../parts/Dialog";
import { CheckField, NameField, SelectField } from "../parts/Field";
import { LabelsField, parseLabels } from "../parts/LabelsField";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { FormError, Notice } from "../parts/Notice";
import { SizeField, sizeBytes, type SizeInput } from "../parts/SizeField";
import { msg, rich } from "../text";

/** What came of it: a vDisk, perhaps how to reach it, or why publishing did not work. */
type Made = { vdisk: VDisk; connection?: Connection };

/** Creates a vDisk, publishes it on request, and shows how to connect. */
export function CreateVDisk({ onClose }: { onClose: () => void }) {
  const [made, setMade] = useState<Made | undefined>(undefined);
  const vpools = useVPoolChoices();
  const publishing = useSubmit();
  if (made) {
    return <Result made={made} publishing={publishing} onClose={onClose} />;
  }
  return (
    <Dialog title={msg`Create vDisk`} onClose={onClose}>
      <Load query={vpools}>
        {(list) =>
          list.items.length === 0 ? (
            <Notice tone="info">
              <b>{msg`There is no vPool yet`}</b>
              <span>{msg`A vPool says where a vDisk's data is kept. Create one first.`}</span>
              <span class="row">
                <Link class="btn primary" to="/vpools/new">
                  {msg`Create vPool`}
                </Link>
              </span>
            </Notice>
          ) : (
            <Form vpools={list.items.map((p) => p.name)} publishing={publishing} onMade={setMade} onClose={onClose} />
          )
        }
      </Load>
    </Dialog>
  );
}

const clusterSizes = [4, 8, 16, 32, 64].map((n) => n * KiB);

type FormProps = { vpools: string[]; publishing: Submit; onMade: (made: Made) => void; onClose: () => void };

function Form({ vpools, publishing, onMade, onClose }: FormProps) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const [vpool, setVPool] = useState(query.value.get("vpool") ?? vpools[0] ?? "");
  const [size, setSize] = useState<SizeInput>({ amount: "100", unit: "GiB" });
  const [sizeError, setSizeError] = useState<string | undefined>(undefined);
  const [cluster, setCluster] = useState("");
  const [labels, setLabels] = useState("");
  const [publish, setPublish] = useState(true);
  const [access, setAccess] = useState<Access>({ open: true, names: "" });

  const create = async (key: string) => {
    const vdisk = await call("POST /vdisks", {
      key,
      body: {
        name: name.trim(),
        vpool,
        size: sizeBytes(size),
        ...(cluster ? { clusterSize: Number(cluster) } : {}),
        ...(labels.trim() ? { labels: parseLabels(labels) } : {}),
      },
    });
    reload("vdisks?", "vpools?", "status");
    let connection: Connection | undefined;
    if (publish) {
      await publishing.run(async () => {
        connection = await call("POST /vdisks/{vdisk}/publish", {
          path: { vdisk: vdisk.name },
          body: access.open ? { open: true } : { open: false, initiators: initiatorNames(access.names) },
        });
      });
    }
    onMade(connection ? { vdisk, connection } : { vdisk });
  };

  return (
    <form
      class="stack-wide"
      aria-label={msg`Create vDisk`}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        const valid = sizeBytes(size) > 0;
        setSizeError(valid ? undefined : msg`Enter a size above 0, such as 100`);
        if (valid) {
          void submit.run(create);
        }
      }}
    >
      <NameField value={name} onValue={setName} error={submit.at("name")} />
      <SelectField
        label={msg`vPool`}
        name="vpool"
        value={vpool}
        onValue={setVPool}
        options={vpools.map((p) => ({ value: p, text: p }))}
        error={submit.at("vpool")}
      />
      <SizeField
        label={msg`Size`}
        name="size"
        value={size}
        onValue={setSize}
        hint={msg`Space is taken as data is written. It can grow later, not shrink.`}
        error={sizeError ?? submit.at("size")}
      />
      <CheckField name="publish" checked={publish} onValue={setPublish}>
        {msg`Publish over iSCSI now`}
      </CheckField>
      {publish && <AccessField value={access} onValue={setAccess} />}
      <details class="more">
        <summary>{msg`More`}</summary>
        <div class="stack">
          <SelectField
            label={msg`Cluster size`}
            name="clusterSize"
            value={cluster}
            onValue={setCluster}
            hint={msg`The unit of mapping. Larger needs less memory, smaller suits databases.`}
            options={[
              { value: "", text: msg`As the vPool has it` },
              ...clusterSizes.map((n) => ({ value: String(n), text: bytes(n) })),
            ]}
            error={submit.at("clusterSize")}
          />
          <LabelsField value={labels} onValue={setLabels} error={submit.at("labels")} />
        </div>
      </details>
      <FormError submit={submit} fields={["name", "vpool", "size", "clusterSize", "labels"]} />
      <div class="dialog-foot">
        <Button onClick={onClose}>{msg`Cancel`}</Button>
        <Button type="submit" kind="primary" needs="write" busy={submit.busy}>
          {submit.busy ? msg`Creating…` : msg`Create`}
        </Button>
      </div>
    </form>
  );
}

function Result({ made, publishing, onClose }: { made: Made; publishing: Submit; onClose: () => void }) {
  const { vdisk, connection } = made;
  const page = `/vdisks/${encodeURIComponent(vdisk.name)}`;
  return (
    <Dialog title={msg`${vdisk.name} is ready`} onClose={onClose}>
      <p>
        {rich`A vDisk of ${bytes(vdisk.size)} on vPool ${vdisk.vpool}${connection ? msg`, published over iSCSI.` : msg`. It is not published yet.`}`}
      </p>
      {publishing.error && (
        <>
          <p>{msg`Publishing did not work; the vDisk is kept, publish it again from its page.`}</p>
          <FormError submit={publishing} fields={[]} />
        </>
      )}
      {connection && <ConnectPanel connection={connection} />}
      <div class="dialog-foot">
        <Button onClick={() => navigate(page)}>{rich`Open ${vdisk.name}`}</Button>
        <Button kind="primary" onClick={onClose}>
          {msg`Done`}
        </Button>
      </div>
    </Dialog>
  );
}
