package api_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// elsewhere has the operations that a node alone cannot carry out, each with a file that calls it
// with success and what the call looks like there, as repository path and text.
var elsewhere = map[string][2]string{
	// These take a cluster.
	"InitCluster":       {"gateway/node/cluster_test.go", `"POST", "/cluster"`},
	"JoinCluster":       {"gateway/cmd/ovgate/testdata/cluster/join.txt", "exec ovgate cluster join"},
	"LeaveCluster":      {"gateway/node/join_test.go", "/cluster/leave"},
	"ListJoinTokens":    {"gateway/node/cluster_test.go", `"GET", "/cluster/tokens", nil, 200`},
	"CreateJoinToken":   {"gateway/node/cluster_test.go", `"POST", "/cluster/tokens"`},
	"RevokeJoinToken":   {"gateway/node/cluster_test.go", `"DELETE", "/cluster/tokens/"`},
	"RemoveNode":        {"gateway/node/cut_test.go", `"DELETE", "/nodes/n2", nil, 204`},
	"ApplyNodeLayout":   {"gateway/node/layout_test.go", `"POST", path, nil, 202`},
	"DrainNode":         {"gateway/node/clusterloss_test.go", `"POST", "/nodes/n1/drain", nil, 202`},
	"HandOverVDisk":     {"gateway/node/albanodes_test.go", `"POST", "/vdisks/a/handover", map[string]any{"node": "alpha"}, 202`},
	"RestSnapshotGroup": {"gateway/node/snapshotgroup_test.go", "made := group(r, 201, name)"},
	"GoSnapshotGroup":   {"gateway/node/snapshotgroup_test.go", "made := group(r, 201, name)"},
	"UndoSnapshotGroup": {"gateway/node/snapshotgroup_test.go", `group(r, 409, "taken")`},
	"StealVDisk":        {"gateway/node/clusterloss_test.go", `"POST", "/vdisks/a/steal", map[string]any{"acceptLoss": true}, 200`},
	// The metadata of a whole node.
	"BackUpMetadata":      {"gateway/cmd/ovgate/testdata/serve/metadata.txt", "exec ovgate metadata backup copy.gz"},
	"AcceptUnclearVDisks": {"gateway/cmd/ovgate/testdata/serve/metadata.txt", "exec ovgate metadata accept gold"},
	// A person at a provider.
	"FinishOidc": {"gateway/api/oidc_test.go", `"/session/oidc/answer"`},
	// Forms.
	"IssueOAuthToken":  {"gateway/api/oauth_test.go", `s.form("/oauth2/token", id, secret`},
	"RevokeOAuthToken": {"gateway/api/oauth_test.go", `s.form("/oauth2/revoke", web, webSecret`},
	// A vDisk that lost something, and a session of an initiator.
	"AcceptVDiskLoss": {"gateway/cmd/ovgate/testdata/serve/losttail.txt", "exec ovgate vdisk accept-loss db"},
	"GetISCSISession": {"gateway/node/block_test.go", `"GET", "/iscsi/sessions/"+id+query, nil, 200`},
	// A device that can be spared.
	"DecommissionOSD": {"gateway/cmd/ovgate/testdata/serve/alba.txt", "exec ovgate osd decommission 1"},
	"PurgeOSD":        {"gateway/cmd/ovgate/testdata/serve/alba.txt", "exec ovgate osd purge 2"},
	// Stores of the network.
	"CreateBackend": {"gateway/cmd/ovgate/testdata/remote/s3.txt", "exec ovgate backend create s3 store"},
	"GetBackend":    {"gateway/cmd/ovgate/testdata/remote/s3.txt", "exec ovgate backend show store"},
	"UpdateBackend": {"gateway/cmd/ovgate/testdata/remote/s3.txt", "exec ovgate backend set store"},
	"TestBackend":   {"gateway/cmd/ovgate/testdata/remote/s3.txt", "exec ovgate backend test store"},

	"GetBackendPerformance": {"gateway/cmd/ovgate/testdata/remote/s3.txt", "ovgate backend performance store"},
	// A real Keystone and Cinder.
	"CreateCloud":       {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack cloud create prod"},
	"GetCloud":          {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack cloud show prod"},
	"UpdateCloud":       {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack cloud set prod"},
	"TestCloud":         {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack cloud test main"},
	"SetVolumeType":     {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack type set prod"},
	"DeleteVolumeType":  {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack type delete prod"},
	"ApplyCloud":        {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack cloud apply prod"},
	"ListCloudBackends": {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack backend list prod"},
	"ListCloudVolumes":  {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack volume list prod"},
	"ListOrphans":       {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack volume orphans"},
	"GetCloudUsage":     {"gateway/cmd/ovgate/testdata/cloud/cloud.txt", "exec ovgate openstack volume usage prod"},
	// Hosts that sign in to the target.
	"GetDatastore":         {"scripts/vsphere/lab_test.go", "l.api.GetDatastore("},
	"LookAtDatastore":      {"scripts/vsphere/lab_test.go", "l.api.LookAtDatastore("},
	"RegisterCenterPlugin": {"scripts/vsphere/plugin_test.go", "l.api.RegisterCenterPlugin("},
	"AttachRDM":            {"scripts/vsphere/rdm_test.go", "l.api.AttachRDM("},
	"GetRDM":               {"scripts/vsphere/rdm_test.go", "l.api.GetRDM("},
	"ExpandDatastore":      {"scripts/vsphere/cli_test.go", `"datastore", "expand"`},
	"RenameDatastore":      {"scripts/vsphere/cli_test.go", `"datastore", "rename"`},
	"SnapshotDatastore":    {"scripts/vsphere/cli_test.go", `"datastore", "snapshot"`},
	"AttachDatastore":      {"scripts/vsphere/cli_test.go", `"datastore", "attach"`},
	"ImportDatastore":      {"scripts/vsphere/lifecycle_test.go", "l.api.ImportDatastore("},
}

// step is a call of the tour that succeeds.
type step struct {
	op     string
	values string // NAME=VALUE of the path and ?NAME=VALUE of the query, with spaces between
	body   string
}

// noLight is what LocateOSD answers for a directory, which has no light: more it can say only
// where a disk has one.
const noLight = `"no_light"`

// everyCalled checks that every operation was called, but for those of which elsewhere says who
// does.
func (s *served) everyCalled(called map[string]bool) {
	t := s.t
	t.Helper()
	for _, id := range slices.Sorted(maps.Keys(s.ops)) {
		e, listed := elsewhere[id]
		switch {
		case called[id] && listed:
			t.Errorf("%s is called here: take it out of elsewhere", id)
		case !called[id] && !listed:
			t.Errorf("no test calls %s: add a step to tour, or to elsewhere who calls it", id)
		case listed:
			b, err := os.ReadFile(filepath.Join("../..", e[0]))
			if err != nil || !strings.Contains(string(b), e[1]) {
				t.Errorf("%s: there is no %q in %s (%v)", id, e[1], e[0], err)
			}
		}
	}
	for id := range elsewhere {
		if _, ok := s.ops[id]; !ok {
			t.Errorf("elsewhere has %s, which is no operation", id)
		}
	}
}

// tour calls what can be called, and returns what it called. It leaves the vPools gold, silver and
// alba, and on gold the vDisks one and two.
func (s *served) tour() map[string]bool {
	t := s.t
	called := map[string]bool{}
	do := func(steps ...step) answer {
		t.Helper()
		var last answer
		for _, st := range steps {
			values := map[string]string{}
			for _, f := range strings.Fields(st.values) {
				k, v, _ := strings.Cut(f, "=")
				values[k] = v
			}
			last = s.must(st.op, values, st.body)
			called[st.op] = true
		}
		return last
	}
	field := func(a answer, names ...string) string {
		t.Helper()
		var v any
		if err := json.Unmarshal(a.body, &v); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			m, ok := v.(map[string]any)
			if !ok || m[n] == nil {
				t.Fatalf("no %v in %s", names, a.body)
			}
			v = m[n]
		}
		if f, ok := v.(float64); ok {
			return fmt.Sprintf("%.0f", f)
		}
		return v.(string)
	}
	// Whatever takes nothing.
	do(step{op: "CompleteSetup", body: fmt.Sprintf(`{"token":%q,"user":"anna","password":"correct horse"}`, s.file("setup.token"))})
	do(step{op: "SignIn", body: `{"user":"anna","password":"correct horse"}`}, step{op: "SignOut"})
	for _, id := range slices.Sorted(maps.Keys(s.ops)) {
		_, other := elsewhere[id]
		if op := s.ops[id]; !other && op.method == http.MethodGet && !strings.Contains(op.path, "{") {
			do(step{op: id})
		}
	}
	dir := t.TempDir()
	do(
		step{"GetNode", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{"GetNodeMachine", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{"CheckNode", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{op: "ListDomains"},
		step{"GetDomain", "domain=-", ""},
		step{"ListDomainVDisks", "domain=-", ""},
		step{"GetNodeLayout", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{"GetNodePerformance", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{"EndNodeDrain", "node=" + field(do(step{op: "GetStatus"}), "node", "id"), ""},
		step{"Rebalance", "", `{"dryRun":true}`},
		step{"GetDocument", "document=operations", ""},

		step{"CreateVPool", "", fmt.Sprintf(`{"name":"gold","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(dir, "gold"))},
		step{"CreateVPool", "", fmt.Sprintf(`{"name":"silver","encrypt":true,"backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(dir, "silver"))},
		step{"GetVPool", "vpool=gold", ""},
		step{"GetVPoolKey", "vpool=silver", ""},
		step{"UpdateVPool", "vpool=gold", `{"settings":{"historyMs":3600000}}`},
		step{"CreateVPool", "", fmt.Sprintf(`{"name":"lost","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(dir, "lost"))},
		step{"RecoverVPool", "", fmt.Sprintf(`{"name":"lost","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(dir, "lost"))},
		step{"DeleteVPool", "vpool=lost", ""},

		step{"CreateVDisk", "", `{"name":"one","vpool":"gold","size":1048576,"labels":{"a":"b"}}`},
		step{"CreateVDisk", "", `{"name":"two","vpool":"gold","size":1048576}`},
		step{"GetVDisk", "vdisk=one", ""},
		step{"UpdateVDisk", "vdisk=one", `{"size":2097152}`},
		step{"SetVDiskQos", "vdisk=one", `{"iops":1000,"bytesPerSecond":0,"burstMs":0}`},
		step{"SetVDiskCache", "vdisk=one", `{"mode":"on-write","quota":0}`},
		step{"SetVDiskHistory", "vdisk=one", `{"keepMs":3600000}`},
		step{"SetVDiskDtl", "vdisk=one", `{"mode":"off"}`},
		step{"CommitVDisk", "vdisk=one", ""},
		step{"GetVDiskStats", "vdisk=one", ""},
		step{"GetVDiskPerformance", "vdisk=one ?points=100&latencies=true", ""},
		step{"GetVPoolPerformance", "vpool=gold", ""},
		step{"CancelVDiskHandover", "vdisk=one", ""},
	)
	own := "iqn=" + field(do(step{"PublishVDisk", "vdisk=one", `{"initiators":["iqn.2004-10.com.ubuntu:01:a"]}`}), "iqn")
	do(
		step{"AddTargetInitiator", own + " initiator=iqn.2004-10.com.ubuntu:01:b", ""},
		step{"RemoveTargetInitiator", own + " initiator=iqn.2004-10.com.ubuntu:01:b", ""},
		step{"UnpublishVDisk", "vdisk=one", `{"force":true}`},

		step{"CreateSnapshot", "vdisk=one", `{"name":"s1"}`},
		step{"CreateSnapshotGroup", "", `{"name":"both","vdisks":["one","two"]}`},
		step{"ListSnapshots", "vdisk=one", ""},
		step{"GetVDiskHistory", "vdisk=one", ""},
		step{"CloneVDisk", "vdisk=one", `{"name":"child","snapshot":"s1"}`},
		step{"FlattenVDisk", "vdisk=child", ""},
		step{"CancelFlattenVDisk", "vdisk=child", ""},
		step{"RollbackVDisk", "vdisk=one", `{"snapshot":"both","force":true}`},
		step{"DeleteVDisk", "vdisk=child", ""},
		step{"ListTrash", "", ""},
		step{"RestoreTrash", "vdisk=child", `{"name":"child2"}`},
		step{"DeleteVDisk", "vdisk=child2", ""},
		step{"PurgeTrash", "vdisk=child2", ""},
		step{"DeleteSnapshot", "vdisk=one snapshot=both", ""},
		step{"FreezeVDisk", "vdisk=two", ""},
		step{"ThawVDisk", "vdisk=two", ""},
		step{"ScrubVDisk", "vdisk=one", `{"dryRun":true}`},
		step{"GetVDiskScrub", "vdisk=one", ""},
		step{"VerifyVDisk", "vdisk=one", `{}`},
		step{"GetVDiskVerification", "vdisk=one", ""},
		step{"CancelVDiskVerification", "vdisk=one", ""},
		step{"SweepVPool", "vpool=gold", `{"dryRun":true}`},
		step{"GetVPoolSweep", "vpool=gold", ""},

		step{"SetSchedule", "job=snapshot ?vdisk=one", `{"enabled":true,"cron":"@daily"}`},
		step{"GetSchedule", "?vdisk=one", ""},
		step{"RunSchedule", "job=snapshot ?vdisk=one", ""},
		step{"ResetSchedule", "job=snapshot ?vdisk=one", ""},
	)
	export := "transfer=" + field(do(step{"BeginExport", "vdisk=one", `{}`}), "id")
	do(step{"GetExport", export, ""}, step{"GetExtents", export + " ?offset=0", ""}, step{"ReadExport", export + " ?offset=0 ?length=4096", ""}, step{"EndExport", export, ""})
	load := "transfer=" + field(do(step{"BeginImport", "", `{"name":"in","vpool":"gold","size":1048576}`}), "id")
	do(step{"GetImport", load, ""}, step{"WriteImport", load + " ?offset=0", strings.Repeat("x", 4096)}, step{"FinishImport", load, ""}, step{"AbortImport", "transfer=none", ""})
	do(step{"BeginImport", "", `{"name":"left","vpool":"gold","size":1048576}`})
	var jobs struct{ Items []struct{ ID string } }
	if a := do(step{"ListJobs", "?kind=import ?state=running,waiting", ""}); json.Unmarshal(a.body, &jobs) != nil || len(jobs.Items) != 1 {
		t.Fatalf("jobs: %s", a.body)
	}
	do(step{"GetJob", "job=" + jobs.Items[0].ID, ""}, step{"CancelJob", "job=" + jobs.Items[0].ID, ""})
	do(step{"MoveVDisk", "vdisk=in", `{"vpool":"silver"}`}, step{"CancelMoveVDisk", "vdisk=in", ""})

	iqn := "iqn=" + field(do(step{"CreateTarget", "", `{"name":"shared"}`}), "iqn")
	do(
		step{"GetTarget", iqn, ""},
		step{"SetTargetPortals", iqn, `{"addresses":[]}`},
		step{"CreateTargetGroup", iqn, `{"name":"hosts","initiators":["iqn.2004-10.com.ubuntu:01:c"]}`},
		step{"UpdateTargetGroup", iqn + " group=hosts", `{"readOnly":true}`},
		step{"DeleteTargetGroup", iqn + " group=hosts", ""},
		step{"DeleteTarget", iqn + " ?force=true", ""},
		step{"DropISCSISession", "session=none", ""},
	)

	do(step{"CreateVPool", "", `{"name":"alba","backend":{"kind":"alba","path":"","preset":"","store":""}}`})
	osd := "osd=" + field(do(step{"ClaimOSD", "", fmt.Sprintf(`{"directory":%q,"capacity":1073741824}`, filepath.Join(dir, "osd"))}), "number")
	do(
		step{"GetOSD", osd, ""},
		step{"VerifyOSD", osd, ""},
		step{"MoveOSD", osd, fmt.Sprintf(`{"directory":%q}`, filepath.Join(dir, "osd"))},
		step{"CreatePreset", "", `{"name":"flat","policies":["2,1,3,4"]}`},
		step{"GetPreset", "preset=flat", ""},
		step{"UpdatePreset", "preset=flat", `{"policies":["1,1,2,4"]}`},
		step{"DeletePreset", "preset=flat", ""},
		step{"ReplaceOSD", osd, fmt.Sprintf(`{"directory":%q,"capacity":1073741824}`, filepath.Join(dir, "osd2"))},
		step{"SurveyAlba", "", ""},
		step{"RotateAlbaKey", "", ""},
		step{"RecoverAlba", "", `{}`},
		step{"ClearJobs", "", ""},
		step{"DeleteBackend", "backend=none", ""},
	)

	if a := s.do(request{method: "POST", path: "/osds/1/locate", body: []byte(`{"on":true}`), header: bearer(s.token)}); a.status != 409 || !strings.Contains(string(a.body), noLight) {
		t.Errorf("LocateOSD: %d %s", a.status, a.body)
	}
	called["LocateOSD"] = true

	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	do(
		step{"CreateCenter", "", fmt.Sprintf(`{"name":"prod","options":{"url":%q,"user":%q,"thumbprint":%q},"secret":%q}`, v.URL(), v.User(), v.Thumbprint(), v.Password())},
		step{"GetCenter", "center=prod", ""},
		step{"TestCenter", "center=prod", ""},
		step{"UpdateCenter", "center=prod", `{"name":"prod2"}`},
		step{"ListCenterHosts", "center=prod2", ""},
		step{"PrepareCenterHosts", "center=prod2", fmt.Sprintf(`{"cluster":%q,"dryRun":true}`, esxsim.Cluster)},
		step{"CreateDatastore", "", fmt.Sprintf(`{"name":"ds","center":"prod2","cluster":%q,"vpool":"gold","size":2147483648,"dryRun":true}`, esxsim.Cluster)},
		step{"GetCenterPlugin", "center=prod2", ""},
		step{"UnregisterCenterPlugin", "center=prod2", ""},
		step{"ListVMs", "", ""},
		step{"RemoveDatastore", "datastore=none", ""},
		step{"ListRDMs", "", ""},
		step{"DetachRDM", "rdm=none", ""},
		step{"DeleteCenter", "center=prod2", ""},
		step{"DeleteCloud", "cloud=none", ""},
	)

	do(
		step{"CreateUser", "", `{"name":"bert","role":"write","password":"correct horse"}`},
		step{"GetUser", "user=bert", ""},
		step{"UpdateUser", "user=bert", `{"role":"read"}`},
	)
	do(
		step{"CreateGroup", "", `{"name":"readers","role":"read","grants":[{"role":"write","scope":"vpool:gold"}]}`},
		step{"AddGroupMember", "group=readers user=bert", ""},
		step{"GetGroup", "group=readers", ""},
		step{"UpdateGroup", "group=readers", `{"name":"writers","role":"write"}`},
		step{"RemoveGroupMember", "group=writers user=bert", ""},
		step{"DeleteGroup", "group=writers", ""},
	)
	client := "client=" + field(do(step{"CreateClient", "", `{"name":"ci","user":"bert","grantTypes":["password"],"role":"read"}`}), "client", "id")
	do(step{"RenewClientSecret", client, ""}, step{"DeleteClient", client, ""})
	token := "token=" + field(do(step{"CreateToken", "", `{"name":"ci","user":"bert","role":"read"}`}), "token", "id")
	do(step{"DeleteToken", token, ""}, step{"DeleteUser", "user=bert", ""})

	idp, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	trust, err := json.Marshal(idp.CA())
	if err != nil {
		t.Fatal(err)
	}
	do(
		step{"SetOidc", "", fmt.Sprintf(`{"issuer":%q,"clientId":"ovgate","secret":%q,"ca":%s,"addresses":["https://localhost"],"roles":[{"group":"all","role":"read"}]}`, idp.Issuer(), oidctest.Secret, trust)},
		step{op: "TestOidc"},
		step{"BeginOidc", "", `{"address":"https://localhost"}`},
		step{op: "DeleteOidc"},
	)

	hook := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(hook.Close)
	ca, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})))
	if err != nil {
		t.Fatal(err)
	}
	silence := "silence=" + field(do(step{"CreateSilence", "", fmt.Sprintf(`{"code":"x","untilAt":%q,"why":"a test"}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))}), "id")
	do(
		step{"DeleteSilence", silence, ""},
		step{"SetAlertRule", "rule=late", `{"codes":["x_*"],"afterMs":60000}`},
		step{"ResetAlertRule", "rule=late", ""},
		step{op: "ListMetrics"},
		step{op: "ListThresholds"},
		step{"SetThreshold", "threshold=slow", `{"metric":"vdisk.read_latency_p99","value":20000,"clear":10000}`},
		step{"ResetThreshold", "threshold=slow", ""},
		step{"CreateAlertChannel", "", fmt.Sprintf(`{"name":"hook","kind":"webhook","secretUrl":%q,"ca":%s}`, hook.URL, ca)},
		step{"TestAlertChannel", "channel=hook", ""},
		step{"DeleteAlertChannel", "channel=hook", ""},
	)
	s.tells("center.changed", "center.forgotten", "center.registered", "osd.claimed", "store.key_rotated")
	return called
}

// tells waits until the node's history has events of these codes.
func (s *served) tells(codes ...string) {
	s.t.Helper()
	for _, code := range codes {
		for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if a := s.must("ListEvents", map[string]string{"?code": code}, ""); strings.Contains(string(a.body), `"code":"`+code+`"`) {
				break
			} else if time.Now().After(until) {
				s.t.Errorf("no event %s is told: %s", code, a.body)
				break
			}
		}
	}
}
