import { call } from "../api/client";
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
import { TableTools } from "../parts/TableTools";
import { ClaimDialog, PrepareDialog } from "./DiskDialogs";
import { msg, noun, rich } from "../text";

/** The devices of the object store, and the disks of the node. */
export function DisksPage({ claim }: { claim?: boolean }) {
  return (
    <Page
      title={msg`Disks`}
      actions={
        <Button kind="primary" needs="manage" onClick={() => navigate("/disks/claim")}>
          {msg`Claim device`}
        </Button>
      }
    >
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter devices and disks by number, node, place or name`} />
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
  { key: "number", csv: (o) => o.number, title: msg`Device`, cell: (o) => <Link to={`/disks/${o.number}`}>{msg`Device ${o.number}`}</Link> },
  {
    key: "state",
    csv: (o) => o.problem ?? o.state,
    title: msg`State`,
    wrap: true,
    cell: (o) => (
      <>
        <OSDTag osd={o} />
        {o.problem && o.state !== "purging" && <div class="muted small">{o.problem}</div>}
        {o.replacedBy !== null && (
          <div class="small">
            {rich`${<Link to={`/disks/${o.replacedBy}`}>{msg`Device ${o.replacedBy}`}</Link>} comes in its place`}
          </div>
        )}
      </>
    ),
  },
  {
    key: "node",
    csv: (o) => o.node,
    title: msg`Node`,
    cell: (o) => (
      <>
        {o.node}
        {o.domain && <div class="muted small">{o.domain}</div>}
      </>
    ),
  },
  {
    key: "place",
    csv: place,
    title: msg`Place`,
    wrap: true,
    cell: (o) => (
      <>
        <span class="mono">{place(o)}</span>
        {label(o.disk) && <div class="muted small">{label(o.disk)}</div>}
      </>
    ),
  },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (o) => o.total }, title: msg`Size`, right: true, cell: (o) => bytes(o.total) },
  { key: "used", csv: { title: msg`Used (bytes)`, value: (o) => o.used }, title: msg`Used`, cell: (o) => <DeviceMeter osd={o} /> },
  { key: "health", title: msg`SMART`, cell: (o) => <HealthTag disk={o.disk} /> },
  { key: "temperature", csv: { title: msg`Temperature (°C)`, value: (o) => o.disk?.temperature }, title: msg`Temp.`, right: true, cell: (o) => temperature(o.disk) },
  { key: "seen", csv: (o) => o.observedAt, title: msg`Seen`, right: true, cell: (o) => <Age at={o.observedAt} /> },
  {
    key: "actions",
    title: msg`Action`,
    right: true,
    cell: (o) => (
      <Link class="btn small" aria-label={msg`Replace device ${o.number}`} to={`/disks/${o.number}/replace`}>
        {msg`Replace`}
      </Link>
    ),
  },
];

function Devices() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("cursor") ?? undefined };
  const osds = useOSDs(filter);
  return (
    <Card
      title={msg`Devices of the object store`}
      aside={<TableTools table="devices" noun={noun`device`} columns={deviceColumns} read={(cursor, limit) => call("GET /osds", { query: { ...filter, cursor, limit } })} />}
    >
      <Load query={osds}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable label={msg`Devices`} table="devices" columns={deviceColumns} rows={list.items} rowKey={(o) => o.uuid} next={list.next} peek={{ id: (o) => String(o.number), name: (o) => msg`device ${o.number}` }} />
          ) : filter.q ? (
            <p class="muted">{msg`No device has that in its number, node, place or identity.`}</p>
          ) : (
            <Empty
              title={msg`No devices yet`}
              text={msg`A device is a directory on a disk of its own, or a disk that an ASD serves. Data is spread over them so that disks and nodes may fail.`}
              command="ovgate osd claim DIRECTORY"
            >
              <Button kind="primary" needs="manage" onClick={() => navigate("/disks/claim")}>
                {msg`Claim device`}
              </Button>
            </Empty>
          )
        }
      </Load>
    </Card>
  );
}

const diskColumns: Column<Disk>[] = [
  { key: "name", csv: (d) => d.path, title: msg`Disk`, cell: (d) => <span class="mono">{d.path}</span> },
  { key: "model", csv: (d) => d.model, title: msg`Model`, wrap: true, cell: (d) => d.model ?? <span class="muted">{msg`not told`}</span> },
  { key: "serial", csv: (d) => d.serial, title: msg`Serial`, cell: (d) => d.serial ?? <span class="muted">{msg`not told`}</span> },
  { key: "size", csv: { title: msg`Size (bytes)`, value: (d) => d.size }, title: msg`Size`, right: true, cell: (d) => bytes(d.size) },
  { key: "kind", csv: (d) => (d.rotational ? "HDD" : "SSD"), title: msg`Kind`, cell: (d) => (d.rotational ? "HDD" : "SSD") },
  {
    key: "holds",
    csv: (d) => (d.osd !== null ? msg`Device ${d.osd}` : d.usable ? "blank" : d.holds),
    title: msg`Holds`,
    wrap: true,
    cell: (d) =>
      d.osd !== null ? (
        <Link to={`/disks/${d.osd}`}>{msg`Device ${d.osd}`}</Link>
      ) : d.usable ? (
        <Tag tone="ok" word={msg`Blank, usable`} />
      ) : (
        <span class="muted">{d.holds}</span>
      ),
  },
  { key: "actions", title: msg`Action`, right: true, cell: (d) => <DiskAction disk={d} /> },
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
        label={msg`Use disk ${d.name}`}
        reason={d.usable ? undefined : msg`It is not blank: ` + d.holds}
        onClick={() => setOpen(true)}
      >
        {msg`Use`}
      </Button>
      {open && <PrepareDialog disk={d} onClose={() => setOpen(false)} />}
    </>
  );
}

function Disks() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: query.value.get("disks") ?? undefined };
  const disks = useDisks(filter);
  return (
    <Card
      title={msg`Disks of this node`}
      aside={<TableTools table="node.disks" noun={noun`disk`} columns={diskColumns} read={(cursor, limit) => call("GET /disks", { query: { ...filter, cursor, limit } })} />}
    >
      <Load query={disks}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable
              label={msg`Disks`}
              table="node.disks"
              columns={diskColumns}
              rows={list.items}
              rowKey={(d) => d.name}
              next={list.next}
              cursor="disks"
            />
          ) : (
            <p class="muted">{filter.q ? msg`No disk has that in its name, model or serial.` : msg`The kernel of this node knows no disk that could be used.`}</p>
          )
        }
      </Load>
    </Card>
  );
}
