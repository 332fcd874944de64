import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import type { VDisk } from "../api/gen";
import { plural } from "../format";
import { asApiError, reload } from "../store/query";
import { useTargets } from "../store/reads";
import { AccessField, initiatorNames, type Access } from "../parts/AccessField";
import { Button } from "../parts/Button";
import { Dialog } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { LimitFields, limitsOf, limitText } from "../parts/LimitFields";
import { Tag, type Tone } from "../parts/StateTag";

/** Requests at a time: the node has others to serve. */
const atOnce = 4;

type Props = {
  vdisks: VDisk[];
  /** Chooses the vDisks with these ids, and no others. */
  choose: (ids: ReadonlySet<string>) => void;
};

/** What can be done with several vDisks: each is tried, and told of by itself. */
export function BulkActions({ vdisks, choose }: Props) {
  const [open, setOpen] = useState<"limits" | "publish" | "unpublish" | "delete" | undefined>(undefined);
  // The rows leave the list while they are worked on.
  const chosen = useRef(vdisks);
  const start = (what: NonNullable<typeof open>) => () => {
    chosen.current = vdisks;
    setOpen(what);
  };
  const close = (failed: ReadonlySet<string> | undefined) => {
    setOpen(undefined);
    if (failed) {
      choose(failed);
    }
  };
  return (
    <>
      {vdisks.length > 0 && (
        <>
          <Button small needs="write" onClick={start("limits")}>
            Limits
          </Button>
          <Button small needs="write" onClick={start("publish")}>
            Publish
          </Button>
          <Button small needs="write" onClick={start("unpublish")}>
            Unpublish
          </Button>
          <Button small kind="danger" needs="write" onClick={start("delete")}>
            Delete {vdisks.length}
          </Button>
        </>
      )}
      {open === "limits" && <LimitsOf vdisks={chosen.current} onClose={close} />}
      {open === "publish" && <PublishAll vdisks={chosen.current} onClose={close} />}
      {open === "unpublish" && (
        <Bulk
          title={`Unpublish ${plural(chosen.current.length, "vDisk")}`}
          verb="Unpublish"
          danger
          vdisks={chosen.current}
          act={(v) => call("POST /vdisks/{vdisk}/unpublish", { path: { vdisk: v.id }, body: { force: (v.published?.sessions ?? 0) > 0 } })}
          onClose={close}
        >
          <Sessions vdisks={chosen.current} />
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
function Sessions({ vdisks }: { vdisks: VDisk[] }) {
  const busy = vdisks.filter((v) => (v.published?.sessions ?? 0) > 0);
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
  /** What has to be typed first. */
  typed?: string;
  /** Why it cannot begin now. */
  reason?: string | undefined;
  act: (v: VDisk) => Promise<unknown>;
  children: ComponentChildren;
};

type Result = { tone: Tone; word: string; text?: string };

const waits: Result = { tone: "idle", word: "Waits" };

/** Asks, does it for one after the other, and says of each how it went. */
function Bulk({ title, verb, danger, typed, reason, vdisks, act, onClose, children }: BulkProps) {
  const [results, setResults] = useState<ReadonlyMap<string, Result> | undefined>(undefined);
  const [ended, setEnded] = useState(false);
  const [confirm, setConfirm] = useState("");
  const stopped = useRef(false);
  const set = (v: VDisk, r: Result) => setResults((old) => new Map(old).set(v.id, r));
  const one = async (v: VDisk) => {
    set(v, { tone: "info", word: "Under way" });
    try {
      await act(v);
      set(v, { tone: "ok", word: "Done" });
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
    reload("vdisks?", "vdisk:", "targets?", "target:", "trash?", "status");
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
        <p role="status">{ended ? `${done} of ${vdisks.length} done.` : `${done} of ${vdisks.length} done so far.`}</p>
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
