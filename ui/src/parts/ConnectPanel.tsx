import type { Connection } from "../api/gen";
import { plural } from "../format";
import { useSessions } from "../store/reads";
import { CopyBlock } from "./CopyBlock";
import { Notice } from "./Notice";
import { Facts } from "./Page";
import { Tabs } from "./Tabs";
import { msg, noun, rich } from "../text";

/** How a host reaches a published vDisk, and whether one does. */
export function ConnectPanel({ connection: c }: { connection: Connection }) {
  return (
    <div class="stack-wide">
      <Arrival iqn={c.iqn} />
      <Tabs
        label={msg`Commands for a host`}
        tabs={[
          {
            id: "linux",
            title: msg`Linux`,
            content: (
              <>
                <CopyBlock label={msg`open-iscsi, as root`} name="iscsiadm" text={c.commands.iscsiadm} />
                <p class="muted small">
                  {rich`Needs the package open-iscsi. The disk appears as /dev/disk/by-path/*-iscsi-${c.iqn}-lun-${c.lun}.`}
                </p>
              </>
            ),
          },
          {
            id: "libiscsi",
            title: msg`QEMU, libiscsi`,
            content: (
              <>
                <CopyBlock label={msg`URL`} name="libiscsi" text={c.commands.libiscsi} />
                <p class="muted small">{msg`For qemu-img, qemu-system and the iscsi-* tools; the secret is part of it.`}</p>
              </>
            ),
          },
          {
            id: "esxi",
            title: msg`ESXi`,
            content: <CopyBlock label={msg`ESXi shell`} name="esxi" text={c.commands.esxi} />,
          },
          {
            id: "windows",
            title: msg`Windows`,
            content: <CopyBlock label={msg`PowerShell, as administrator`} name="windows" text={c.commands.windows} />,
          },
        ]}
      />
      <details class="more">
        <summary>{msg`Values`}</summary>
        <Facts
          rows={[
            [msg`Target`, <code key="iqn">{c.iqn}</code>],
            [msg`LUN`, c.lun],
            [msg`Portals`, c.portals.map((p) => p.address).join(", ")],
            [msg`CHAP user`, value(c.chapUser)],
            [msg`CHAP secret`, secret(c.chapUser, c.chapSecret)],
            [msg`The target's CHAP user`, value(c.mutualUser)],
            [msg`The target's CHAP secret`, secret(c.mutualUser, c.mutualSecret)],
            [
              msg`Who may connect`,
              c.open ? msg`Any initiator with the secret` : c.initiators.join(", ") || msg`Nobody yet: add an initiator`,
            ],
          ]}
        />
      </details>
    </div>
  );
}

function value(text: string) {
  return text ? <code>{text}</code> : "none";
}

/** A secret, unless somebody gave it: then it is in no answer. */
function secret(user: string, text: string) {
  return user && !text ? msg`as it was given, not shown` : value(text);
}

/** Waits for the first session and turns green when it appears. */
export function Arrival({ iqn }: { iqn: string }) {
  const sessions = useSessions(iqn);
  const first = sessions.data?.items[0];
  return (
    <div role="status">
      {first ? (
        <Notice tone="ok">
          <b>{rich`Connected: ${plural(sessions.data?.items.length ?? 0, noun`session`)}`}</b>
          <span class="small">
            {rich`${first.initiator} from ${first.address}`}
          </span>
        </Notice>
      ) : (
        <Notice tone="info" waiting>
          <b>{msg`Waiting for an initiator`}</b>
          <span class="small muted">{msg`Run the commands on a host; this turns green when it signs in.`}</span>
        </Notice>
      )}
    </div>
  );
}
