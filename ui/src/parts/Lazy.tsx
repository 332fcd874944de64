import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { ErrorPanel, Skeleton } from "./Notice";
import { msg } from "../text";

type Props<T> = {
  load: () => Promise<T>;
  /** What stands there while it loads, which is a place holder unless this is given. */
  waiting?: ComponentChildren;
  children: (module: T) => ComponentChildren;
};

/** What was loaded, by the function that loads it. */
const loaded = new Map<() => Promise<unknown>, unknown>();

/** Pages and parts whose script is loaded when one of them is opened first. */
export function Lazy<T>({ load, waiting, children }: Props<T>) {
  const [module, setModule] = useState(loaded.get(load) as T | undefined);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    if (module !== undefined) {
      return;
    }
    let gone = false;
    load().then(
      (m) => {
        loaded.set(load, m);
        if (!gone) {
          setModule(m);
        }
      },
      () => gone || setFailed(true),
    );
    return () => {
      gone = true;
    };
  }, [load]);
  if (module !== undefined) {
    return <>{children(module)}</>;
  }
  if (!failed) {
    return <>{waiting === undefined ? <Skeleton lines={8} /> : waiting}</>;
  }
  // A browser does not ask again for a script that failed; and after an update the name is another one.
  const error = new ApiError(0, {
    code: "unreachable",
    message: msg`The script of this page cannot be loaded`,
    hint: msg`The node is away, or was updated while this tab was open: load the console anew`,
  });
  return <ErrorPanel error={error} retry={() => location.reload()} />;
}
