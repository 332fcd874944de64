import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { Logo } from "./Icon";
import { msg, rich } from "../text";

/** The frame of what stands before the console: set-up, sign-in, a node that does not answer. */
export function Gate({ title, children }: { title: string; children: ComponentChildren }) {
  useEffect(() => {
    document.title = title === "ovgate" ? title : msg`${title} · ovgate`;
  }, [title]);
  return (
    <main class="gate">
      <div class="gate-card">
        <div class="brand">
          {rich`${<Logo />} ovgate`}
        </div>
        <h1>{title}</h1>
        {children}
      </div>
    </main>
  );
}
