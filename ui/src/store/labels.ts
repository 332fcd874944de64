// Labels of vDisks, which can be taken back for a moment after they were changed.
import { call } from "../api/client";
import { asApiError, reload } from "./query";
import { toast, undoable } from "./toasts";
import { msg } from "../text";

export type Labels = Record<string, string>;

/** Replaces the labels of a vDisk by what change makes of its present ones, which are returned: those of a list may be some moments old. */
export async function changeLabels(id: string, change: (now: Labels) => Labels): Promise<Labels> {
  const { labels } = await call("GET /vdisks/{vdisk}", { path: { vdisk: id } });
  await call("PATCH /vdisks/{vdisk}", { path: { vdisk: id }, body: { labels: change(labels) } });
  return labels;
}

/** The labels with these names, or without them. */
function part(labels: Labels, names: ReadonlySet<string>, inside: boolean): Labels {
  return Object.fromEntries(Object.entries(labels).filter(([name]) => names.has(name) === inside));
}

/** Says what was done, and lets it be undone: labels with these names become as they were, by the id of the vDisk; others stay. */
export function undoLabels(text: string, before: ReadonlyMap<string, Labels>, names: ReadonlySet<string>): void {
  const undo = async () => {
    let failed = false;
    for (const [id, was] of before) {
      try {
        await changeLabels(id, (now) => ({ ...part(now, names, false), ...part(was, names, true) }));
      } catch (error) {
        failed = true;
        toast("bad", asApiError(error).message);
      }
    }
    if (!failed) {
      toast("ok", msg`The labels are as they were`);
    }
    reload("vdisk:", "vdisks?");
  };
  undoable(text, { undo: () => void undo(), done: () => {} });
}
