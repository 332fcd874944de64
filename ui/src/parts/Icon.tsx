const shapes = {
  overview: "M3 3h6v7H3zM11 3h6v4h-6zM11 9h6v8h-6zM3 12h6v5H3z",
  vdisk: "M3 6c0-1.7 3.1-3 7-3s7 1.3 7 3-3.1 3-7 3-7-1.3-7-3zM3 6v8c0 1.7 3.1 3 7 3s7-1.3 7-3V6M3 10c0 1.7 3.1 3 7 3s7-1.3 7-3",
  vpool: "M2 6l8-4 8 4-8 4zM2 10l8 4 8-4M2 14l8 4 8-4",
  iscsi: "M4 4h12v5H4zM4 11h12v5H4zM7 6.5h.01M7 13.5h.01M10 6.5h3M10 13.5h3",
  users: "M7 9a3 3 0 100-6 3 3 0 000 6zM2 17c0-3 2-5 5-5s5 2 5 5M13 9a2.5 2.5 0 100-5M14 12c2.5.3 4 2.2 4 5",
  tokens: "M12.5 11a4.5 4.5 0 10-4.2-3L3 13v4h4v-2h2v-2l1.5-2.2c.6.1 1.3.2 2 .2zM13 6.5h.01",
  person: "M10 9a3 3 0 100-6 3 3 0 000 6zM4 17c0-3.3 2.5-5 6-5s6 1.7 6 5",
  copy: "M7 7h9v10H7zM4 13V3h9",
  close: "M5 5l10 10M15 5L5 15",
  plus: "M10 4v12M4 10h12",
};

export type IconName = keyof typeof shapes;

/** A 16 px line icon; decoration beside a word, never the only label. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg
      width="16"
      height="16"
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.5"
      stroke-linejoin="round"
      stroke-linecap="round"
      aria-hidden="true"
    >
      <path d={shapes[name]} />
    </svg>
  );
}

/** The mark of the product. */
export function Logo() {
  return (
    <svg
      width="20"
      height="20"
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.7"
      stroke-linejoin="round"
      stroke-linecap="round"
      aria-hidden="true"
    >
      <path d="M2 6l8-3.5 8 3.5-8 3.5zM2 10l8 3.5 8-3.5M2 14l8 3.5 8-3.5" />
    </svg>
  );
}
