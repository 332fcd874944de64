import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk, VDiskDtlInput } from "../api/gen";
import { bytes, plural } from "../format";
import { changeLabels, undoLabels, type Labels } from "../store/labels";
import { whilePending } from "../store/pending";
import { asApiError, reload } from "../store/query";
import { useNodes, useTargets, useVPoolChoices } from "../store/reads";
import { AccessField, initiatorNames, type Access } from "../parts/AccessField";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { LabelsField, parseLabels } from "../parts/LabelsField";
import { LimitFields, limitsOf, limitText } from "../parts/LimitFields";
import { Link } from "../parts/Link";
import { Menu, type MenuGroup, type MenuItem } from "../parts/Menu";
import { Tag, type Tone } from "../parts/StateTag";
import { copyModes } from "./VDiskNode";

/** Requests at a time: the node has others to serve. */
const atOnce = 4;

type Props = {
  vdisks: VDisk[];
  /** Chooses the vDisks with these ids, and no others. */
  choose: (ids: ReadonlySet<string>) => void;
};

type Action = "limits" | "labels" | "publish" | "node" | "vpool" | "journal" | "scrub" | "unpublish" | "delete";

/** What can be done with several vDisks: each is tried, and told of by itself. */
export function BulkActions({ vdisks, choose }: Props) {
  const [open, setOpen] = useState<Action | undefined>(undefined);
  // The rows leave the list while they are worked on.
  const chosen = useRef(vdisks);
  const start = (what: Action) => () => {
    chosen.current = vdisks;
    setOpen(what);
  };
  const close = (failed: ReadonlySet<string> | undefined) => {
    setOpen(undefined);
    if (failed) {
      choose(failed);
    }
  };
  const item = (text: string, what: Action, danger?: boolean): MenuItem => ({ text, needs: "write", danger, act: start(what) });
  const groups: MenuGroup[] = [
    { title: "Settings", items: [item("Limits", "limits"), item("Labels", "labels")] },
    { title: "Place", items: [item("Change node", "node"), item("Change vPool", "vpool"), item("Journal copy", "journal")] },
    { title: "Content", items: [item("Scrub", "scrub")] },
    { items: [item("Unpublish", "unpublish", true)] },
  ];
  const busy = chosen.current.filter((v) => (v.published?.sessions ?? 0) > 0);
  return (
    <>
      {vdisks.length > 0 && (
        <>
          <Button small needs="write" onClick={start("publish")}>
            Publish
          </Button>
          <Menu small groups={groups} label="More for those chosen" />
          <Button small kind="danger" needs="write" onClick={start("delete")}>
            Delete {vdisks.length}
          </Button>
        </>
      )}
      {open === "limits" && <LimitsOf vdisks={chosen.current} onClose={close} />}
      {open === "labels" && <LabelsOf vdisks={chosen.current} onClose={close} />}
      {open === "node" && <ToNode vdisks={chosen.current} onClose={close} />}
      {open === "vpool" && <ToVPool vdisks={chosen.current} onClose={close} />}
      {open === "journal" && <JournalCopies vdisks={chosen.current} onClose={close} />}
      {open === "scrub" && (
        <Bulk
          title={`Scrub ${plural(chosen.current.length, "vDisk")}`}
          verb="Scrub"
          begins
          vdisks={chosen.current}
          act={(v) => call("POST /vdisks/{vdisk}/scrub", { path: { vdisk: v.id }, body: {} })}
          onClose={close}
        >
          <p>Gives back the space of what was overwritten, discarded, or held by deleted snapshots, of {names(chosen.current)}. Hosts go on.</p>
        </Bulk>
      )}
      {open === "publish" && <PublishAll vdisks={chosen.current} onClose={close} />}
      {open === "unpublish" && (
        <Bulk
          title={`Unpublish ${plural(chosen.current.length, "vDisk")}`}
          verb="Unpublish"
          danger
          typed={busy.length > 0 ? `unpublish ${chosen.current.length}` : undefined}
          vdisks={chosen.current}
          act={(v) => call("POST /vdisks/{vdisk}/unpublish", { path: { vdisk: v.id }, body: { force: (v.published?.sessions ?? 0) > 0 } })}
          onClose={close}
        >
          <Sessions busy={busy} />
        </Bulk>
      )}
      {open === "delete" && (
        <Bulk
          title={`Delete ${plural(chosen.current.length, "vDisk")}`}
          verb="Delete"
          danger
          typed={`delete ${chosen.current.length}`}
          vdisks={chosen.current}
          act={(v) => call("DELETE /vdisks/{vdisk}", { path: { vdisk: v.id } })}
          onClose={close}
        >
          <p>They stay in the trash for as long as their vPools say. Those that are published are refused.</p>
        </Bulk>
      )}
    </>
  );
}

/** Who is thrown out. */
function Sessions({ busy }: { busy: VDisk[] }) {
  return busy.length > 0 ? (
    <p>
      Hosts lose their disks: {plural(busy.reduce((n, v) => n + (v.published?.sessions ?? 0), 0), "session")} at {names(busy)}.
    </p>
  ) : (
    <p>No host is signed in to them.</p>
  );
}

/** Names that a sentence lists. */
const namesMax = 10;

function names(vdisks: VDisk[]): string {
  const more = vdisks.length - namesMax;
  return vdisks.slice(0, namesMax).map((v) => v.name).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

type DialogProps = { vdisks: VDisk[]; onClose: (failed: ReadonlySet<string> | undefined) => void };

function LimitsOf({ vdisks, onClose }: DialogProps) {
  const [limits, setLimits] = useState(limitText(null));
  const body = limitsOf(limits);
  return (
    <Bulk
      title={`Limits of ${plural(vdisks.length, "vDisk")}`}
      verb="Set limits"
      reason={body ? undefined : "Correct the numbers first"}
      vdisks={vdisks}
      act={(v) => call("PUT /vdisks/{vdisk}/qos", { path: { vdisk: v.id }, body })}
      onClose={onClose}
    >
      <p>Each of them gets these: {names(vdisks)}.</p>
      <LimitFields value={limits} onValue={setLimits} at={() => undefined} />
    </Bulk>
  );
}

/** Labels that all of them get, and that none of them keeps; the others stay. */
function LabelsOf({ vdisks, onClose }: DialogProps) {
  const [set, setSet] = useState("");
  const [gone, setGone] = useState("");
  const before = useRef(new Map<string, Labels>());
  const added = parseLabels(set);
  const removed = gone.split(/[\s,]+/).filter(Boolean);
  const nothing = Object.keys(added).length === 0 && removed.length === 0;
  return (
    <Bulk
      title={`Labels of ${plural(vdisks.length, "vDisk")}`}
      verb="Set labels"
      reason={nothing ? "Say first which labels are set or removed" : undefined}
      vdisks={vdisks}
      act={async (v) => {
        const kept = (now: Labels) => Object.fromEntries(Object.entries(now).filter(([name]) => !removed.includes(name)));
        before.current.set(v.id, await changeLabels(v.id, (now) => ({ ...kept(now), ...added })));
      }}
      onClose={(failed) => {
        onClose(failed);
        if (before.current.size > 0) {
          undoLabels(`Labels of ${plural(before.current.size, "vDisk")} set`, before.current, new Set([...Object.keys(added), ...removed]));
        }
      }}
    >
      <p>Other labels of {names(vdisks)} stay.</p>
      <LabelsField value={set} onValue={setSet} />
      <TextField label="Remove" name="gone" value={gone} onValue={setGone} hint="Names of labels, with blanks between." />
    </Bulk>
  );
}

function ToNode({ vdisks, onClose }: DialogProps) {
  const nodes = useNodes();
  const [node, setNode] = useState("");
  const others = nodes.data?.items.filter((n) => n.state === "up" && !n.draining && vdisks.some((v) => v.node !== n.name)) ?? [];
  return (
    <Bulk
      title={`Change the node of ${plural(vdisks.length, "vDisk")}`}
      verb="Hand over"
      begins
      reason={node ? undefined : "Choose a node first"}
      vdisks={vdisks}
      act={async (v) => {
        if (v.node !== node) {
          await call("POST /vdisks/{vdisk}/handover", { path: { vdisk: v.id }, body: { node } });
        }
      }}
      onClose={onClose}
    >
      <p>{names(vdisks)}: each pauses for less than a second, and hosts need a path there. Those that are there stay.</p>
      <SelectField
        label="Node"
        name="node"
        value={node}
        onValue={setNode}
        hint={nodes.data && others.length === 0 ? "There is no other node that is up." : undefined}
        options={[{ value: "", text: "Choose a node" }, ...others.map((n) => ({ value: n.name, text: `${n.name}, ${n.vdisks} vDisks` }))]}
      />
    </Bulk>
  );
}

function ToVPool({ vdisks, onClose }: DialogProps) {
  const vpools = useVPoolChoices();
  const [vpool, setVPool] = useState("");
  const others = vpools.data?.items.filter((p) => vdisks.some((v) => v.vpool !== p.name)) ?? [];
  return (
    <Bulk
      title={`Move ${plural(vdisks.length, "vDisk")} to another vPool`}
      verb="Move"
      begins
      reason={vpool ? undefined : "Choose a vPool first"}
      vdisks={vdisks}
      act={async (v) => {
        if (v.vpool !== vpool) {
          await call("POST /vdisks/{vdisk}/move", { path: { vdisk: v.id }, body: { vpool } });
        }
      }}
      onClose={onClose}
    >
      <p>
        {names(vdisks)}, {bytes(vdisks.reduce((sum, v) => sum + v.stored, 0))} in all, with their snapshots. They are copied in the
        background; sessions of hosts stay, and wait for some moments at the end. Clones, and what has clones, are refused.
      </p>
      <SelectField
        label="vPool"
        name="vpool"
        value={vpool}
        onValue={setVPool}
        hint={vpools.data && others.length === 0 ? "There is no other vPool." : undefined}
        options={[{ value: "", text: "Choose a vPool" }, ...others.map((p) => ({ value: p.name, text: p.name }))]}
      />
    </Bulk>
  );
}

/** Whether another node keeps copies of their journals; which one, is found for each. */
function JournalCopies({ vdisks, onClose }: DialogProps) {
  const [mode, setMode] = useState<NonNullable<VDiskDtlInput["mode"]>>("inherit");
  return (
    <Bulk
      title={`Copies of the journals of ${plural(vdisks.length, "vDisk")}`}
      verb="Save"
      vdisks={vdisks}
      act={(v) => call("PUT /vdisks/{vdisk}/dtl", { path: { vdisk: v.id }, body: { mode, peer: v.dtl.peer || "auto" } })}
      onClose={onClose}
    >
      <p>Of {names(vdisks)}. Takes effect at once; hosts go on. Which node has a copy stays as it was said for each.</p>
      <SelectField label="Copy" name="mode" value={mode} onValue={(m) => setMode(m as typeof mode)} options={copyModes} />
    </Bulk>
  );
}

function PublishAll({ vdisks, onClose }: DialogProps) {
  const [access, setAccess] = useState<Access>({ open: true, names: "" });
  const [target, setTarget] = useState("");
  const shared = useTargets().data?.items.filter((t) => t.shared) ?? [];
  const own = access.open ? { open: true } : { open: false, initiators: initiatorNames(access.names) };
  return (
    <Bulk
      title={`Publish ${plural(vdisks.length, "vDisk")} over iSCSI`}
      verb="Publish"
      vdisks={vdisks}
      act={(v) => call("POST /vdisks/{vdisk}/publish", { path: { vdisk: v.id }, body: target ? { target } : own })}
      onClose={onClose}
    >
      <SelectField
        label="Target"
        name="target"
        value={target}
        onValue={setTarget}
        options={[{ value: "", text: "A target for each" }, ...shared.map((t) => ({ value: t.iqn, text: `Shared target ${t.name}` }))]}
        hint="How to connect is on the page of each vDisk."
      />
      {target ? <p class="muted">The groups of the shared target say who may connect.</p> : <AccessField value={access} onValue={setAccess} />}
    </Bulk>
  );
}

type BulkProps = DialogProps & {
  title: string;
  verb: string;
  danger?: boolean;
  /** Each only begins, and goes on as a task. */
  begins?: boolean;
  /** What has to be typed first. */
  typed?: string | undefined;
  /** Why it cannot begin now. */
  reason?: string | undefined;
  act: (v: VDisk) => Promise<unknown>;
  children: ComponentChildren;
};

type Result = { tone: Tone; word: string; text?: string };

const waits: Result = { tone: "idle", word: "Waits" };

/** Asks, does it for one after the other, and says of each how it went. */
function Bulk({ title, verb, danger, begins, typed, reason, vdisks, act, onClose, children }: BulkProps) {
  const [results, setResults] = useState<ReadonlyMap<string, Result> | undefined>(undefined);
  const [ended, setEnded] = useState(false);
  const [confirm, setConfirm] = useState("");
  const stopped = useRef(false);
  const set = (v: VDisk, r: Result) => setResults((old) => new Map(old).set(v.id, r));
  const one = async (v: VDisk) => {
    set(v, { tone: "info", word: "Under way" });
    try {
      await whilePending(v.id, () => act(v));
      set(v, { tone: "ok", word: begins ? "Begun" : "Done" });
    } catch (error) {
      const failure = asApiError(error);
      set(v, { tone: "bad", word: failure.outcomeUnknown ? "Outcome unknown" : "Refused", text: [failure.message, failure.hint].filter(Boolean).join(". ") });
    }
  };
  const run = async () => {
    setResults(new Map());
    const queue = [...vdisks];
    const worker = async () => {
      for (let v = queue.shift(); v && !stopped.current; v = queue.shift()) {
        await one(v);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    setEnded(true);
    reload("vdisks?", "vdisk:", "targets?", "target:", "trash?", "nodes?", "vpools?", "jobs?", "scrub:", "status");
  };
  const left = vdisks.filter((v) => (results?.get(v.id) ?? waits).tone !== "ok");
  const close = () => {
    // What is under way goes on, what waits is left.
    stopped.current = true;
    onClose(results && new Set(left.map((v) => v.id)));
  };
  if (results) {
    const done = vdisks.length - left.length;
    return (
      <Dialog title={title} onClose={close}>
        <p role="status">{`${done} of ${vdisks.length} ${begins ? "begun" : "done"}${ended ? "." : " so far."}`}</p>
        <ul class="stack bulk" tabIndex={0} aria-label="Results">
          {vdisks.map((v) => {
            const r = results.get(v.id) ?? waits;
            return (
              <li key={v.id}>
                <Tag {...r} /> <b>{v.name}</b>
                {r.text && <div class="muted">{r.text}</div>}
              </li>
            );
          })}
        </ul>
        {begins && ended && done > 0 && (
          <p>
            How far they are is shown by the <Link to="/tasks">tasks</Link>.
          </p>
        )}
        <div class="dialog-foot">
          {!ended && (
            <Button
              onClick={() => {
                stopped.current = true;
              }}
            >
              Stop
            </Button>
          )}
          <Button kind="primary" reason={ended ? undefined : "It is under way"} onClick={close}>
            {left.length > 0 && ended ? "Close, and keep those chosen" : "Done"}
          </Button>
        </div>
      </Dialog>
    );
  }
  const missing = typed !== undefined && confirm !== typed;
  return (
    <Dialog title={title} onClose={() => onClose(undefined)}>
      <form
        class="stack-wide"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (!missing && !reason) {
            void run();
          }
        }}
      >
        {children}
        {typed && (
          <TextField
            label={`Type ${typed} to confirm`}
            name="confirm"
            value={confirm}
            onValue={setConfirm}
            hint={names(vdisks)}
            input={{ autofocus: true }}
          />
        )}
        <div class="dialog-foot">
          <Button onClick={() => onClose(undefined)}>Cancel</Button>
          <Button
            type="submit"
            kind={danger ? "danger primary" : "primary"}
            needs="write"
            reason={reason ?? (missing ? `Type ${typed} first` : undefined)}
          >
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
