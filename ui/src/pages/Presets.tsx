import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Preset } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { usePresets } from "../store/objects";
import { reload } from "../store/query";
import { toast } from "../store/toasts";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { Load } from "../parts/Load";
import { Card } from "../parts/Page";
import { Tag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { ChangePresetDialog, CreatePresetDialog } from "./PresetDialogs";
import { msg, noun } from "../text";

/** A policy as it is typed: k,m,c,x. */
export function bare(policy: string): string {
  return policy.replace(/[()]/g, "");
}

const columns: Column<Preset>[] = [
  {
    key: "name",
    csv: (p) => p.name,
    title: msg`Preset`,
    cell: (p) => (
      <>
        {p.name} {p.default && <span class="chip">{msg`default`}</span>}
      </>
    ),
  },
  {
    key: "now",
    csv: (p) => p.now,
    title: msg`Now`,
    cell: (p) => (p.now ? <code>{bare(p.now)}</code> : <Tag tone="bad" word={msg`None can be met`} />),
  },
  { key: "explain", csv: (p) => p.explain, title: msg`What may fail`, wrap: true, cell: (p) => p.explain },
  {
    key: "policies",
    csv: (p) => p.policies.join("; "),
    title: msg`Policies`,
    wrap: true,
    cell: (p) => (
      <>
        {p.automatic ? <span class="muted">{msg`follow the devices`}</span> : p.policies.map((x) => <div key={x} class="mono">{x}</div>)}
        {p.spread === "domain" && <div class="muted small">{msg`x counts domains`}</div>}
      </>
    ),
  },
  { key: "fragment", csv: { title: msg`Fragments (bytes)`, value: (p) => p.fragmentSize }, title: msg`Fragments`, right: true, cell: (p) => bytes(p.fragmentSize) },
  {
    key: "content",
    csv: (p) => [p.compression, p.encrypted && "encrypted"].filter(Boolean).join(", "),
    title: msg`Content`,
    wrap: true,
    cell: (p) =>
      [p.compression !== "none" && p.compression, p.encrypted && "encrypted"].filter(Boolean).join(", ") || (
        <span class="muted">{msg`as it is`}</span>
      ),
  },
  {
    key: "vpools",
    title: msg`For vPools`,
    cell: (p) =>
      p.redundant ? "yes" : <span title={msg`What is acknowledged would not survive the loss of any one device`}>{msg`no`}</span>,
  },
  { key: "actions", title: msg`Actions`, right: true, cell: (p) => <PresetActions preset={p} /> },
];

function PresetActions({ preset: p }: { preset: Preset }) {
  const [open, setOpen] = useState<"change" | "default" | "delete" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="manage" label={msg`Change preset ${p.name}`} onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>{" "}
      <Button
        small
        needs="manage"
        label={msg`Make ${p.name} the default`}
        reason={p.default ? msg`It is the default` : undefined}
        onClick={() => setOpen("default")}
      >
        {msg`Default`}
      </Button>{" "}
      <Button
        small
        kind="danger"
        needs="manage"
        label={msg`Delete preset ${p.name}`}
        reason={p.default ? msg`It is the default: make another one that first` : undefined}
        onClick={() => setOpen("delete")}
      >
        {msg`Delete`}
      </Button>
      {open === "change" && <ChangePresetDialog preset={p} onClose={close} />}
      {open === "default" && (
        <Confirm
          title={msg`Make ${p.name} the default`}
          verb={msg`Make it the default`}
          consequences={[msg`vPools that are created without a preset get it. Those that there are keep theirs.`]}
          onClose={close}
          act={async () => {
            await call("PATCH /presets/{preset}", { path: { preset: p.name }, body: { default: true } });
            toast("ok", msg`${p.name} is the default preset`);
            reload("presets?");
          }}
        />
      )}
      {open === "delete" && (
        <Confirm
          title={msg`Delete preset ${p.name}`}
          verb={msg`Delete`}
          danger
          consequences={[msg`Only a preset that no vPool and no namespace uses is deleted; nothing that is stored changes.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /presets/{preset}", { path: { preset: p.name } });
            toast("ok", msg`Preset ${p.name} deleted`);
            reload("presets?");
          }}
        />
      )}
    </>
  );
}

/** The presets: how objects are stored, and what that survives. */
export function PresetsCard({ create }: { create: boolean | undefined }) {
  const presets = usePresets({ cursor: query.value.get("presets") ?? undefined });
  return (
    <Card
      title={msg`Presets`}
      class="span-12"
      aside={
        <span class="row">
          <Button small needs="manage" onClick={() => navigate("/alba/presets/new")}>
            {msg`New preset`}
          </Button>
          <TableTools table="alba.presets" noun={noun`preset`} columns={columns} read={(cursor, limit) => call("GET /presets", { query: { cursor, limit } })} />
        </span>
      }
    >
      {create && <CreatePresetDialog onClose={() => navigate("/alba")} />}
      <Load query={presets}>
        {(list) => (
          <DataTable
            label={msg`Presets`}
            table="alba.presets"
            columns={columns}
            rows={list.items}
            rowKey={(p) => p.name}
            next={list.next}
            cursor="presets"
          />
        )}
      </Load>
    </Card>
  );
}
