import { useRef, useState } from "preact/hooks";
import { session, signOut } from "../store/session";
import { asApiError } from "../store/query";
import { toast } from "../store/toasts";
import { setTheme, theme, themes } from "../theme";
import { SelectField } from "./Field";
import { Icon } from "./Icon";
import { PasswordDialog } from "../pages/PasswordDialog";
import { language, languages, msg, rich, setLanguage } from "../text";

/** Who is signed in, the theme, one's own password, signing out. */
export function UserMenu({ keys }: { keys: () => void }) {
  const menu = useRef<HTMLDivElement>(null);
  const [password, setPassword] = useState(false);
  const user = session.value?.user ?? "";
  return (
    <>
      <button type="button" class="pill" popovertarget="user-menu" aria-label={msg`User menu of ${user}`}>
        <Icon name="person" /> <span class="unseen-phone">{user}</span>
      </button>
      <div id="user-menu" class="menu" popover="auto" ref={menu}>
        <div class="who">
          <b>{user}</b>
          <div class="muted small">{rich`Role ${session.value?.role}`}</div>
        </div>
        <ThemeChoice />
        <LanguageChoice />
        <button
          type="button"
          class="menu-item"
          onClick={() => {
            menu.current?.hidePopover();
            keys();
          }}
        >
          {msg`Keyboard`}
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
            {msg`Change password`}
          </button>
        )}
        <button
          type="button"
          class="menu-item"
          onClick={() => void signOut().catch((error: unknown) => toast("bad", asApiError(error).message))}
        >
          {msg`Sign out`}
        </button>
      </div>
      {password && <PasswordDialog user={user} own onClose={() => setPassword(false)} />}
    </>
  );
}

/** The language, where there are several. */
function LanguageChoice() {
  if (languages.length < 2) {
    return null;
  }
  const name = (l: string) => new Intl.DisplayNames([l], { type: "language" }).of(l) ?? l;
  return (
    <fieldset>
      <legend>{msg`Language`}</legend>
      <SelectField label={msg`Language`} name="language" value={language} onValue={setLanguage} options={languages.map((l) => ({ value: l, text: name(l) }))} />
    </fieldset>
  );
}

function ThemeChoice() {
  return (
    <fieldset>
      <legend>{msg`Theme`}</legend>
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
            {t === "system" ? msg`System` : t === "light" ? msg`Light` : msg`Dark`}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
