import { useState } from "preact/hooks";
import type { Target } from "../api/gen";
import { bytes } from "../format";
import { useTarget } from "../store/reads";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { Arrival } from "../parts/ConnectPanel";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { EventsOf } from "../parts/ObjectLink";
import { Card, Facts, Page } from "../parts/Page";
import { DeleteTarget } from "./SharedTarget";
import { activity, limits, reservation, TargetGroups } from "./TargetGroups";
import { TargetAccess, TargetSessions } from "./TargetParts";
import { TargetPortalsDialog } from "./TargetPortals";
import { msg, rich } from "../text";

/** One iSCSI target. */
export function TargetPage({ iqn }: { iqn: string }) {
  const target = useTarget(iqn);
  return (
    <Page
      title={iqn}
      crumbs={[{ to: "/iscsi", text: msg`iSCSI` }]}
      state={
        <>
          {target.data?.shared && <span class="chip">{msg`shared`}</span>} <EventsOf object={"target " + iqn} />
        </>
      }
      actions={target.data?.shared && <DeleteTarget target={target.data} />}
    >
      <Load query={target}>
        {(t) => (
          <div class="grid">
            <section class="span-6 stack">
              <Card title={msg`Target`}>
                <div class="stack-wide">
                  <Facts
                    rows={[
                      [
                        msg`LUNs`,
                        t.luns.map((l) => (
                          <div key={l.lun}>
                            {l.lun}: <Link to={`/vdisks/${encodeURIComponent(l.vdisk)}`}>{l.vdisk}</Link>,{" "}
                            {bytes(l.size)}
                            {l.blockSize !== 512 && msg`, blocks of ${bytes(l.blockSize)}`}
                            {l.state !== "running" && <div class="muted small">{rich`It is ${l.state}`}</div>}
                            {l.qos && <div class="muted small">{rich`Limits: ${limits(l.qos)}`}</div>}
                            {l.reservedBy && <div class="muted small">{rich`Reserved by ${l.reservedBy}`}</div>}
                            {l.reservation && <div class="muted small">{reservation(l.reservation)}</div>}
                            {l.stats && <div class="muted small">{activity(l.stats)}</div>}
                          </div>
                        )),
                      ],
                      [msg`Portals`, <Portals key="portals" target={t} />],
                      [msg`CHAP user`, t.chapUser ? <code key="user">{t.chapUser}</code> : "none"],
                      [msg`Created`, <Age key="created" at={t.created} />],
                    ]}
                  />
                  <Arrival iqn={t.iqn} />
                </div>
              </Card>
              <TargetSessions iqn={iqn} />
            </section>
            <section class="span-6 stack">
              <TargetAccess iqn={iqn} vdisk={t.luns[0]?.vdisk ?? ""} />
            </section>
            <section class="span-12 stack">
              <TargetGroups target={t} />
            </section>
          </div>
        )}
      </Load>
    </Page>
  );
}

/** Where it is reached, with a way to change that. */
function Portals({ target: t }: { target: Target }) {
  const [open, setOpen] = useState(false);
  return (
    <span class="row">
      {t.portals.map((p) => p.address).join(", ") || msg`none of this node`}
      {t.allPortals && <span class="muted">{msg`all of the node`}</span>}
      {t.redirect && <span class="muted">{msg`hosts are sent to the node that serves the vDisk`}</span>}
      <Button small needs="write" label={msg`Change portals of ${t.name}`} onClick={() => setOpen(true)}>
        {msg`Change`}
      </Button>
      {open && <TargetPortalsDialog target={t} onClose={() => setOpen(false)} />}
    </span>
  );
}
