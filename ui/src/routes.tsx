import type { ComponentChildren } from "preact";
import { match } from "./router";
import { OverviewPage } from "./pages/Overview";
import { VDisksPage } from "./pages/VDisks";
import { VDiskPage } from "./pages/VDisk";
import { TrashPage } from "./pages/Trash";
import { VPoolsPage } from "./pages/VPools";
import { VPoolPage } from "./pages/VPool";
import { ISCSIPage } from "./pages/ISCSI";
import { TargetPage } from "./pages/Target";
import { UsersPage } from "./pages/Users";
import { TokensPage } from "./pages/Tokens";
import { NotFoundPage } from "./pages/NotFound";

type Values = Record<string, string>;

/** Addresses and their pages, the first match wins. Dialogs that create have addresses of their own. */
const routes: [string, (values: Values) => ComponentChildren][] = [
  ["/", () => <OverviewPage />],
  ["/vdisks", () => <VDisksPage />],
  ["/vdisks/new", () => <VDisksPage create />],
  ["/vdisks/:name", ({ name = "" }) => <VDiskPage key={name} name={name} />],
  ["/trash", () => <TrashPage />],
  ["/vpools", () => <VPoolsPage />],
  ["/vpools/new", () => <VPoolsPage dialog="create" />],
  ["/vpools/recover", () => <VPoolsPage dialog="recover" />],
  ["/vpools/:name", ({ name = "" }) => <VPoolPage key={name} name={name} />],
  ["/iscsi", () => <ISCSIPage />],
  ["/iscsi/new", () => <ISCSIPage create />],
  ["/iscsi/:iqn", ({ iqn = "" }) => <TargetPage key={iqn} iqn={iqn} />],
  ["/users", () => <UsersPage />],
  ["/users/new", () => <UsersPage create />],
  ["/tokens", () => <TokensPage />],
  ["/tokens/new", () => <TokensPage create />],
];

/** The page at a path. */
export function route(path: string): ComponentChildren {
  for (const [pattern, page] of routes) {
    const values = match(pattern, path);
    if (values) {
      return page(values);
    }
  }
  return <NotFoundPage />;
}
