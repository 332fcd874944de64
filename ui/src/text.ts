// The words of the console. What people read is written in English where it is shown, as msg`Create vDisk` or, with elements
// in it, rich`It is on ${<Link to={to}>{name}</Link>}.`; the catalogue ui/strings/en.json is made of all that by the build. A
// translation of it is another file of that folder (ui/README.md). What a node says comes in the node's words.
import type { ComponentChildren } from "preact";

const place = "ovgate.language";

/** How long the page waits for a translation. */
const patienceMs = 5000;

/** The languages that there are translations for; the build writes them here. */
declare const LANGUAGES: string[];

/** All languages, as BCP 47 has them. */
export const languages = ["en", ...LANGUAGES];

/** The language of the texts: as chosen in this browser, else the first of the browser's that there is. */
export const language = localStorage.getItem(place) ?? navigator.languages.map((l) => l.split("-")[0]).find((l) => languages.includes(l)) ?? "en";

/** By the English text, with {0} and so on for what is put in; plurals by "vDisk|vDisks", with all forms of the language. */
const words: Record<string, string> = language === "en" ? {} : await translation();

async function translation(): Promise<Record<string, string>> {
  try {
    const answer = await fetch(`/assets/lang-${encodeURIComponent(language)}.json`, { signal: AbortSignal.timeout(patienceMs) });
    return answer.ok ? ((await answer.json()) as Record<string, string>) : {};
  } catch {
    return {}; // the page in English is better than none
  }
}

document.documentElement.lang = Object.keys(words).length > 0 ? language : "en";

/** Has the page in another language from now on. */
export function setLanguage(next: string): void {
  localStorage.setItem(place, next);
  location.reload();
}

type Part = string | number; // a text, or the place of a value

const known = new WeakMap<TemplateStringsArray, Part[]>();

/** A text in pieces, in the chosen language. */
function piecesOf(text: TemplateStringsArray): Part[] {
  let pieces = known.get(text);
  if (!pieces) {
    const english = text.reduce((all, part, i) => `${all}{${i - 1}}${part}`);
    pieces = (words[english] ?? english).split(/\{(\d+)\}/).map((p, i) => (i % 2 ? Number(p) : p));
    known.set(text, pieces);
  }
  return pieces;
}

/** A text. */
export function msg(text: TemplateStringsArray, ...values: unknown[]): string {
  return piecesOf(text)
    .map((p) => (typeof p === "number" ? String(values[p]) : p))
    .join("");
}

/** A text with elements in it. */
export function rich(text: TemplateStringsArray, ...values: ComponentChildren[]): ComponentChildren[] {
  return piecesOf(text).map((p) => (typeof p === "number" ? values[p] : p));
}

/** A noun that is counted: noun`vDisk`, or noun`entry|entries`. In the catalogue it is "vDisk|vDisks", and a translation has
 * all forms that its language has, in the order zero, one, two, few, many, other. */
export function noun(text: TemplateStringsArray): string {
  return text[0];
}

let rules: Intl.PluralRules | undefined;
const order = ["zero", "one", "two", "few", "many", "other"];

/** The form of a noun for a number. */
export function counted(n: number, noun: string): string {
  const english = noun.includes("|") ? noun : `${noun}|${noun}s`;
  const forms = (words[english] ?? english).split("|");
  if (!(english in words)) {
    return forms[n === 1 ? 0 : 1];
  }
  rules ??= new Intl.PluralRules(language);
  const has = order.filter((c) => rules?.resolvedOptions().pluralCategories.includes(c as Intl.LDMLPluralRule));
  return forms[has.indexOf(rules.select(n))] ?? forms[forms.length - 1];
}
