import { healthOpen } from "../store/drawers";
import { useStatus } from "../store/reads";
import { Drawer } from "../parts/Dialog";
import { Link } from "../parts/Link";
import { Load } from "../parts/Load";
import { Seen } from "../parts/Age";
import { Verdict } from "./Overview";
import { msg } from "../text";

/** What is wrong, beside the page; a way to where it is dealt with closes it. */
export function HealthDrawer() {
  const status = useStatus();
  return (
    <Drawer title={msg`Health`} onClose={() => (healthOpen.value = false)}>
      <Load query={status}>
        {(s) => (
          <div class="stack-wide">
            <Verdict health={s.health} />
            <p class="muted small">
              <Seen at={s.observedAt} />
            </p>
            <p class="row">
              <Link to="/events?kind=health">{msg`Events of health`}</Link>
              <Link to="/alerts">{msg`Alerts`}</Link>
            </p>
          </div>
        )}
      </Load>
    </Drawer>
  );
}
