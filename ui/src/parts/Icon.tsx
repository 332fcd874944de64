const shapes = {
  overview: "M3 3h6v7H3zM11 3h6v4h-6zM11 9h6v8h-6zM3 12h6v5H3z",
  vdisk: "M3 6c0-1.7 3.1-3 7-3s7 1.3 7 3-3.1 3-7 3-7-1.3-7-3zM3 6v8c0 1.7 3.1 3 7 3s7-1.3 7-3V6M3 10c0 1.7 3.1 3 7 3s7-1.3 7-3",
  vpool: "M2 6l8-4 8 4-8 4zM2 10l8 4 8-4M2 14l8 4 8-4",
  iscsi: "M4 4h12v5H4zM4 11h12v5H4zM7 6.5h.01M7 13.5h.01M10 6.5h3M10 13.5h3",
  alba: "M3 3h6v6H3zM11 3h6v6h-6zM3 11h6v6H3zM14 11v6M11 14h6",
  backend: "M6 16a4 4 0 01-.5-7.9 5 5 0 019.6 1A3.5 3.5 0 0114.5 16z",
  disk: "M4 2h12v16H4zM10 12a3.5 3.5 0 100-7 3.5 3.5 0 000 7zM10 8.5h.01M7 15h3",
  nodes: "M3 3h14v4H3zM3 13h14v4H3zM10 7v6M6 5h.01M6 15h.01",
  users: "M7 9a3 3 0 100-6 3 3 0 000 6zM2 17c0-3 2-5 5-5s5 2 5 5M13 9a2.5 2.5 0 100-5M14 12c2.5.3 4 2.2 4 5",
  tokens: "M12.5 11a4.5 4.5 0 10-4.2-3L3 13v4h4v-2h2v-2l1.5-2.2c.6.1 1.3.2 2 .2zM13 6.5h.01",
  person: "M10 9a3 3 0 100-6 3 3 0 000 6zM4 17c0-3.3 2.5-5 6-5s6 1.7 6 5",
  tasks: "M3 5l1.5 1.5L7 4M3 11l1.5 1.5L7 10M10 5.5h7M10 11.5h7M3 16.5h14",
  performance: "M3 17h14M3 12l4-5 3 3 6-7",
  topology: "M3 8h4v4H3zM13 3h4v4h-4zM13 13h4v4h-4zM7 10h3M13 5h-3v10h3",
  alerts: "M5 14V9a5 5 0 0110 0v5l1.5 1.5h-13zM8.5 18h3M10 2.5V4",
  events: "M3 5h.01M3 10h.01M3 15h.01M7 5h10M7 10h10M7 15h7",
  schedules: "M10 17.5a7.5 7.5 0 100-15 7.5 7.5 0 000 15zM10 6v4l3 2",
  audit: "M5 2.5h7l3.5 3.5v11.5H5zM12 2.5V6h3.5M8 10h5M8 13.5h5",
  docs: "M10 5c-2-1.5-4-2-7-2v12c3 0 5 .5 7 2 2-1.5 4-2 7-2V3c-3 0-5 .5-7 2zM10 5v12",
  search: "M9 15A6 6 0 109 3a6 6 0 000 12zM13.5 13.5L17 17",
  copy: "M7 7h9v10H7zM4 13V3h9",
  updates: "M4 10a6 6 0 0110-4.5M14 2.5v3h-3M16 10a6 6 0 01-10 4.5M6 17.5v-3h3",
  openstack: "M4 3h12v4H4zM4 13h12v4H4zM4 9.2h3v1.6H4zM13 9.2h3v1.6h-3z",
  vsphere: "M3 4h9v8H3zM8 8h9v8H8z",
  domain: "M3 3h14v14H3zM10 3v14M3 10h7",
  settings: "M3 6h8M15 6h2M13 4v4M3 14h2M9 14h8M7 12v4",
  close: "M5 5l10 10M15 5L5 15",
  look: "M2 10s3-5 8-5 8 5 8 5-3 5-8 5-8-5-8-5zM10 12.2a2.2 2.2 0 100-4.4 2.2 2.2 0 000 4.4z",
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
