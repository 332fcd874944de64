import type { OSD, OSDDisk } from "../api/gen";
import { bytes, percent } from "../format";
import { fillTone, Meter } from "./Meter";
import { Tag, type Tone } from "./StateTag";
import { msg } from "../text";

const faces: Record<OSD["state"], { tone: Tone; word: string }> = {
  claiming: { tone: "info", word: msg`Being claimed` },
  "in-use": { tone: "ok", word: msg`In use` },
  decommissioning: { tone: "info", word: msg`Being emptied` },
  purging: { tone: "info", word: msg`Given up, leaving` },
};

/** The state of a device; one that does not work says so first. */
export function OSDTag({ osd: o }: { osd: OSD }) {
  const face = faces[o.state];
  if (!o.working && o.state !== "purging") {
    const word = o.state === "in-use" ? msg`Not working` : msg`Not working, ${face.word.toLowerCase()}`;
    return <Tag tone="bad" word={word} title={o.problem ?? undefined} />;
  }
  if (o.full && o.state === "in-use") {
    return <Tag tone="warn" word={msg`Full`} title={msg`It takes nothing more`} />;
  }
  return <Tag {...face} />;
}

/** What the disk of a device says of itself. */
export function HealthTag({ disk: d }: { disk: OSDDisk | null }) {
  if (!d || d.healthy === null) {
    return <Tag tone="idle" word={msg`Not told`} title={d?.problem ?? msg`The disk of this device is not known to this node`} />;
  }
  return d.healthy ? <Tag tone="ok" word={msg`Healthy`} /> : <Tag tone="bad" word={msg`Failing`} title={d.problem ?? undefined} />;
}

export function temperature(d: OSDDisk | null): string {
  return d?.temperature != null ? `${d.temperature} °C` : "–";
}

/** Model and serial as they stand on the disk's label. */
export function label(d: { model: string | null; serial: string | null } | null): string {
  return [d?.model, d?.serial && msg`serial ${d.serial}`].filter(Boolean).join(", ");
}

/** Where a device is reached: a directory of its node, or an address. */
export function place(o: OSD): string {
  return o.directory ?? o.address ?? "";
}

export function DeviceMeter({ osd: o }: { osd: OSD }) {
  const share = o.total > 0 ? o.used / o.total : 0;
  return (
    <span class="cell-meter" title={msg`${bytes(o.used)} of ${bytes(o.total)}`}>
      <Meter label={msg`${percent(o.used, o.total)} used`} parts={[{ share, class: fillTone(share) }]} />
      <span class="num small">{percent(o.used, o.total)}</span>
    </span>
  );
}
