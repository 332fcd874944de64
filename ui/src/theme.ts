// Light, dark or as the system has it; remembered in this browser.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
export const themes: Theme[] = ["system", "light", "dark"];
const place = "ovgate.theme";

function remembered(): Theme {
  const value = localStorage.getItem(place);
  return themes.find((t) => t === value) ?? "system";
}

export const theme = signal<Theme>(remembered());

export function setTheme(next: Theme): void {
  theme.value = next;
  localStorage.setItem(place, next);
  apply();
}

/** Puts the chosen theme on the document. Call once at start. */
export function apply(): void {
  if (theme.value === "system") {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = theme.value;
  }
}
