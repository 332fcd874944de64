import { useBackendChoices } from "../store/reads";
import type { Backend } from "../api/gen";
import type { Submit } from "../store/submit";
import { SelectField, TextField } from "./Field";
import { msg } from "../text";

/** Where a vPool keeps its objects, as a form holds it. */
export type BackendForm = { where: string; path: string; preset: string };

export const alba = "alba";
const local = "local";
const store = "store:";

/** The request that a form stands for. */
export function backendOf(form: BackendForm): Backend {
  if (form.where === alba) {
    return { kind: "alba", path: "", preset: form.preset.trim(), store: "" };
  }
  const path = form.path.trim();
  if (form.where === local) {
    return { kind: "local", path, preset: "", store: "" };
  }
  const [kind, name] = form.where.slice(store.length).split("/") as ["s3" | "swift", string];
  return { kind, path, preset: "", store: name };
}

/** Fields of a request that the parts below show the errors of. */
export const backendErrors = ["path", "preset", "backend", "store", "kind"];

const hints: Record<string, string> = {
  [alba]: msg`Erasure-coded over the node's devices: survives the loss of disks as its preset says.`,
  [local]: msg`Objects are files; nothing is kept twice.`,
};

type Props = { form: BackendForm; onForm: (form: BackendForm) => void; submit: Submit; recover?: boolean };

/** Chooses a backend: the node's object store, a directory, or a registered store. */
export function BackendField({ form, onForm, submit, recover }: Props) {
  const stores = useBackendChoices();
  const place = submit.at("path") ?? submit.at("backend");
  return (
    <>
      <SelectField
        label={msg`Backend`}
        name="kind"
        value={form.where}
        onValue={(where) => onForm({ ...form, where })}
        hint={hints[form.where] ?? msg`Objects are kept at a store that is registered with this node.`}
        error={submit.at("store") ?? submit.at("kind")}
        options={[
          { value: alba, text: msg`Object store of the node` },
          { value: local, text: msg`Directory of the node` },
          ...(stores.data?.items ?? []).map((b) => ({
            value: `${store}${b.kind}/${b.name}`,
            text: `${b.name} (${b.kind === "s3" ? "S3" : msg`Swift`}, ${b.options.container})`,
          })),
        ]}
      />
      {form.where === alba ? (
        !recover && (
          <TextField
            label={msg`Preset`}
            name="preset"
            value={form.preset}
            onValue={(preset) => onForm({ ...form, preset })}
            hint={msg`How objects are stored. Empty: the default preset, which follows the devices that there are.`}
            error={submit.at("preset") ?? place}
            input={{ placeholder: "default" }}
          />
        )
      ) : form.where === local ? (
        <TextField
          label={msg`Directory on the node`}
          name="path"
          value={form.path}
          onValue={(path) => onForm({ ...form, path })}
          hint={
            recover
              ? msg`The directory the vPool was created on.`
              : msg`An absolute path, created when missing, best on a disk of its own. Empty: a place in the node's data directory.`
          }
          error={place}
          input={{ placeholder: "/srv/ovgate/default" }}
        />
      ) : (
        <TextField
          label={msg`Prefix`}
          name="path"
          value={form.path}
          onValue={(path) => onForm({ ...form, path })}
          hint={msg`What the names of its objects begin with. Empty: the vPool's name.`}
          error={place}
        />
      )}
    </>
  );
}
