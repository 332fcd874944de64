import type { Connection } from "../api/gen";
import { plural } from "../format";
import { useSessions } from "../store/reads";
import { CopyBlock } from "./CopyBlock";
import { Notice } from "./Notice";
import { Facts } from "./Page";
import { Tabs } from "./Tabs";

/** How a host reaches a published vDisk, and whether one does. */
export function ConnectPanel({ connection: c }: { connection: Connection }) {
  return (
    <div class="stack-wide">
      <Arrival iqn={c.iqn} />
      <Tabs
        label="Commands for a host"
        tabs={[
          {
            id: "linux",
            title: "Linux",
            content: (
              <>
                <CopyBlock label="open-iscsi, as root" name="iscsiadm" text={c.commands.iscsiadm} />
                <p class="muted small">
                  Needs the package open-iscsi. The disk appears as /dev/disk/by-path/*-iscsi-{c.iqn}-lun-{c.lun}.
                </p>
              </>
            ),
          },
          {
            id: "libiscsi",
            title: "QEMU, libiscsi",
            content: (
              <>
                <CopyBlock label="URL" name="libiscsi" text={c.commands.libiscsi} />
                <p class="muted small">For qemu-img, qemu-system and the iscsi-* tools; the secret is part of it.</p>
              </>
            ),
          },
          {
            id: "esxi",
            title: "ESXi",
            content: <CopyBlock label="ESXi shell" name="esxi" text={c.commands.esxi} />,
          },
          {
            id: "windows",
            title: "Windows",
            content: <CopyBlock label="PowerShell, as administrator" name="windows" text={c.commands.windows} />,
          },
        ]}
      />
      <details class="more">
        <summary>Values</summary>
        <Facts
          rows={[
            ["Target", <code key="iqn">{c.iqn}</code>],
            ["LUN", c.lun],
            ["Portals", c.portals.map((p) => p.address).join(", ")],
            ["CHAP user", <code key="user">{c.chapUser}</code>],
            ["CHAP secret", <code key="secret">{c.chapSecret}</code>],
            ["The target's CHAP user", c.mutualUser ? <code key="mutual-user">{c.mutualUser}</code> : "none"],
            ["The target's CHAP secret", c.mutualUser ? <code key="mutual-secret">{c.mutualSecret}</code> : "none"],
            [
              "Who may connect",
              c.open ? "Any initiator with the secret" : c.initiators.join(", ") || "Nobody yet: add an initiator",
            ],
          ]}
        />
      </details>
    </div>
  );
}

/** Waits for the first session and turns green when it appears. */
export function Arrival({ iqn }: { iqn: string }) {
  const sessions = useSessions(iqn);
  const first = sessions.data?.items[0];
  return (
    <div role="status">
      {first ? (
        <Notice tone="ok">
          <b>Connected: {plural(sessions.data?.items.length ?? 0, "session")}</b>
          <span class="small">
            {first.initiator} from {first.address}
          </span>
        </Notice>
      ) : (
        <Notice tone="info" waiting>
          <b>Waiting for an initiator</b>
          <span class="small muted">Run the commands on a host; this turns green when it signs in.</span>
        </Notice>
      )}
    </div>
  );
}
