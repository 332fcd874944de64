// The content of a vDisk as a raw image: out of a file of this computer, and into one. Zeros are not sent.
import { ApiError, badField, call, callBytes, save } from "../api/client";
import type { ExportInput, VDisk } from "../api/gen";
import { GiB, KiB, MiB } from "../format";
import { msg } from "../text";

/** What one request carries: the bound of the API. */
const rangeBytes = MiB;

/** Requests under way at once, and with rangeBytes the memory that they take. */
const atOnce = 4;

/** A multiple of every cluster size. */
const wholeBytes = 64 * KiB;

/** The unit of offsets and lengths. */
const sectorBytes = 512;

/** ms between signs of life: a transfer that is not used for five minutes ends, and zeros are not sent. */
const keepEveryMs = 60_000;

/** Largest vDisk that is exported here: the browser keeps the whole file until it is saved. */
export const exportMax = 4 * GiB;

/** A transfer that runs: told how far it is, and asked whether it is to stop. */
export type Watch = { progress: (share: number) => void; stopped: () => boolean };

function stopIf(watch: Watch): void {
  if (watch.stopped()) {
    throw new ApiError(499, { code: "stopped", message: msg`It was stopped` });
  }
}

/** Makes a vDisk with the content of a file; whatever goes wrong, none stays. */
export async function importImage(file: File, name: string, vpool: string, watch: Watch): Promise<VDisk> {
  const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  if (file.size === 0) {
    throw badField("file", msg`The file is empty`);
  }
  if (String.fromCharCode(...head) === "QFI\xfb") {
    throw badField("file", msg`It is a qcow2 image, and only raw ones are read here: use ovgate vdisk import`);
  }
  const size = Math.ceil(file.size / wholeBytes) * wholeBytes;
  const { id: transfer } = await call("POST /imports", { body: { name, vpool, size } });
  const path = { transfer };
  const keep = setInterval(() => void call("GET /imports/{transfer}", { path }).catch(() => {}), keepEveryMs);
  try {
    let done = 0;
    await ranges(file.size, async (offset, length) => {
      stopIf(watch);
      const piece = new Uint8Array(Math.ceil(length / sectorBytes) * sectorBytes);
      piece.set(new Uint8Array(await file.slice(offset, offset + length).arrayBuffer()));
      if (!isZero(piece)) {
        await call("PUT /imports/{transfer}/data", { path, query: { offset }, body: new Blob([piece]) });
      }
      done += length;
      watch.progress(done / file.size);
    });
    stopIf(watch);
    return await call("POST /imports/{transfer}/finish", { path });
  } catch (error) {
    await call("DELETE /imports/{transfer}", { path }).catch(() => {}); // else it ends by itself
    throw error;
  } finally {
    clearInterval(keep);
  }
}

function isZero(piece: Uint8Array): boolean {
  for (const byte of piece) {
    if (byte !== 0) {
      return false;
    }
  }
  return true;
}

/** Does work for each range, several at once; the first that fails ends it, when all that run have ended. */
async function ranges(total: number, work: (offset: number, length: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < total) {
      const offset = next;
      next += rangeBytes;
      try {
        await work(offset, Math.min(rangeBytes, total - offset));
      } catch (error) {
        next = total;
        throw error;
      }
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, worker));
  const failed = ended.find((e) => e.status === "rejected");
  if (failed) {
    throw failed.reason;
  }
}

/** Saves the content of a vDisk, as of a point, as a raw image. */
export async function exportImage(vdisk: VDisk, point: ExportInput, watch: Watch): Promise<void> {
  const held = await call("POST /vdisks/{vdisk}/exports", { path: { vdisk: vdisk.id }, body: point });
  const path = { transfer: held.id };
  try {
    const zeros = new Blob([new Uint8Array(rangeBytes)]);
    const parts: Blob[] = [];
    let at = 0;
    const fill = (to: number) => {
      for (; at < to; at += Math.min(rangeBytes, to - at)) {
        parts.push(to - at < rangeBytes ? zeros.slice(0, to - at) : zeros);
      }
    };
    for (let from: number | null = 0; from !== null; ) {
      const list: { items: { offset: number; length: number }[]; next: number | null } = await call("GET /exports/{transfer}/extents", { path, query: { offset: from } });
      for (const extent of list.items) {
        fill(extent.offset);
        for (const end = extent.offset + extent.length; at < end; ) {
          stopIf(watch);
          const length = Math.min(rangeBytes, end - at);
          parts.push(await callBytes("GET /exports/{transfer}/data", { path, query: { offset: at, length } }));
          at += length;
          watch.progress(at / held.size);
        }
      }
      from = list.next;
    }
    fill(held.size);
    save(new Blob(parts, { type: "application/octet-stream" }), vdisk.name + ".raw");
  } finally {
    await call("DELETE /exports/{transfer}", { path }).catch(() => {}); // else it ends by itself
  }
}
