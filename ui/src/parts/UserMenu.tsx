import { useRef, useState } from "preact/hooks";
import { session, signOut } from "../store/session";
import { asApiError } from "../store/query";
import { toast } from "../store/toasts";
import { setTheme, theme, themes } from "../theme";
import { Icon } from "./Icon";
import { PasswordDialog } from "../pages/PasswordDialog";

/** Who is signed in, the theme, one's own password, signing out. */
export function UserMenu({ keys }: { keys: () => void }) {
  const menu = useRef<HTMLDivElement>(null);
  const [password, setPassword] = useState(false);
  const user = session.value?.user ?? "";
  return (
    <>
      <button type="button" class="pill" popovertarget="user-menu" aria-label={`User menu of ${user}`}>
        <Icon name="person" /> <span class="unseen-phone">{user}</span>
      </button>
      <div id="user-menu" class="menu" popover="auto" ref={menu}>
        <div class="who">
          <b>{user}</b>
          <div class="muted small">Role {session.value?.role}</div>
        </div>
        <ThemeChoice />
        <button
          type="button"
          class="menu-item"
          onClick={() => {
            menu.current?.hidePopover();
            keys();
          }}
        >
          Keyboard
        </button>
        {!session.value?.external && (
          <button
            type="button"
            class="menu-item"
            onClick={() => {
              menu.current?.hidePopover();
              setPassword(true);
            }}
          >
            Change password
          </button>
        )}
        <button
          type="button"
          class="menu-item"
          onClick={() => void signOut().catch((error: unknown) => toast("bad", asApiError(error).message))}
        >
          Sign out
        </button>
      </div>
      {password && <PasswordDialog user={user} own onClose={() => setPassword(false)} />}
    </>
  );
}

function ThemeChoice() {
  return (
    <fieldset>
      <legend>Theme</legend>
      <div class="segments">
        {themes.map((t) => (
          <label key={t}>
            <input
              class="visually-hidden"
              type="radio"
              name="theme"
              value={t}
              checked={theme.value === t}
              onChange={() => setTheme(t)}
            />
            {t === "system" ? "System" : t === "light" ? "Light" : "Dark"}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
