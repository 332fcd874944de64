import { TextField } from "./Field";
import { msg } from "../text";

/** The node refuses shorter ones. */
export const passwordLengthMin = 10;

const judgements = [
  { tone: "bad", word: msg`Too short` },
  { tone: "bad", word: msg`Weak: easy to guess` },
  { tone: "warn", word: msg`Fair: a few more characters help` },
  { tone: "ok", word: msg`Good` },
  { tone: "ok", word: msg`Strong` },
] as const;

/** 0 (too short) to 4, mainly by length: a rough guide, the node only checks the length. */
export function strength(password: string): number {
  if (password.length < passwordLengthMin) {
    return 0;
  }
  const distinct = new Set(password).size;
  if (distinct < 5) {
    return 1;
  }
  const kinds = [/[a-z]/, /[A-Z]/, /[0-9]/, /[^A-Za-z0-9]/].filter((k) => k.test(password)).length;
  const score = password.length + 2 * (kinds - 1) + (distinct >= 10 ? 2 : 0);
  return score < 14 ? 1 : score < 18 ? 2 : score < 22 ? 3 : 4;
}

type Props = {
  label: string;
  name: string;
  value: string;
  onValue: (value: string) => void;
  error?: string | undefined;
};

/** A new password with a hint on its strength. */
export function NewPasswordField(props: Props) {
  const level = strength(props.value);
  const judgement = judgements[level] ?? judgements[0];
  return (
    <div class="stack">
      <TextField
        {...props}
        hint={msg`At least ${passwordLengthMin} characters; a sentence is easier to keep than symbols.`}
        input={{ type: "password", autocomplete: "new-password" }}
      />
      {props.value !== "" && (
        <div class="field">
          <div class="strength" aria-hidden="true">
            {[1, 2, 3, 4].map((n) => (
              <i key={n} class={level >= n || (n === 1 && level === 0) ? `on tone-${judgement.tone}` : ""} />
            ))}
          </div>
          <span class={`small tone-${judgement.tone}`} role="status">
            {judgement.word}
          </span>
        </div>
      )}
    </div>
  );
}
