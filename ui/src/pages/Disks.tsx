import { useState } from "preact/hooks";
import type { Disk, OSD } from "../api/gen";
import { bytes } from "../format";
import { navigate, query } from "../router";
import { useDisks, useOSDs } from "../store/objects";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { DeviceMeter, HealthTag, label, OSDTag, place, temperature } from "../parts/DeviceParts";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Card, Empty, Page } from "../parts/Page";
import { PeekOf } from "../parts/PeekOf";
import { SearchBox } from "../parts/SearchBox";
import { Tag } from "../parts/StateTag";
import { ClaimDialog, PrepareDialog } from "./DiskDialogs";

/** The devices of the object store, and the disks of the node. */
export function DisksPage({ claim }: { claim?: boolean }) {
  return (
    <Page
      title="Disks"
      actions={
        <Button kind="primary" needs="manage" onClick={() => navigate("/disks/claim")}>
          Claim device
        </Button>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label="Filter devices and disks by number, node, place or name" />
      </div>
      <div class="stack-wide">
        <Devices />
        <Disks />
      </div>
      <PeekOf>{(m, id) => <m.PeekDevice number={Number(id)} />}</PeekOf>
      {claim && <ClaimDialog onClose={() => navigate("/disks")} />}
    </Page>
  );
}

const deviceColumns: Column<OSD>[] = [
  { key: "number", title: "Device", cell: (o) => <Link to={`/disks/${o.number}`}>{`Device ${o.number}`}</Link> },
  {
    key: "state",
    title: "State",
    wrap: true,
    cell: (o) => (
      <>
        <OSDTag osd={o} />
        {o.problem && o.state !== "purging" && <div class="muted small">{o.problem}</div>}
        {o.replacedBy !== null && (
          <div class="small">
            <Link to={`/disks/${o.replacedBy}`}>{`Device ${o.replacedBy}`}</Link> comes in its place
          </div>
        )}
      </>
    ),
  },
  {
    key: "node",
    title: "Node",
    cell: (o) => (
      <>
        {o.node}
        {o.domain && <div class="muted small">{o.domain}</div>}
      </>
    ),
  },
  {
    key: "place",
    title: "Place",
    wrap: true,
    cell: (o) => (
      <>
        <span class="mono">{place(o)}</span>
        {label(o.disk) && <div class="muted small">{label(o.disk)}</div>}
      </>
    ),
  },
  { key: "size", title: "Size", right: true, cell: (o) => bytes(o.total) },
  { key: "used", title: "Used", cell: (o) => <DeviceMeter osd={o} /> },
  { key: "health", title: "SMART", cell: (o) => <HealthTag disk={o.disk} /> },
  { key: "temperature", title: "Temp.", right: true, cell: (o) => temperature(o.disk) },
  { key: "seen", title: "Seen", right: true, cell: (o) => <Age at={o.observedAt} /> },
  {
    key: "actions",
    title: "Action",
    right: true,
    cell: (o) => (
      <Link class="btn small" aria-label={`Replace device ${o.number}`} to={`/disks/${o.number}/replace`}>
        Replace
      </Link>
    ),
  },
];

function Devices() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const osds = useOSDs(filter);
  return (
    <Card title="Devices of the object store">
      <Load query={osds}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable label="Devices" columns={deviceColumns} rows={list.items} rowKey={(o) => o.uuid} next={list.next} peek={{ id: (o) => String(o.number), name: (o) => `device ${o.number}` }} />
          ) : filter.q ? (
            <p class="muted">No device has that in its number, node, place or identity.</p>
          ) : (
            <Empty
              title="No devices yet"
              text="A device is a directory on a disk of its own, or a disk that an ASD serves. Data is spread over them so that disks and nodes may fail."
              command="ovgate osd claim DIRECTORY"
            >
              <Button kind="primary" needs="manage" onClick={() => navigate("/disks/claim")}>
                Claim device
              </Button>
            </Empty>
          )
        }
      </Load>
    </Card>
  );
}

const diskColumns: Column<Disk>[] = [
  { key: "name", title: "Disk", cell: (d) => <span class="mono">{d.path}</span> },
  { key: "model", title: "Model", wrap: true, cell: (d) => d.model ?? <span class="muted">not told</span> },
  { key: "serial", title: "Serial", cell: (d) => d.serial ?? <span class="muted">not told</span> },
  { key: "size", title: "Size", right: true, cell: (d) => bytes(d.size) },
  { key: "kind", title: "Kind", cell: (d) => (d.rotational ? "HDD" : "SSD") },
  {
    key: "holds",
    title: "Holds",
    wrap: true,
    cell: (d) =>
      d.osd !== null ? (
        <Link to={`/disks/${d.osd}`}>{`Device ${d.osd}`}</Link>
      ) : d.usable ? (
        <Tag tone="ok" word="Blank, usable" />
      ) : (
        <span class="muted">{d.holds}</span>
      ),
  },
  { key: "actions", title: "Action", right: true, cell: (d) => <DiskAction disk={d} /> },
];

function DiskAction({ disk: d }: { disk: Disk }) {
  const [open, setOpen] = useState(false);
  if (d.osd !== null) {
    return null;
  }
  return (
    <>
      <Button
        small
        needs="manage"
        label={`Use disk ${d.name}`}
        reason={d.usable ? undefined : "It is not blank: " + d.holds}
        onClick={() => setOpen(true)}
      >
        Use
      </Button>
      {open && <PrepareDialog disk={d} onClose={() => setOpen(false)} />}
    </>
  );
}

function Disks() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("disks") ?? undefined };
  const disks = useDisks(filter);
  return (
    <Card title="Disks of this node">
      <Load query={disks}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable
              label="Disks"
              columns={diskColumns}
              rows={list.items}
              rowKey={(d) => d.name}
              next={list.next}
              cursor="disks"
            />
          ) : (
            <p class="muted">{filter.q ? "No disk has that in its name, model or serial." : "The kernel of this node knows no disk that could be used."}</p>
          )
        }
      </Load>
    </Card>
  );
}
