type Option = { id: string; text: string };

type Props<T extends Option> = { options: readonly T[]; chosen: T; onChoose: (option: T) => void; textOf?: (option: T) => string };

/** Buttons of which one is pressed. They stand in an element of the class ranges. */
export function OneOf<T extends Option>({ options, chosen, onChoose, textOf = (o) => o.text }: Props<T>) {
  return (
    <>
      {options.map((o) => (
        <button key={o.id} type="button" class="btn small" aria-pressed={o === chosen} onClick={() => onChoose(o)}>
          {textOf(o)}
        </button>
      ))}
    </>
  );
}
