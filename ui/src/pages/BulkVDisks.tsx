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
import { msg, noun, rich } from "../text";

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
    { title: msg`Settings`, items: [item(msg`Limits`, "limits"), item(msg`Labels`, "labels")] },
    { title: msg`Place`, items: [item(msg`Change node`, "node"), item(msg`Change vPool`, "vpool"), item(msg`Journal copy`, "journal")] },
    { title: msg`Content`, items: [item(msg`Scrub`, "scrub")] },
    { items: [item(msg`Unpublish`, "unpublish", true)] },
  ];
  const busy = chosen.current.filter((v) => (v.published?.sessions ?? 0) > 0);
  return (
    <>
      {vdisks.length > 0 && (
        <>
          <Button small needs="write" onClick={start("publish")}>
            {msg`Publish`}
          </Button>
          <Menu small groups={groups} label={msg`More for those chosen`} />
          <Button small kind="danger" needs="write" onClick={start("delete")}>
            {rich`Delete ${vdisks.length}`}
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
          title={msg`Scrub ${plural(chosen.current.length, noun`vDisk`)}`}
          verb={msg`Scrub`}
          begins
          vdisks={chosen.current}
          act={(v) => call("POST /vdisks/{vdisk}/scrub", { path: { vdisk: v.id }, body: {} })}
          onClose={close}
        >
          <p>{rich`Gives back the space of what was overwritten, discarded, or held by deleted snapshots, of ${names(chosen.current)}. Hosts go on.`}</p>
        </Bulk>
      )}
      {open === "publish" && <PublishAll vdisks={chosen.current} onClose={close} />}
      {open === "unpublish" && (
        <Bulk
          title={msg`Unpublish ${plural(chosen.current.length, noun`vDisk`)}`}
          verb={msg`Unpublish`}
          danger
          typed={busy.length > 0 ? msg`unpublish ${chosen.current.length}` : undefined}
          vdisks={chosen.current}
          act={(v) => call("POST /vdisks/{vdisk}/unpublish", { path: { vdisk: v.id }, body: { force: (v.published?.sessions ?? 0) > 0 } })}
          onClose={close}
        >
          <Sessions busy={busy} />
        </Bulk>
      )}
      {open === "delete" && (
        <Bulk
          title={msg`Delete ${plural(chosen.current.length, noun`vDisk`)}`}
          verb={msg`Delete`}
          danger
          typed={msg`delete ${chosen.current.length}`}
          vdisks={chosen.current}
          act={(v) => call("DELETE /vdisks/{vdisk}", { path: { vdisk: v.id } })}
          onClose={close}
        >
          <p>{msg`They stay in the trash for as long as their vPools say. Those that are published are refused.`}</p>
        </Bulk>
      )}
    </>
  );
}

/** Who is thrown out. */
function Sessions({ busy }: { busy: VDisk[] }) {
  return busy.length > 0 ? (
    <p>
      {rich`Hosts lose their disks: ${plural(busy.reduce((n, v) => n + (v.published?.sessions ?? 0), 0), noun`session`)} at ${names(busy)}.`}
    </p>
  ) : (
    <p>{msg`No host is signed in to them.`}</p>
  );
}

/** Names that a sentence lists. */
const namesMax = 10;

function names(vdisks: VDisk[]): string {
  const more = vdisks.length - namesMax;
  return vdisks.slice(0, namesMax).map((v) => v.name).join(", ") + (more > 0 ? msg` and ${more} more` : "");
}

type DialogProps = { vdisks: VDisk[]; onClose: (failed: ReadonlySet<string> | undefined) => void };

function LimitsOf({ vdisks, onClose }: DialogProps) {
  const [limits, setLimits] = useState(limitText(null));
  const body = limitsOf(limits);
  return (
    <Bulk
      title={msg`Limits of ${plural(vdisks.length, noun`vDisk`)}`}
      verb={msg`Set limits`}
      reason={body ? undefined : msg`Correct the numbers first`}
      vdisks={vdisks}
      act={(v) => call("PUT /vdisks/{vdisk}/qos", { path: { vdisk: v.id }, body })}
      onClose={onClose}
    >
      <p>{rich`Each of them gets these: ${names(vdisks)}.`}</p>
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
      title={msg`Labels of ${plural(vdisks.length, noun`vDisk`)}`}
      verb={msg`Set labels`}
      reason={nothing ? msg`Say first which labels are set or removed` : undefined}
      vdisks={vdisks}
      act={async (v) => {
        const kept = (now: Labels) => Object.fromEntries(Object.entries(now).filter(([name]) => !removed.includes(name)));
        before.current.set(v.id, await changeLabels(v.id, (now) => ({ ...kept(now), ...added })));
      }}
      onClose={(failed) => {
        onClose(failed);
        if (before.current.size > 0) {
          undoLabels(msg`Labels of ${plural(before.current.size, noun`vDisk`)} set`, before.current, new Set([...Object.keys(added), ...removed]));
        }
      }}
    >
      <p>{rich`Other labels of ${names(vdisks)} stay.`}</p>
      <LabelsField value={set} onValue={setSet} />
      <TextField label={msg`Remove`} name="gone" value={gone} onValue={setGone} hint={msg`Names of labels, with blanks between.`} />
    </Bulk>
  );
}

function ToNode({ vdisks, onClose }: DialogProps) {
  const nodes = useNodes();
  const [node, setNode] = useState("");
  const others = nodes.data?.items.filter((n) => n.state === "up" && !n.draining && vdisks.some((v) => v.node !== n.name)) ?? [];
  return (
    <Bulk
      title={msg`Change the node of ${plural(vdisks.length, noun`vDisk`)}`}
      verb={msg`Hand over`}
      begins
      reason={node ? undefined : msg`Choose a node first`}
      vdisks={vdisks}
      act={async (v) => {
        if (v.node !== node) {
          await call("POST /vdisks/{vdisk}/handover", { path: { vdisk: v.id }, body: { node } });
        }
      }}
      onClose={onClose}
    >
      <p>{rich`${names(vdisks)}: each pauses for less than a second, and hosts need a path there. Those that are there stay.`}</p>
      <SelectField
        label={msg`Node`}
        name="node"
        value={node}
        onValue={setNode}
        hint={nodes.data && others.length === 0 ? msg`There is no other node that is up.` : undefined}
        options={[{ value: "", text: msg`Choose a node` }, ...others.map((n) => ({ value: n.name, text: msg`${n.name}, ${n.vdisks} vDisks` }))]}
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
      title={msg`Move ${plural(vdisks.length, noun`vDisk`)} to another vPool`}
      verb={msg`Move`}
      begins
      reason={vpool ? undefined : msg`Choose a vPool first`}
      vdisks={vdisks}
      act={async (v) => {
        if (v.vpool !== vpool) {
          await call("POST /vdisks/{vdisk}/move", { path: { vdisk: v.id }, body: { vpool } });
        }
      }}
      onClose={onClose}
    >
      <p>
        {rich`${names(vdisks)}, ${bytes(vdisks.reduce((sum, v) => sum + v.stored, 0))} in all, with their snapshots. They are copied in the background; sessions of hosts stay, and wait for some moments at the end. Clones, and what has clones, are refused.`}
      </p>
      <SelectField
        label={msg`vPool`}
        name="vpool"
        value={vpool}
        onValue={setVPool}
        hint={vpools.data && others.length === 0 ? msg`There is no other vPool.` : undefined}
        options={[{ value: "", text: msg`Choose a vPool` }, ...others.map((p) => ({ value: p.name, text: p.name }))]}
      />
    </Bulk>
  );
}

/** Whether another node keeps copies of their journals; which one, is found for each. */
function JournalCopies({ vdisks, onClose }: DialogProps) {
  const [mode, setMode] = useState<NonNullable<VDiskDtlInput["mode"]>>("inherit");
  return (
    <Bulk
      title={msg`Copies of the journals of ${plural(vdisks.length, noun`vDisk`)}`}
      verb={msg`Save`}
      vdisks={vdisks}
      act={(v) => call("PUT /vdisks/{vdisk}/dtl", { path: { vdisk: v.id }, body: { mode, peer: v.dtl.peer || "auto" } })}
      onClose={onClose}
    >
      <p>{rich`Of ${names(vdisks)}. Takes effect at once; hosts go on. Which node has a copy stays as it was said for each.`}</p>
      <SelectField label={msg`Copy`} name="mode" value={mode} onValue={(m) => setMode(m as typeof mode)} options={copyModes} />
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
      title={msg`Publish ${plural(vdisks.length, noun`vDisk`)} over iSCSI`}
      verb={msg`Publish`}
      vdisks={vdisks}
      act={(v) => call("POST /vdisks/{vdisk}/publish", { path: { vdisk: v.id }, body: target ? { target } : own })}
      onClose={onClose}
    >
      <SelectField
        label={msg`Target`}
        name="target"
        value={target}
        onValue={setTarget}
        options={[{ value: "", text: msg`A target for each` }, ...shared.map((t) => ({ value: t.iqn, text: msg`Shared target ${t.name}` }))]}
        hint={msg`How to connect is on the page of each vDisk.`}
      />
      {target ? <p class="muted">{msg`The groups of the shared target say who may connect.`}</p> : <AccessField value={access} onValue={setAccess} />}
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

const waits: Result = { tone: "idle", word: msg`Waits` };

/** Asks, does it for one after the other, and says of each how it went. */
function Bulk({ title, verb, danger, begins, typed, reason, vdisks, act, onClose, children }: BulkProps) {
  const [results, setResults] = useState<ReadonlyMap<string, Result> | undefined>(undefined);
  const [ended, setEnded] = useState(false);
  const [confirm, setConfirm] = useState("");
  const stopped = useRef(false);
  const set = (v: VDisk, r: Result) => setResults((old) => new Map(old).set(v.id, r));
  const one = async (v: VDisk) => {
    set(v, { tone: "info", word: msg`Under way` });
    try {
      await whilePending(v.id, () => act(v));
      set(v, { tone: "ok", word: begins ? msg`Begun` : msg`Done` });
    } catch (error) {
      const failure = asApiError(error);
      set(v, { tone: "bad", word: failure.outcomeUnknown ? msg`Outcome unknown` : msg`Refused`, text: [failure.message, failure.hint].filter(Boolean).join(". ") });
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
        <p role="status">{msg`${done} of ${vdisks.length} ${begins ? msg`begun` : msg`done`}${ended ? "." : msg` so far.`}`}</p>
        <ul class="stack bulk" tabIndex={0} aria-label={msg`Results`}>
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
            {rich`How far they are is shown by the ${<Link to="/tasks">{msg`tasks`}</Link>}.`}
          </p>
        )}
        <div class="dialog-foot">
          {!ended && (
            <Button
              onClick={() => {
                stopped.current = true;
              }}
            >
              {msg`Stop`}
            </Button>
          )}
          <Button kind="primary" reason={ended ? undefined : msg`It is under way`} onClick={close}>
            {left.length > 0 && ended ? msg`Close, and keep those chosen` : msg`Done`}
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
            label={msg`Type ${typed} to confirm`}
            name="confirm"
            value={confirm}
            onValue={setConfirm}
            hint={names(vdisks)}
            input={{ autofocus: true }}
          />
        )}
        <div class="dialog-foot">
          <Button onClick={() => onClose(undefined)}>{msg`Cancel`}</Button>
          <Button
            type="submit"
            kind={danger ? "danger primary" : "primary"}
            needs="write"
            reason={reason ?? (missing ? msg`Type ${typed} first` : undefined)}
          >
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
