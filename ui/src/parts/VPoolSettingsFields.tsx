import type { DtlMode, LostTailPolicy, VPoolSettings, VPoolSettingsInput } from "../api/gen";
import { bytes, KiB, MiB } from "../format";
import type { Submit } from "../store/submit";
import { SelectField, TextField } from "./Field";
import { SizeField, sizeBytes, sizeInput, type SizeInput } from "./SizeField";
import { msg } from "../text";

/** The settings as they are typed. */
export type SettingsForm = {
  clusterSize: string;
  scoSize: string;
  journalQuota: SizeInput;
  commitSeconds: string;
  stallSeconds: string;
  historyHours: string;
  trashHours: string;
  oversubscription: string;
  verifyDays: string;
  lostTail: LostTailPolicy;
  dtl: DtlMode;
};

/** What the node uses when nothing is said, as the API documents it. */
export const defaults: VPoolSettings = {
  clusterSize: 4 * KiB,
  scoSize: 16 * MiB,
  journalQuota: 512 * MiB,
  commitIntervalMs: 10_000,
  stallTimeoutMs: 180_000,
  historyMs: 0,
  trashMs: 86_400_000,
  oversubscriptionPercent: 0,
  verifyIntervalMs: 30 * 86_400_000,
  lostTail: "offline",
  dtl: "sync",
};

/** Fields of the request that the form shows messages for. */
export const settingsFields = [
  "clusterSize",
  "scoSize",
  "journalQuota",
  "commitIntervalMs",
  "stallTimeoutMs",
  "historyMs",
  "trashMs",
  "oversubscriptionPercent",
  "verifyIntervalMs",
  "lostTail",
  "dtl",
];

export function settingsForm(s: VPoolSettings): SettingsForm {
  return {
    clusterSize: String(s.clusterSize),
    scoSize: String(s.scoSize),
    journalQuota: sizeInput(s.journalQuota),
    commitSeconds: String(s.commitIntervalMs / 1000),
    stallSeconds: String(s.stallTimeoutMs / 1000),
    historyHours: String(s.historyMs / 3_600_000),
    trashHours: String(s.trashMs / 3_600_000),
    oversubscription: String(s.oversubscriptionPercent),
    verifyDays: String(s.verifyIntervalMs / 86_400_000),
    lostTail: s.lostTail,
    dtl: s.dtl,
  };
}

/** The settings of the form that differ from present; what is no number is sent as 0 for the node to refuse. */
export function changedSettings(form: SettingsForm, present: VPoolSettings): VPoolSettingsInput {
  const wanted: VPoolSettings = {
    clusterSize: Number(form.clusterSize),
    scoSize: Number(form.scoSize),
    journalQuota: sizeBytes(form.journalQuota) || 0,
    commitIntervalMs: milliseconds(form.commitSeconds),
    stallTimeoutMs: milliseconds(form.stallSeconds),
    historyMs: milliseconds(form.historyHours, 3_600_000, -1),
    trashMs: milliseconds(form.trashHours, 3_600_000, -1),
    oversubscriptionPercent: Math.round(Number(form.oversubscription.replace(",", "."))) || 0,
    verifyIntervalMs: milliseconds(form.verifyDays, 86_400_000, -1),
    lostTail: form.lostTail,
    dtl: form.dtl,
  };
  return Object.fromEntries(
    Object.entries(wanted).filter(([name, value]) => value !== present[name as keyof VPoolSettings]),
  );
}

export function milliseconds(text: string, unit = 1000, wrong = 0): number {
  const n = Math.round(unit * Number(text.trim().replace(",", ".") || "?"));
  return Number.isNaN(n) ? wrong : n;
}

const powers = (from: number, to: number, unit: number) =>
  Array.from({ length: Math.log2(to / from) + 1 }, (_, i) => from * 2 ** i * unit).map((n) => ({
    value: String(n),
    text: bytes(n),
  }));

type Props = { form: SettingsForm; onForm: (form: SettingsForm) => void; submit: Submit };

/** The fields of a vPool's settings. */
export function VPoolSettingsFields({ form, onForm, submit }: Props) {
  const set = (change: Partial<SettingsForm>) => onForm({ ...form, ...change });
  return (
    <div class="stack-wide">
      <SelectField
        label={msg`Cluster size`}
        name="clusterSize"
        value={form.clusterSize}
        onValue={(clusterSize) => set({ clusterSize })}
        options={powers(4, 64, KiB)}
        hint={msg`Unit of mapping; for new vDisks.`}
        error={submit.at("clusterSize")}
      />
      <SelectField
        label={msg`SCO size`}
        name="scoSize"
        value={form.scoSize}
        onValue={(scoSize) => set({ scoSize })}
        options={powers(4, 128, MiB)}
        hint={msg`Size of data objects on the backend, at most a quarter of the journal quota; for new vDisks.`}
        error={submit.at("scoSize")}
      />
      <SizeField
        label={msg`Journal quota`}
        name="journalQuota"
        value={form.journalQuota}
        onValue={(journalQuota) => set({ journalQuota })}
        hint={msg`Local space per vDisk for writes that wait for the backend, 128 MiB to 10 GiB.`}
        error={submit.at("journalQuota")}
      />
      <TextField
        label={msg`Commit interval (s)`}
        name="commitIntervalMs"
        value={form.commitSeconds}
        onValue={(commitSeconds) => set({ commitSeconds })}
        hint={msg`Longest time between commits to the backend, 0.1 to 600.`}
        error={submit.at("commitIntervalMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Stall timeout (s)`}
        name="stallTimeoutMs"
        value={form.stallSeconds}
        onValue={(stallSeconds) => set({ stallSeconds })}
        hint={msg`How long a write waits when the journal is full, 1 to 3600.`}
        error={submit.at("stallTimeoutMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Keep every moment for (h)`}
        name="historyMs"
        value={form.historyHours}
        onValue={(historyHours) => set({ historyHours })}
        hint={msg`How far back vDisks can be taken to any moment, which takes space; 0: scrubs keep snapshots alone.`}
        error={submit.at("historyMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Keep deleted vDisks (h)`}
        name="trashMs"
        value={form.trashHours}
        onValue={(trashHours) => set({ trashHours })}
        hint={msg`How long they can be restored from the trash, where they take space; 0: they are gone at once.`}
        error={submit.at("trashMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Verify each vDisk every (days)`}
        name="verifyIntervalMs"
        value={form.verifyDays}
        onValue={(verifyDays) => set({ verifyDays })}
        hint={msg`All that a vDisk has on the backend is read and checked within this time; 0: only when it is asked for.`}
        error={submit.at("verifyIntervalMs")}
        input={{ inputMode: "decimal" }}
      />
      <TextField
        label={msg`Over-subscription (%)`}
        name="oversubscriptionPercent"
        value={form.oversubscription}
        onValue={(oversubscription) => set({ oversubscription })}
        hint={msg`Most that the sizes of its vDisks may come to, in percent of the backend's disk; 0: no bound.`}
        error={submit.at("oversubscriptionPercent")}
        input={{ inputMode: "decimal" }}
      />
      <SelectField
        label={msg`When acknowledged writes were lost`}
        name="lostTail"
        value={form.lostTail}
        onValue={(lostTail) => set({ lostTail: lostTail as LostTailPolicy })}
        options={[
          { value: "offline", text: msg`Keep the vDisk offline until somebody accepts the loss` },
          { value: "accept", text: msg`Serve it at once without them` },
        ]}
        error={submit.at("lostTail")}
      />
      <SelectField
        label={msg`Mirror journals on another node`}
        name="dtl"
        value={form.dtl}
        onValue={(dtl) => set({ dtl: dtl as DtlMode })}
        options={[
          { value: "sync", text: msg`Before a write is acknowledged` },
          { value: "async", text: msg`Soon after: the newest writes can be lost with their node` },
          { value: "off", text: msg`Not at all: they are lost with their node` },
        ]}
        hint={msg`Where no other node takes copies there is none in either case.`}
        error={submit.at("dtl")}
      />
    </div>
  );
}
