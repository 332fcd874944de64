import { useState } from "preact/hooks";
import { call } from "../api/client";
import type { ClusterStatus, JoinToken, Member, NewJoinToken } from "../api/gen";
import { query } from "../router";
import { reload } from "../store/query";
import { useJoinTokens, useNodes } from "../store/reads";
import { denied } from "../store/session";
import { useSubmit } from "../store/submit";
import { toast } from "../store/toasts";
import { Age, Until } from "../parts/Age";
import { Button } from "../parts/Button";
import { CopyBlock } from "../parts/CopyBlock";
import { DataTable, type Column } from "../parts/DataTable";
import { Confirm, Dialog, DoneFoot } from "../parts/Dialog";
import { SelectField, TextField } from "../parts/Field";
import { FormDialog } from "../parts/FormDialog";
import { Load } from "../parts/Load";
import { Notice } from "../parts/Notice";
import { Card } from "../parts/Page";
import { Tag, type Tone } from "../parts/StateTag";
import { TextArea } from "../parts/TextArea";
import { msg, rich } from "../text";

/** Why this node cannot be the first of a cluster now; undefined: it can. */
export function noCluster(c: ClusterStatus | undefined): string | undefined {
  if (c?.name === null && c.registry === "embedded") {
    return msg`The registry is in this node's data directory: name an etcd in the configuration first, under registry`;
  }
  return undefined;
}

/** Makes the node that answers the first of a cluster. */
export function MakeCluster({ reason, onClose }: { reason: string | undefined; onClose: () => void }) {
  const submit = useSubmit();
  const [name, setName] = useState("");
  const save = async () => {
    const made = await call("POST /cluster", { body: { name: name.trim() } });
    toast("ok", msg`This node is the first of cluster ${made.name ?? name}`);
    reload("cluster", "nodes?", "status");
    onClose();
  };
  return (
    <FormDialog title={msg`Make a cluster`} verb={msg`Make it`} needs="manage" submit={submit} fields={["name"]} save={save} onClose={onClose}>
      {reason && <Notice tone="warn">{reason}.</Notice>}
      <p>{msg`This node becomes its first, and its certificate authority the cluster's. Hosts notice nothing. Other nodes join with tokens.`}</p>
      <TextField label={msg`Name`} name="name" value={name} onValue={setName} hint={msg`For good. Letters, digits, dot, dash and underscore.`} error={submit.at("name")} input={{ autofocus: true }} />
    </FormDialog>
  );
}

const faces: Record<JoinToken["state"], { tone: Tone; word: string }> = {
  waiting: { tone: "info", word: msg`Waits for a node` },
  used: { tone: "ok", word: msg`Used` },
  expired: { tone: "idle", word: msg`Expired` },
};

/** A node by its name where that is known. */
function nameOf(id: string, nodes: Member[] | undefined): string {
  return nodes?.find((n) => n.id === id)?.name ?? id;
}

/** Tokens that let nodes join, without their secrets. */
export function JoinTokensCard() {
  const reason = denied("manage");
  return (
    <Card title={msg`Join tokens`}>
      {reason ? <p class="muted">{reason}.</p> : <JoinTokens />}
    </Card>
  );
}

function JoinTokens() {
  const cursor = query.value.get("tokens") ?? undefined;
  const tokens = useJoinTokens(cursor);
  const nodes = useNodes();
  const columns: Column<JoinToken>[] = [
    { key: "id", title: msg`Id`, cell: (t) => <code>{t.id}</code> },
    { key: "state", title: msg`State`, cell: (t) => <Tag {...faces[t.state]} /> },
    { key: "node", title: msg`Node`, wrap: true, cell: (t) => (t.node ? nameOf(t.node, nodes.data?.items) : "–") },
    { key: "created", title: msg`Made`, right: true, cell: (t) => <Age at={t.created} /> },
    { key: "expires", title: msg`Expires`, right: true, cell: (t) => (t.state === "waiting" ? <Until at={t.expires} /> : "–") },
    { key: "actions", title: msg`Action`, right: true, cell: (t) => <Revoke token={t} /> },
  ];
  return (
    <Load query={tokens}>
      {(list) =>
        list.items.length === 0 && !cursor ? (
          <p class="muted">{msg`None. A token lets one machine join as a node.`}</p>
        ) : (
          <DataTable label={msg`Join tokens`} columns={columns} rows={list.items} rowKey={(t) => t.id} next={list.next} cursor="tokens" />
        )
      }
    </Load>
  );
}

function Revoke({ token: t }: { token: JoinToken }) {
  const [ask, setAsk] = useState(false);
  const verb = t.state === "waiting" ? msg`Revoke` : msg`Forget`;
  return (
    <>
      <Button small kind="danger" needs="manage" label={msg`${verb} join token ${t.id}`} onClick={() => setAsk(true)}>
        {verb}
      </Button>
      {ask && (
        <Confirm
          title={msg`${verb} join token ${t.id}`}
          verb={verb}
          danger
          consequences={[t.state === "waiting" ? msg`No node joins with it any more.` : msg`It is no longer listed. A node that joined with it stays.`]}
          onClose={() => setAsk(false)}
          act={async () => {
            await call("DELETE /cluster/tokens/{token}", { path: { token: t.id } });
            toast("ok", msg`Join token ${t.id} is gone`);
            reload("jointokens?");
          }}
        />
      )}
    </>
  );
}

const hourMs = 3_600_000;

const lives = [
  { value: String(hourMs), text: msg`1 hour` },
  { value: String(24 * hourMs), text: msg`1 day` },
  { value: String(7 * 24 * hourMs), text: msg`1 week` },
];

/** Makes a token, tells how it is used, and waits for the node. */
export function AddNode({ onClose }: { onClose: () => void }) {
  const submit = useSubmit();
  const [life, setLife] = useState(String(hourMs));
  const [urls, setUrls] = useState("");
  const [made, setMade] = useState<NewJoinToken | undefined>(undefined);
  const save = async (key: string) => {
    const named = urls.split(/\s+/).filter(Boolean);
    setMade(await call("POST /cluster/tokens", { key, body: { lifeMs: Number(life), ...(named.length > 0 ? { urls: named } : {}) } }));
    reload("jointokens?");
  };
  if (made) {
    return <Joining token={made} onClose={onClose} />;
  }
  return (
    <FormDialog title={msg`Add node`} verb={msg`Make a token`} needs="manage" submit={submit} fields={["lifeMs", "urls"]} save={save} onClose={onClose}>
      <p>{msg`The new machine has ovgate, and an empty data directory. A token lets it join, once.`}</p>
      <SelectField label={msg`The token holds for`} name="lifeMs" value={life} onValue={setLife} options={lives} error={submit.at("lifeMs")} />
      <TextArea
        label={msg`Nodes that it asks`}
        name="urls"
        value={urls}
        onValue={setUrls}
        rows={2}
        hint={msg`https://HOST:PORT of their consoles, one a line. Empty: those that are up.`}
        error={submit.at("urls")}
      />
    </FormDialog>
  );
}

/** Whether an address means the machine that it is used on. */
function loopback(url: string): boolean {
  const host = URL.canParse(url) ? new URL(url).hostname : url;
  return host === "localhost" || host === "[::1]" || /^127\./.test(host);
}

/** What is done on the new machine, and whether it was. */
function Joining({ token, onClose }: { token: NewJoinToken; onClose: () => void }) {
  const tokens = useJoinTokens();
  const nodes = useNodes();
  const now = tokens.data?.items.find((t) => t.id === token.id);
  return (
    <Dialog title={msg`Add node`} onClose={onClose}>
      <div class="stack-wide">
        <Notice tone="warn">{msg`Copy the token now: it is not shown again.`}</Notice>
        {token.urls.every(loopback) && (
          <Notice tone="warn">
            <b>{rich`Another machine does not reach ${token.urls.join(", ")}.`}</b>
            <span>{msg`Give the API another address in the configuration, or name one for the token.`}</span>
          </Notice>
        )}
        <CopyBlock label={msg`Token`} name="joinToken" text={token.token} />
        <CopyBlock
          label={msg`On the new machine; join asks for the token`}
          name="join"
          text={"ovgate cluster join --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml\novgate serve --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml"}
        />
        <div role="status">
          {now?.node ? (
            <Notice tone="ok">
              <b>{rich`${nameOf(now.node, nodes.data?.items)} joined.`}</b>
              <span>{msg`It serves once ovgate serve runs there.`}</span>
            </Notice>
          ) : (
            <Notice tone="info" waiting>
              <span>{msg`Waiting for the node; it may join after this is closed, too.`}</span>
            </Notice>
          )}
        </div>
        <DoneFoot onClose={onClose} />
      </div>
    </Dialog>
  );
}
