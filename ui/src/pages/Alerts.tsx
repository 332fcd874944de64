import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { Alert, AlertChannel, AlertRule, Silence, Threshold } from "../api/gen";
import { capital, duration, interval, time } from "../format";
import { navigate, query } from "../router";
import { now } from "../store/clock";
import { useAlertRules, useAlerts, useChannels, useSilences, useThresholds } from "../store/operations";
import { asApiError, reload, type Query } from "../store/query";
import { toast } from "../store/toasts";
import { Age } from "../parts/Age";
import { Button } from "../parts/Button";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm } from "../parts/Dialog";
import { Load } from "../parts/Load";
import { ObjectLink } from "../parts/ObjectLink";
import { Empty, Page } from "../parts/Page";
import { SearchBox } from "../parts/SearchBox";
import { healthFace, Tag } from "../parts/StateTag";
import { TableTools } from "../parts/TableTools";
import { Tabs } from "../parts/Tabs";
import { ChannelDialog, RuleDialog, SilenceDialog } from "./AlertDialogs";
import { shown, ThresholdDialog } from "./ThresholdDialog";
import { msg, noun, rich } from "../text";

type Props = { dialog?: "rule" | "threshold" | "channel" | "silence" };

/** What is wrong now, who is told of it, and when. */
export function AlertsPage({ dialog }: Props) {
  const back = (tab: string) => () => navigate("/alerts" + tab);
  return (
    <Page title={msg`Alerts`}>
      <Tabs
        label={msg`Parts of alerts`}
        param="tab"
        tabs={[
          { id: "active", title: msg`Active`, content: <ActiveTab /> },
          { id: "rules", title: msg`Rules`, content: <RulesTab /> },
          { id: "thresholds", title: msg`Thresholds`, content: <ThresholdsTab /> },
          { id: "channels", title: msg`Channels`, content: <ChannelsTab /> },
          { id: "silences", title: msg`Silences`, content: <SilencesTab /> },
        ]}
      />
      {dialog === "rule" && <RuleDialog onClose={back("?tab=rules")} />}
      {dialog === "threshold" && <ThresholdDialog onClose={back("?tab=thresholds")} />}
      {dialog === "channel" && <ChannelDialog onClose={back("?tab=channels")} />}
      {dialog === "silence" && <SilenceDialog onClose={back(query.value.has("object") ? "" : "?tab=silences")} />}
    </Page>
  );
}

function cursorOf(): string | undefined {
  return query.value.get("cursor") ?? undefined;
}

function ActiveTab() {
  const filter = { q: query.value.get("q") ?? undefined, cursor: cursorOf() };
  const alerts = useAlerts(filter);
  const channels = useChannels();
  const untold = channels.data?.items.length === 0;
  return (
    <>
      <div class="toolbar" role="search">
        <SearchBox label={msg`Filter alerts by object or code`} />
        <TableTools table="alerts" noun={noun`alert`} columns={alertColumns} read={(cursor, limit) => call("GET /alerts", { query: { ...filter, cursor, limit } })} />
      </div>
      <Load query={alerts}>
        {(list) =>
          list.items.length > 0 || filter.cursor ? (
            <DataTable label={msg`Alerts`} table="alerts" columns={alertColumns} rows={list.items} rowKey={(a) => a.code + " " + a.object} next={list.next} />
          ) : (
            <Empty
              title={filter.q ? msg`No alert matches` : msg`Nothing is wrong`}
              text={
                filter.q
                  ? msg`Nothing that lasts has that in its object or code.`
                  : untold
                    ? msg`Nobody would be told if something were: there is no channel yet.`
                    : msg`When something is, it is listed here and told to the channels by the rules.`
              }
              command="ovgate alert list"
            >
              {untold && !filter.q && (
                <Button kind="primary" needs="manage" onClick={() => navigate("/alerts/channels/new?tab=channels")}>
                  {msg`Add channel`}
                </Button>
              )}
            </Empty>
          )
        }
      </Load>
    </>
  );
}

const alertColumns: Column<Alert>[] = [
  {
    key: "level",
    csv: (a) => (a.state === "over" ? "over" : a.level),
    title: msg`Level`,
    cell: (a) => (a.state === "over" ? <Tag tone="idle" word={msg`Over`} title={a.endedAt ? time(a.endedAt) : undefined} /> : <Tag {...healthFace(a.level)} />),
  },
  {
    key: "text",
    csv: (a) => a.text,
    title: msg`What`,
    wrap: true,
    cell: (a) => (
      <>
        {a.text}
        {a.hint && <div class="muted small">{capital(a.hint)}</div>}
      </>
    ),
  },
  { key: "object", csv: (a) => a.object, title: msg`Object`, cell: (a) => <ObjectLink object={a.object} /> },
  { key: "code", csv: (a) => a.code, title: msg`Code`, cell: (a) => <code>{a.code}</code> },
  { key: "since", csv: (a) => a.since, title: msg`Since`, cell: (a) => <Age at={a.since} /> },
  { key: "told", csv: (a) => a.firedAt, title: msg`Told`, cell: (a) => <Told alert={a} /> },
  {
    key: "actions",
    title: msg`Action`,
    right: true,
    cell: (a) => (
      <Button
        small
        needs="write"
        label={msg`Silence ${a.code} of ${a.object}`}
        onClick={() => navigate(`/alerts/silences/new?${new URLSearchParams({ code: a.code, object: a.object })}`)}
      >
        {msg`Silence`}
      </Button>
    ),
  },
];

function Told({ alert: a }: { alert: Alert }) {
  if (a.firedAt) {
    return (
      <>
        <Age at={a.firedAt} /> <span class="muted">{rich`by rule ${a.rule}`}</span>
      </>
    );
  }
  return <span class="muted">{a.rule ? msg`not yet, rule ${a.rule}` : msg`not: no rule`}</span>;
}

function RulesTab() {
  const cursor = cursorOf();
  const rules = useAlertRules(cursor);
  return (
    <>
      <div class="toolbar">
        <span class="muted">{msg`Of several rules that match a cause the first decides. What no rule matches is not told.`}</span>
        <span class="spacer" />
        <Button kind="primary" needs="manage" onClick={() => navigate("/alerts/rules/new?tab=rules")}>
          {msg`New rule`}
        </Button>
        <TableTools table="alerts.rules" noun={noun`rule`} columns={ruleColumns} read={(cursor, limit) => call("GET /alerts/rules", { query: { cursor, limit } })} />
      </div>
      <Load query={rules}>
        {(list) => <DataTable label={msg`Rules`} table="alerts.rules" columns={ruleColumns} rows={list.items} rowKey={(r) => r.name} next={list.next} />}
      </Load>
    </>
  );
}

const ruleColumns: Column<AlertRule>[] = [
  {
    key: "name",
    csv: (r) => r.name,
    title: msg`Name`,
    cell: (r) => (
      <>
        {r.name} {r.own && <span class="chip">{msg`own`}</span>}
      </>
    ),
  },
  {
    key: "codes",
    csv: (r) => r.codes.join(" "),
    title: msg`Causes`,
    wrap: true,
    cell: (r) => <code>{r.codes.join(", ")}</code>,
  },
  { key: "level", csv: (r) => r.level, title: msg`Level`, cell: (r) => (r.level ? <Tag {...healthFace(r.level)} /> : <span class="muted">{msg`any`}</span>) },
  { key: "after", csv: { title: msg`After (ms)`, value: (r) => r.afterMs }, title: msg`After`, right: true, cell: (r) => (r.afterMs > 0 ? span(r.afterMs) : msg`at once`) },
  { key: "remind", csv: { title: msg`Again every (ms)`, value: (r) => r.remindMs }, title: msg`Again every`, right: true, cell: (r) => (r.remindMs > 0 ? span(r.remindMs) : <span class="muted">{msg`never`}</span>) },
  { key: "state", csv: (r) => (r.off ? "off" : "on"), title: msg`State`, cell: (r) => (r.off ? <Tag tone="idle" word={msg`Off`} /> : <Tag tone="ok" word={msg`On`} />) },
  { key: "actions", title: msg`Actions`, right: true, cell: (r) => <RuleActions rule={r} /> },
];

/** A setting in ms, in hours and days too. */
function span(ms: number): string {
  return ms % 3_600_000 === 0 ? duration(ms) : interval(ms);
}

function RuleActions({ rule: r }: { rule: AlertRule }) {
  const [open, setOpen] = useState<"change" | "reset" | undefined>(undefined);
  const close = () => setOpen(undefined);
  return (
    <>
      <Button small needs="manage" label={msg`Change rule ${r.name}`} onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>{" "}
      <Button
        small
        kind={r.own ? "danger" : undefined}
        needs="manage"
        label={r.own ? msg`Delete rule ${r.name}` : msg`Reset rule ${r.name}`}
        onClick={() => setOpen("reset")}
      >
        {r.own ? msg`Delete` : msg`Reset`}
      </Button>
      {open === "change" && <RuleDialog rule={r} onClose={close} />}
      {open === "reset" && (
        <Confirm
          title={r.own ? msg`Delete rule ${r.name}` : msg`Reset rule ${r.name}`}
          verb={r.own ? msg`Delete` : msg`Reset`}
          danger={r.own}
          consequences={[r.own ? msg`What it matches is told by the rules after it.` : msg`It becomes as every installation has it.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /alerts/rules/{rule}", { path: { rule: r.name } });
            toast("ok", r.own ? msg`Rule ${r.name} is deleted` : msg`Rule ${r.name} is as it was`);
            reload("alertrules?", "alerts?");
          }}
        />
      )}
    </>
  );
}

function ThresholdsTab() {
  const thresholds = useThresholds(cursorOf());
  return (
    <>
      <div class="toolbar">
        <span class="muted">{msg`What passes a threshold for long enough is a cause of health, and told as the rules say.`}</span>
        <span class="spacer" />
        <Button kind="primary" needs="manage" onClick={() => navigate("/alerts/thresholds/new?tab=thresholds")}>
          {msg`New threshold`}
        </Button>
        <TableTools table="alerts.thresholds" noun={noun`threshold`} columns={thresholdColumns} read={(cursor, limit) => call("GET /alerts/thresholds", { query: { cursor, limit } })} />
      </div>
      <Load query={thresholds}>
        {(list) => <DataTable label={msg`Thresholds`} table="alerts.thresholds" columns={thresholdColumns} rows={list.items} rowKey={(t) => t.name} next={list.next} />}
      </Load>
    </>
  );
}

const thresholdColumns: Column<Threshold>[] = [
  {
    key: "name",
    csv: (t) => t.name,
    title: msg`Name`,
    cell: (t) => (
      <>
        {t.name} {t.own && <span class="chip">{msg`own`}</span>}
      </>
    ),
  },
  { key: "metric", csv: (t) => t.metric, title: msg`Metric`, wrap: true, cell: (t) => <code>{t.metric}</code> },
  { key: "object", csv: (t) => t.object, title: msg`Of`, cell: (t) => (t.object ? <code>{t.object}</code> : <span class="muted">{msg`all`}</span>) },
  { key: "when", csv: (t) => `${t.compare} ${t.value}`, title: msg`When`, cell: (t) => `${t.compare} ${shown(t.value, t.unit)}` },
  { key: "clear", csv: (t) => t.clear, title: msg`Over at`, right: true, cell: (t) => shown(t.clear, t.unit) },
  { key: "for", csv: { title: msg`For (ms)`, value: (t) => t.forMs }, title: msg`For`, right: true, cell: (t) => (t.forMs > 0 ? span(t.forMs) : msg`at once`) },
  { key: "level", csv: (t) => t.level, title: msg`Level`, cell: (t) => <Tag {...healthFace(t.level)} /> },
  { key: "state", csv: (t) => (t.off ? "off" : "on"), title: msg`State`, cell: (t) => (t.off ? <Tag tone="idle" word={msg`Off`} /> : <Tag tone="ok" word={msg`On`} />) },
  { key: "actions", title: msg`Actions`, right: true, cell: (t) => <ThresholdActions threshold={t} /> },
];

function ThresholdActions({ threshold: t }: { threshold: Threshold }) {
  const [open, setOpen] = useState<"change" | "reset" | undefined>(undefined);
  const close = () => setOpen(undefined);
  const verb = t.own ? msg`Delete` : msg`Reset`;
  return (
    <>
      <Button small needs="manage" label={msg`Change threshold ${t.name}`} onClick={() => setOpen("change")}>
        {msg`Change`}
      </Button>{" "}
      <Button small kind={t.own ? "danger" : undefined} needs="manage" label={msg`${verb} threshold ${t.name}`} onClick={() => setOpen("reset")}>
        {verb}
      </Button>
      {open === "change" && <ThresholdDialog threshold={t} onClose={close} />}
      {open === "reset" && (
        <Confirm
          title={msg`${verb} threshold ${t.name}`}
          verb={verb}
          danger={t.own}
          consequences={[t.own ? msg`What passes it is over.` : msg`It becomes as every installation has it.`]}
          onClose={close}
          act={async () => {
            await call("DELETE /alerts/thresholds/{threshold}", { path: { threshold: t.name } });
            toast("ok", t.own ? msg`Threshold ${t.name} is deleted` : msg`Threshold ${t.name} is as it was`);
            reload("thresholds?", "alerts?");
          }}
        />
      )}
    </>
  );
}

type KeptProps<T> = {
  query: Query<{ items: T[]; next: string | null }>;
  label: string;
  table: string;
  noun: string;
  columns: Column<T>[];
  /** Reads a page of the whole list. */
  read: (cursor: string | undefined, limit: number) => Promise<{ items: T[]; next: string | null }>;
  needs: "write" | "manage";
  /** What the button that makes one says, and where it leads. */
  add: string;
  to: string;
  note: string;
  empty: { title: string; text: string; command: string };
};

/** A list of what is made and taken away here, or how to begin. */
function Kept<T extends { id: string }>({ query: kept, label, table, noun, columns, read, needs, add, to, note, empty }: KeptProps<T>) {
  const button = (
    <Button kind="primary" needs={needs} onClick={() => navigate(to)}>
      {add}
    </Button>
  );
  return (
    <Load query={kept}>
      {(list) =>
        list.items.length > 0 || cursorOf() ? (
          <>
            <div class="toolbar">
              <span class="muted">{note}</span>
              <span class="spacer" />
              {button}
              <TableTools table={table} noun={noun} columns={columns} read={read} />
            </div>
            <DataTable label={label} table={table} columns={columns} rows={list.items} rowKey={(row) => row.id} next={list.next} />
          </>
        ) : (
          <Empty {...empty}>{button}</Empty>
        )
      }
    </Load>
  );
}

function ChannelsTab() {
  return (
    <Kept
      query={useChannels(cursorOf())}
      label={msg`Channels`}
      table="alerts.channels"
      noun={noun`channel`}
      read={(cursor, limit) => call("GET /alerts/channels", { query: { cursor, limit } })}
      columns={channelColumns}
      needs="manage"
      add={msg`Add channel`}
      to="/alerts/channels/new?tab=channels"
      note={msg`Every channel is told every alert. Test tells whether it arrives.`}
      empty={{
        title: msg`No channels yet`,
        text: msg`A channel is a mail server or a webhook that alerts are sent to. Without one nobody is told.`,
        command: "ovgate alert channel create webhook NAME",
      }}
    />
  );
}

const channelColumns: Column<AlertChannel>[] = [
  { key: "name", csv: (c) => c.name, title: msg`Name`, cell: (c) => c.name },
  { key: "kind", csv: (c) => c.kind, title: msg`Kind`, cell: (c) => (c.kind === "email" ? msg`Mail` : c.format === "slack" ? msg`Webhook, Slack` : msg`Webhook, JSON`) },
  { key: "where", csv: (c) => c.to.join("; "), title: msg`To`, wrap: true, cell: (c) => <Where channel={c} /> },
  { key: "created", csv: (c) => c.created, title: msg`Added`, right: true, cell: (c) => <Age at={c.created} /> },
  { key: "actions", title: msg`Actions`, right: true, cell: (c) => <ChannelActions channel={c} /> },
];

function Where({ channel: c }: { channel: AlertChannel }) {
  if (c.kind === "webhook") {
    return <span class="muted">{msg`an address that is kept sealed`}</span>;
  }
  return (
    <>
      {c.to.join(", ")}
      <div class="muted small">
        {rich`from ${c.from} by ${c.host}:${c.port}${c.security === "none" && msg`, not encrypted`}`}
      </div>
    </>
  );
}

function ChannelActions({ channel: c }: { channel: AlertChannel }) {
  const [busy, setBusy] = useState(false);
  const [ask, setAsk] = useState(false);
  const test = async () => {
    setBusy(true);
    try {
      await call("POST /alerts/channels/{channel}/test", { path: { channel: c.id } });
      toast("ok", msg`A test message was delivered to ${c.name}`);
    } catch (error) {
      const failure = asApiError(error);
      toast("bad", [failure.message, failure.hint].filter(Boolean).join(". "));
    }
    setBusy(false);
  };
  return (
    <>
      <Button small needs="manage" busy={busy} label={msg`Test ${c.name}`} onClick={() => void test()}>
        {msg`Test`}
      </Button>{" "}
      <Button small kind="danger" needs="manage" label={msg`Delete channel ${c.name}`} onClick={() => setAsk(true)}>
        {msg`Delete`}
      </Button>
      {ask && (
        <Confirm
          title={msg`Delete channel ${c.name}`}
          verb={msg`Delete`}
          danger
          consequences={[msg`No alert is sent to it any more, nor that one is over.`]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /alerts/channels/{channel}", { path: { channel: c.id } });
            toast("ok", msg`Channel ${c.name} is deleted`);
            reload("channels?");
          }}
        />
      )}
    </>
  );
}

function SilencesTab() {
  return (
    <Kept
      query={useSilences(cursorOf())}
      label={msg`Silences`}
      table="alerts.silences"
      noun={noun`silence`}
      read={(cursor, limit) => call("GET /alerts/silences", { query: { cursor, limit } })}
      columns={silenceColumns}
      needs="write"
      add={msg`New silence`}
      to="/alerts/silences/new?tab=silences"
      note={msg`What a silence matches is listed and counts for health, and is not told while it lasts.`}
      empty={{
        title: msg`No silences`,
        text: msg`A silence keeps alerts from being told for a while, such as those of a node that is being repaired.`,
        command: "ovgate alert silence create --object 'vdisk demo' --until 2h --why REASON",
      }}
    />
  );
}

const anything = <span class="muted">{msg`any`}</span>;

const silenceColumns: Column<Silence>[] = [
  { key: "object", csv: (s) => s.object, title: msg`Object`, cell: (s) => (s.object ? <code>{s.object}</code> : anything) },
  { key: "code", csv: (s) => s.code, title: msg`Code`, cell: (s) => (s.code ? <code>{s.code}</code> : anything) },
  { key: "why", csv: (s) => s.why, title: msg`Why`, wrap: true, cell: (s) => s.why },
  { key: "by", csv: (s) => s.by, title: msg`By`, cell: (s) => s.by },
  { key: "until", csv: (s) => s.untilAt, title: msg`Ends`, right: true, cell: (s) => <Ends at={s.untilAt} /> },
  { key: "actions", title: msg`Action`, right: true, cell: (s) => <EndSilence silence={s} /> },
];

function Ends({ at }: { at: string }) {
  const left = Date.parse(at) - now.value;
  return left > 0 ? <span title={time(at)}>{rich`in ${duration(left)}`}</span> : <Tag tone="idle" word={msg`Ended`} />;
}

function EndSilence({ silence: s }: { silence: Silence }) {
  const [busy, setBusy] = useState(false);
  const end = async () => {
    setBusy(true);
    try {
      await call("DELETE /alerts/silences/{silence}", { path: { silence: s.id } });
      toast("ok", msg`The silence is ended: what it matched is told again`);
    } catch (error) {
      toast("bad", asApiError(error).message);
    }
    setBusy(false);
    reload("silences?", "alerts?");
  };
  return (
    <Button small needs="write" busy={busy} label={msg`End the silence of ${[s.object, s.code].filter(Boolean).join(" ")}`} onClick={() => void end()}>
      {msg`End`}
    </Button>
  );
}
