package node

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// makeGolden has TestMakeGolden add the next golden data directory.
var makeGolden = flag.Bool("make-golden", false, "add a data directory of the present formats to testdata/golden")

// goldenDir has the golden data directories: N.tar.zst is one, N.json what is in it. They are
// kept for ever, since what they hold is what users have: a change of a format adds one, made by
// the code before or after it, and takes none away.
const goldenDir = "testdata/golden"

// goldenLimit bounds a golden in the repository, in bytes.
const goldenLimit = 2 << 20

// goldenHome stands in records for the data directory, which is elsewhere in each test.
const goldenHome = "/golden/data"

// onDisk are the numbers of the formats that a data directory or a backend has, as FILE CONSTANT.
// gateway/docs/architecture.md has the rule, and what each of them is.
var onDisk = []string{
	"alba/asd/identity.go formatVersion",
	"alba/fragment/index.go indexVersion",
	"alba/fragment/keys.go wrapVersion",
	"alba/layout/manifest.go manifestV1",
	"alba/layout/manifest.go recoveryV1",
	"alba/nsm/garbage.go garbageV1",
	"gateway/control/seal.go sealVersion",
	"gateway/model/records.go Format",
	"gateway/node/datadir.go formatVersion",
	"gateway/node/self.go selfFormat",
	"internal/kv/bolt.go boltFormat",
	"iscsi/reservationstore.go storedVersion",
	"volumedriver/backend/encrypted/store.go version",
	"volumedriver/blockmap/checkpoint.go ckptVersion",
	"volumedriver/blockmap/index.go indexVersion",
	"volumedriver/blockmap/index.go segmentVersion",
	"volumedriver/journal/format.go formatVersion",
	"volumedriver/journal/pool.go poolFormat",
	"volumedriver/sco/sco.go version",
	"volumedriver/tlog/tlog.go version",
	"volumedriver/volume/head.go HeadFormat",
	"volumedriver/volume/head.go RootFormat",
	"volumedriver/volume/past.go PastFormat",
	"volumedriver/volume/registry.go RecordFormat",
}

// notInGolden are the other numbers of formats, with why no golden data directory has them.
var notInGolden = map[string]string{
	"gateway/backup/backup.go Format":                "backups are outside of a node; gateway/backup has its golden",
	"gateway/cluster/lease.go leaseFormat":           "a lease ends with its node",
	"gateway/cluster/record.go recordFormat":         "takes a cluster; gateway/cluster has its golden",
	"gateway/cluster/token.go tokenFormat":           "takes a cluster, and lasts for hours",
	"gateway/disk/label.go labelVersion":             "a label is on a disk; gateway/disk has its golden",
	"gateway/node/datadir.go formatFirst":            "a number that formatVersion counts",
	"gateway/node/datadir.go formatMoved":            "a number that formatVersion counts",
	"gateway/node/join.go joiningFormat":             "takes a cluster, and lasts until the node is in it",
	"gateway/node/registry.go placeFormat":           "takes a cluster",
	"internal/kv/dump/dump.go Format":                "the backup of the metadata is outside of a node; internal/kv/dump has its golden",
	"volumedriver/dtl/copy.go stateFormat":           "takes another node's journal",
	"volumedriver/journal/format.go plainVersion":    "a number that formatVersion counts",
	"volumedriver/journal/frame.go frameVersion":     "frames last until a clean stop; volumedriver/journal has their golden",
	"volumedriver/journal/pool.go groupFormat":       "is there until a clean stop",
	"volumedriver/journal/pool.go damageFormat":      "is there when a group log was damaged",
	"volumedriver/tlog/tlog.go movedVersion":         "a number that version counts",
	"volumedriver/tlog/tlog.go plainVersion":         "a number that version counts",
	"volumedriver/volume/restored.go RestoredFormat": "takes a restore of the metadata",
}

// manifest is what a golden data directory holds.
type manifest struct {
	// Formats are the numbers in it, by FILE CONSTANT.
	Formats map[string]int `json:"formats"`
	// VDisks are those that can be read.
	VDisks map[string]goldenDisk `json:"vdisks"`
	// Trash is the one that is in it.
	Trash    string `json:"trash"`
	User     string `json:"user"`
	Password string `json:"password"`
	Token    string `json:"token"` // of Reader
	Reader   string `json:"reader"`
	// CHAPSecret is that of the target of the vDisk db, which has the reservation of a host with this key.
	CHAPSecret string `json:"chapSecret"`
	Key        uint64 `json:"reservationKey"`
	// Lists are what the API lists, by path: the fields that do not change by themselves.
	Lists map[string][]map[string]any `json:"lists"`
	// Codes are of events in the history, Actions of entries in the audit log.
	Codes   []string `json:"eventCodes"`
	Actions []string `json:"auditActions"`
}

// goldenDisk is what a vDisk holds, as SHA-256 of all of it.
type goldenDisk struct {
	Now       string            `json:"now"`
	Template  bool              `json:"template,omitempty"`
	Snapshots map[string]string `json:"snapshots"`
}

// goldenFields are, by path of a list, the fields that identify and make up what it lists.
var goldenFields = map[string][]string{
	"/vpools":          {"id", "name", "state", "backend", "settings", "keyId", "created"},
	"/vdisks":          {"id", "name", "vpool", "size", "clusterSize", "state", "qos", "cache", "history", "labels", "created"},
	"/trash":           {"id", "name", "vpool", "size"},
	"/targets":         {"iqn", "name", "shared", "acl", "open", "chapUser", "created"},
	"/users":           {"name", "role", "grants", "groups", "created"},
	"/groups":          {"id", "name", "description", "role", "grants", "members", "created"},
	"/tokens":          {"id", "name", "user", "role", "grants", "created"},
	"/presets":         {"name", "policies", "compression", "encrypted", "default"},
	"/osds":            {"number", "uuid", "state", "kind", "directory", "claimedAt"},
	"/schedules":       {"of"},
	"/alerts/rules":    {"name", "codes", "level", "afterMs", "remindMs", "own"},
	"/alerts/channels": {"id", "name", "kind", "to", "hasSecret", "created"},
	"/alerts/silences": {"id", "code", "by", "why"},
	"/vsphere/centers": {"id", "name", "options", "hasSecret", "created"},
}

// listed returns what the lists of a node have in the fields that a manifest keeps.
func (r *running) listed() map[string][]map[string]any {
	r.t.Helper()
	out := map[string][]map[string]any{}
	for path, fields := range goldenFields {
		out[path] = []map[string]any{}
		for _, item := range r.call("GET", path, nil, 200)["items"].([]any) {
			all, some := item.(map[string]any), map[string]any{}
			for _, f := range fields {
				some[f] = all[f]
			}
			out[path] = append(out[path], some)
		}
	}
	return out
}

// constantOf returns the value of a constant of the repository, from its source.
func constantOf(t *testing.T, which string) int {
	t.Helper()
	file, name, _ := strings.Cut(which, " ")
	v, ok := constants(t, filepath.Join("../..", file))[name]
	if !ok {
		t.Fatalf("%s has no constant %s that is a number: correct the lists of golden_test.go", file, name)
	}
	return v
}

// constants returns the constants of a file that are given as a number.
func constants(t *testing.T, file string) map[string]int {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			spec := s.(*ast.ValueSpec)
			for i, value := range spec.Values {
				lit, ok := value.(*ast.BasicLit)
				if !ok || lit.Kind != token.INT {
					continue
				}
				if n, exact := constant.Int64Val(constant.MakeFromLiteral(lit.Value, lit.Kind, 0)); exact {
					out[spec.Names[i].Name] = int(n)
				}
			}
		}
	}
	return out
}

// goldens returns the numbers of the golden data directories, the oldest first.
func goldens(t *testing.T) (out []int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(goldenDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		i, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(n), ".json"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

func readManifest(t *testing.T, n int) (m manifest) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, fmt.Sprintf("%d.json", n)))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("manifest %d: %v", n, err)
	}
	return m
}

// TestGoldenFormats: every number of a format has a golden data directory that has it, and a
// constant that looks like such a number is known here.
func TestGoldenFormats(t *testing.T) {
	all := goldens(t)
	if len(all) == 0 || all[0] != 1 || all[len(all)-1] != len(all) {
		t.Fatalf("the golden data directories are %v, which is not 1 and up: none is ever taken away", all)
	}
	newest := readManifest(t, all[len(all)-1])
	for _, which := range onDisk {
		if is, has := constantOf(t, which), newest.Formats[which]; is != has {
			t.Errorf("%s is %d, in the newest golden data directory %d: add one (go test ./gateway/node -run TestMakeGolden -make-golden), keep those that there are, and see that TestGolden reads them all", which, is, has)
		}
	}
	page, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, which := range append(slices.Collect(maps.Keys(notInGolden)), onDisk...) {
		counted := strings.Contains(notInGolden[which], "counts")
		if row := fmt.Sprintf("| %d | `%s` |", constantOf(t, which), which); !counted && !strings.Contains(string(page), row) {
			t.Errorf("gateway/docs/architecture.md lacks %q", row)
		}
	}
	number := regexp.MustCompile(`^(v|[a-z]\w*V|\w*[fF]ormat|\w*[vV]ersion|[A-Za-z]+V[0-9]+|format[A-Z]\w*)$`)
	err = filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || e.Name() == "node_modules" || e.Name() == ".git" || e.Name() == "ui"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		rel, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		for _, room := range []string{"gateway/", "volumedriver/", "alba/", "iscsi/", "internal/kv/"} {
			if !strings.HasPrefix(rel, room) {
				continue
			}
			for name := range constants(t, path) {
				which := rel + " " + name
				if number.MatchString(name) && !slices.Contains(onDisk, which) && notInGolden[which] == "" && notAFormat[which] == "" {
					t.Errorf("%s looks like the number of a format: put it into a list of golden_test.go", which)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for which := range notInGolden {
		constantOf(t, which)
	}
	for which := range notAFormat {
		constantOf(t, which)
	}
}

// notAFormat are constants that look like numbers of formats, with what they are.
var notAFormat = map[string]string{
	"gateway/cluster/gossip.go maxVersion":          "a length",
	"volumedriver/backend/local/store.go formatMax": "a length; its format is in the line formatLine",
}

// digest is how a manifest names contents.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// content reads all that a vDisk or a snapshot of it holds, through the API.
func (r *running) content(vdisk, snapshot string) []byte {
	r.t.Helper()
	in := map[string]any{}
	if snapshot != "" {
		in["snapshot"] = snapshot
	}
	e := r.call("POST", "/vdisks/"+vdisk+"/exports", in, 201)
	id, size := e["id"].(string), int(e["size"].(float64))
	var out []byte
	for len(out) < size {
		n := min(size-len(out), 1<<20)
		status, b := r.try("GET", fmt.Sprintf("/exports/%s/data?offset=%d&length=%d", id, len(out), n), nil)
		if status != 200 || len(b) != n {
			r.t.Fatalf("read of %s %s at %d: %d, %d bytes", vdisk, snapshot, len(out), status, len(b))
		}
		out = append(out, b...)
	}
	r.call("DELETE", "/exports/"+id, nil, 204)
	return out
}

// goldenConfig is what nodes with a golden data directory run with: nothing happens by itself, and
// no clock of a machine is compared with a certificate.
const goldenConfig = "insecure: true\nno_schedules: true\nnode_name: golden\nchunk_bytes: 1048576\njournal_bytes: 268435456\n"

// TestMakeGolden adds a golden data directory, with -make-golden.
func TestMakeGolden(t *testing.T) {
	if !*makeGolden {
		t.Skip("for -make-golden")
	}
	dir := t.TempDir()
	config := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, config, goldenConfig)
	r := startChild(t, dir, config)
	m := manifest{Formats: map[string]int{}, VDisks: map[string]goldenDisk{}, User: "anna", Password: "correct horse", Reader: "bert", Key: 0x0123456789abcdef}
	for _, which := range onDisk {
		m.Formats[which] = constantOf(t, which)
	}
	r.fill(&m)
	if err := r.stop(); err != nil { // a kill: what is acknowledged is in the journal
		t.Fatal(err)
	}
	tail := goldenBlock("log", 4, 9) // the newest write to log
	if !found(t, filepath.Join(dir, "local", "journal"), tail) || found(t, filepath.Join(dir, "backend", "tin"), tail) {
		t.Error("what was written last is not in the journal alone: try again")
	}
	relocate(t, dir, dir, goldenHome)
	for i, v := range m.Lists["/vpools"] {
		m.Lists["/vpools"][i] = moved(t, v, dir, goldenHome)
	}
	for i, v := range m.Lists["/osds"] {
		m.Lists["/osds"][i] = moved(t, v, dir, goldenHome)
	}
	n := len(goldens(t)) + 1
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	packed := pack(t, dir)
	if len(packed) > goldenLimit {
		t.Fatalf("it has %d bytes, at most %d are put into the repository", len(packed), goldenLimit)
	}
	for name, b := range map[string][]byte{".tar.zst": packed, ".json": append(b, '\n')} {
		if err := os.WriteFile(filepath.Join(goldenDir, strconv.Itoa(n)+name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("golden %d: %d bytes", n, len(packed))
}

// found tells whether a file below dir has these bytes.
func found(t *testing.T, dir string, what []byte) (yes bool) {
	t.Helper()
	for _, b := range contents(t, dir) {
		yes = yes || strings.Contains(b, string(what))
	}
	return yes
}

// contents returns what the files below dir hold, by path in it, but for locks.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockFile {
			return err
		}
		b, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// moved returns a record with the data directory from as to.
func moved(t *testing.T, v map[string]any, from, to string) (out map[string]any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(bytes.ReplaceAll(b, []byte(from), []byte(to)), &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lasts are moments in records from which on, or from a year later on, what the record is about is gone.
var lasts = regexp.MustCompile(`"(trashed|until)":"[^"]+"`)

// relocate writes to the registry of a data directory that it is elsewhere: its devices and vPools
// are named by absolute paths. What is in the trash or silenced is so as of now, however old the directory is.
func relocate(t *testing.T, dir, from, to string) {
	t.Helper()
	db, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, _, err := db.Range(t.Context(), "", "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, e := range all {
		b := bytes.ReplaceAll(e.Value, []byte(from), []byte(to))
		b = lasts.ReplaceAll(b, fmt.Appendf(nil, `"$1":%q`, time.Now().UTC().Add(time.Hour).Format(time.RFC3339)))
		if !bytes.Equal(b, e.Value) {
			moved++
			if _, err := db.Txn(t.Context(), nil, []kv.Op{kv.Put(string(e.Key), b)}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if moved == 0 {
		t.Errorf("no record names %s", from)
	}
}

// goldenBlock is what the n-th write of a test puts into 4 KiB: text that tells which.
func goldenBlock(vdisk string, block, n int) []byte {
	line := fmt.Sprintf("%s block %d write %d\n", vdisk, block, n)
	return []byte(strings.Repeat(line, 4096/len(line)+1))[:4096]
}

// filling is a vDisk while a golden is made: what it holds, by what was written.
type filling struct {
	r    *running
	name string
	s    *initiator.Session
	now  []byte
	n    int
	out  goldenDisk
}

// put writes blocks of 4 KiB.
func (f *filling) put(blocks ...int) {
	f.r.t.Helper()
	for _, b := range blocks {
		f.n++
		data := goldenBlock(f.name, b, f.n)
		if err := f.s.WriteAt(f.r.t.Context(), 0, data, uint64(b)*8); err != nil {
			f.r.t.Fatal(err)
		}
		copy(f.now[b*4096:], data)
	}
}

func (f *filling) snapshot(name string) {
	f.r.t.Helper()
	f.r.call("POST", "/vdisks/"+f.name+"/snapshots", map[string]any{"name": name, "labels": map[string]any{"of": name}}, 201)
	f.out.Snapshots[name] = digest(f.now)
}

// fill makes everything that a golden data directory has.
func (r *running) fill(m *manifest) {
	t := r.t
	t.Helper()
	type o = map[string]any
	const size = 4 << 20
	r.call("POST", "/setup", o{"token": r.read("setup.token"), "user": m.User, "password": m.Password}, 201)
	r.call("POST", "/users", o{"name": m.Reader, "role": "read", "password": "battery staple"}, 201)
	m.Token = r.call("POST", "/tokens", o{"name": "ci", "user": m.Reader, "role": "read"}, 201)["secret"].(string)

	year := (366 * 24 * time.Hour).Milliseconds()
	settings := o{"trashMs": year, "historyMs": 3_600_000}
	r.call("POST", "/presets", o{"name": "sealed", "policies": []string{"2,1,3,4"}, "compression": "s2", "encrypt": true}, 201)
	r.call("POST", "/vpools", o{"name": "gold", "backend": o{"kind": "alba"}, "settings": settings}, 201)
	r.call("POST", "/vpools", o{"name": "vault", "backend": o{"kind": "alba", "preset": "sealed"}, "settings": settings}, 201)
	r.call("POST", "/vpools", o{"name": "silver", "encrypt": true, "backend": o{"kind": "local", "path": filepath.Join(r.dir, "backend", "silver")}, "settings": settings}, 201)
	r.call("POST", "/vpools", o{"name": "tin", "backend": o{"kind": "local", "path": filepath.Join(r.dir, "backend", "tin")}, "settings": settings}, 201)
	r.call("POST", "/groups", o{"name": "ops", "description": "who work with gold", "grants": []o{{"role": "write", "scope": "vpool:gold"}}}, 201)
	r.call("PUT", "/groups/ops/members/"+m.Reader, nil, 200)
	r.call("POST", "/users", o{"name": "carl", "role": "none", "password": "battery staple", "grants": []o{{"role": "manage", "scope": "vpool:silver"}}}, 201)
	r.call("POST", "/tokens", o{"name": "silver", "user": "carl", "role": "none", "grants": []o{{"role": "write", "scope": "vpool:silver"}}}, 201)
	begin := func(name, pool string) *filling {
		t.Helper()
		r.disk(name, pool, size)
		return &filling{r: r, name: name, s: r.login(name), now: make([]byte, size), out: goldenDisk{Snapshots: map[string]string{}}}
	}
	commit := func(name string) { r.call("POST", "/vdisks/"+name+"/commit", nil, 200) }
	job := func(path string) {
		t.Helper()
		r.call("POST", path, o{}, 202)
		r.until(path, func() bool { return r.call("GET", path, nil, 200)["state"] == "done" })
	}

	db := begin("db", "gold")
	for i := range 64 {
		db.put(i)
	}
	db.snapshot("monday")
	for i := range 32 {
		db.put(i * 2)
	}
	commit("db")
	db.put(0, 1, 2)
	db.snapshot("tuesday")
	commit("db")
	if err := db.s.PersistentReserve(t.Context(), 0, initiator.PersistentReserve{NewKey: m.Key, APTPL: true}); err != nil {
		t.Fatal(err)
	}
	log := begin("log", "tin")
	log.put(0, 1, 2, 3, 1000)
	r.call("POST", "/snapshotGroups", o{"name": "both", "vdisks": []string{"db", "log"}}, 201)
	db.out.Snapshots["both"], log.out.Snapshots["both"] = digest(db.now), digest(log.now)

	// One whose log was scrubbed, and one that went back.
	old := begin("old", "silver")
	for range 4 {
		for i := range 16 {
			old.put(i * 3)
		}
		commit("old")
	}
	old.snapshot("kept")
	old.put(3, 5)
	commit("old")
	r.call("PUT", "/vdisks/old/history", o{"keepMs": 0}, 200)
	job("/vdisks/old/scrub")
	job("/vdisks/old/verify")
	back := begin("back", "vault")
	back.put(1, 2, 3)
	back.snapshot("good")
	was := slices.Clone(back.now)
	back.put(2, 4)
	commit("back")
	r.call("POST", "/vdisks/back/rollback", o{"snapshot": "good", "force": true}, 200)
	back.now, back.s = was, r.login("back")
	back.put(9)

	// A clone with its own writes, a template and what was cloned from it, one in the trash.
	r.call("POST", "/vdisks/db/clone", o{"name": "child", "snapshot": "monday"}, 201)
	child := &filling{r: r, name: "child", s: r.login("child"), out: goldenDisk{Snapshots: map[string]string{}}, now: make([]byte, size)}
	for i := range 64 {
		copy(child.now[i*4096:], goldenBlock("db", i, i+1))
	}
	child.put(7, 200)
	child.snapshot("own")
	tpl := begin("tpl", "gold")
	tpl.put(0, 10, 20)
	tpl.s.Close()
	r.call("POST", "/vdisks/tpl/unpublish", o{"force": true}, 204)
	r.call("PUT", "/vdisks/tpl/template", nil, 200)
	tpl.out.Template = true
	r.call("POST", "/vdisks/tpl/clone", o{"name": "web"}, 201)
	web := &filling{r: r, name: "web", s: r.login("web"), now: slices.Clone(tpl.now), out: goldenDisk{Snapshots: map[string]string{}}}
	web.put(10, 11)
	gone := begin("gone", "gold")
	gone.put(5, 6)
	gone.s.Close()
	r.call("POST", "/vdisks/gone/unpublish", o{"force": true}, 204)
	r.call("DELETE", "/vdisks/gone", nil, 204)
	m.Trash = "gone"

	r.call("PATCH", "/vdisks/web", o{"labels": o{"tier": "front"}}, 200)
	r.call("PUT", "/vdisks/web/qos", o{"iops": 5000, "bytesPerSecond": 0, "burstMs": 0}, 200)
	r.call("PUT", "/vdisks/web/cache", o{"mode": "on-write", "quota": 0}, 200)
	shared := r.call("POST", "/targets", o{"name": "shared"}, 201)["iqn"].(string)
	r.call("POST", "/targets/"+shared+"/groups", o{"name": "hosts", "initiators": []string{"iqn.2004-10.com.ubuntu:01:c"}}, 201)
	r.call("PATCH", "/schedule/snapshot?vdisk=db", o{"enabled": true, "cron": "*/15 8-18 * * mon-fri", "zone": "Europe/Brussels"}, 200)
	r.call("PATCH", "/schedule/retention?vpool=gold", o{"enabled": true, "days": 14, "weeks": 8}, 200)
	r.call("POST", "/alerts/silences", o{"code": "x", "untilAt": time.Now().Add(24 * 365 * time.Hour).UTC().Format(time.RFC3339), "why": "a golden"}, 201)
	r.call("PUT", "/alerts/rules/late", o{"codes": []string{"x_*"}, "afterMs": 60_000}, 200)
	r.call("POST", "/alerts/channels", o{"name": "hook", "kind": "webhook", "secretUrl": "https://127.0.0.1:1/hook"}, 201)
	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	r.call("POST", "/vsphere/centers", o{"name": "prod", "secret": v.Password(), "options": o{"url": v.URL(), "user": v.User(), "thumbprint": v.Thumbprint()}}, 201)

	m.CHAPSecret = r.call("POST", "/vdisks/db/publish", nil, 200)["chapSecret"].(string)
	m.Codes = []string{"vdisk.created", "vdisk.trashed", "snapshot.created"}
	m.Actions = []string{"CreateVDisk", "CreateUser", "RollbackVDisk"}
	m.Lists = r.listed()
	for _, code := range m.Codes {
		r.tells(event.Code(code))
	}
	// Acknowledged and on no backend when the node is killed.
	for i, f := range []*filling{db, log, old, back, child, web} {
		f.put(30+i, 100+i, 1023)
	}
	log.snapshot("last")
	log.put(4)
	for _, f := range []*filling{db, log, old, back, child, tpl, web, gone} {
		f.out.Now = digest(f.now)
		m.VDisks[f.name] = f.out
	}
}

// pack returns a data directory as a compressed archive.
func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." || e.Name() == "lock" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: rel, Mode: int64(info.Mode().Perm()), Typeflag: tar.TypeReg, Size: info.Size()}
		if e.IsDir() {
			h.Typeflag, h.Size = tar.TypeDir, 0
			return w.WriteHeader(h)
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		return errors.Join(err, f.Close())
	})
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpack makes a data directory of a golden and says to its registry where it is.
func unpack(t *testing.T, n int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, fmt.Sprintf("%d.tar.zst", n)))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > goldenLimit {
		t.Errorf("golden %d has %d bytes", n, len(b))
	}
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && !filepath.IsLocal(h.Name) {
			err = fmt.Errorf("%s is not local", h.Name)
		}
		if err == nil && h.Typeflag == tar.TypeDir {
			err = os.Mkdir(filepath.Join(dir, h.Name), fs.FileMode(h.Mode))
		} else if err == nil {
			err = sparse(filepath.Join(dir, h.Name), fs.FileMode(h.Mode), r, h.Size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	relocate(t, dir, goldenHome, dir)
	return dir
}

// sparse writes a file with holes in place of zeros.
func sparse(name string, mode fs.FileMode, r io.Reader, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	zero, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size && err == nil; {
		n := min(size-at, int64(len(b)))
		if _, err = io.ReadFull(r, b[:n]); err == nil && !bytes.Equal(b[:n], zero[:n]) {
			_, err = f.WriteAt(b[:n], at)
		}
		at += n
	}
	return errors.Join(err, f.Truncate(size), f.Close())
}

// TestGolden: data directories of every format that there was are served as they were left,
// changed, and found again.
func TestGolden(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector finds nothing in it that others do not have")
	}
	for _, n := range goldens(t) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			m := readManifest(t, n)
			dir := unpack(t, n)
			config := filepath.Join(t.TempDir(), "ovgate.yaml")
			write(t, config, goldenConfig)
			r := start(t, Options{Data: dir, Config: config})
			r.listsAre(m, dir)
			r.accessIs(m)
			r.call("POST", "/trash/"+m.Trash+"/restore", map[string]any{}, 200)
			r.call("POST", "/vdisks/"+m.Trash+"/publish", map[string]any{"open": true}, 200)
			want := map[string][]byte{}
			for _, name := range slices.Sorted(maps.Keys(m.VDisks)) {
				want[name] = r.holds(name, m.VDisks[name])
				if !m.VDisks[name].Template {
					r.change(name, want[name])
				}
			}
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r = start(t, Options{Data: dir, Config: config})
			r.accessIs(m)
			for _, name := range slices.Sorted(maps.Keys(m.VDisks)) {
				d := m.VDisks[name]
				d.Now = digest(want[name])
				r.holds(name, d)
				if !d.Template {
					d.Snapshots = map[string]string{"of today": d.Now}
					r.holds(name, d)
				}
			}
		})
	}
}

// had is an object without the fields that there were not when want was written.
func had(is, want any) any {
	now, ok := is.(map[string]any)
	was, isObject := want.(map[string]any)
	if !ok || !isObject {
		return is
	}
	out := map[string]any{}
	for field, v := range now {
		if _, there := was[field]; there {
			out[field] = v
		}
	}
	return out
}

// since is a list without what is shipped, which has a field own that is false, and was not yet
// when items was written.
func since(got []any, items []map[string]any) []any {
	return slices.DeleteFunc(got, func(v any) bool {
		is := v.(map[string]any)
		return is["own"] == false && !slices.ContainsFunc(items, func(was map[string]any) bool { return was["name"] == is["name"] })
	})
}

// listsAre compares the lists of the API with a manifest.
func (r *running) listsAre(m manifest, dir string) {
	r.t.Helper()
	if len(m.Lists) == 0 {
		r.t.Error("the manifest has no lists")
	}
	for path, items := range m.Lists {
		got := since(r.call("GET", path, nil, 200)["items"].([]any), items)
		if len(got) != len(items) {
			r.t.Errorf("%s has %d, had %d: %v", path, len(got), len(items), got)
			continue
		}
		for i, item := range items {
			for field, want := range moved(r.t, item, goldenHome, dir) {
				if is := got[i].(map[string]any)[field]; !reflect.DeepEqual(had(is, want), want) {
					r.t.Errorf("%s %d: %s is %v, was %v", path, i, field, is, want)
				}
			}
		}
	}
	for _, code := range m.Codes {
		if items := r.call("GET", "/events/history?code="+code, nil, 200)["items"].([]any); len(items) == 0 {
			r.t.Errorf("the history has no event %s", code)
		}
	}
	for _, action := range m.Actions {
		if len(r.entries("&action="+action)) == 0 {
			r.t.Errorf("the audit log has no %s", action)
		}
	}
}

// accessIs checks who gets in: users, tokens, hosts and their reservations.
func (r *running) accessIs(m manifest) {
	r.t.Helper()
	b := r.browser(m.User, m.Password)
	b.expect("GET", "/api/v1/users", "", 200, "")
	reader := r.bearer(m.Token)
	reader.expect("GET", "/api/v1/vdisks", "", 200, "")
	reader.expect("POST", "/api/v1/vdisks", `{"name":"x","vpool":"tin","size":1048576}`, 403, "")
	if c := r.call("POST", "/vdisks/db/publish", nil, 200); c["chapSecret"] != m.CHAPSecret {
		r.t.Error("the CHAP secret is another one")
	}
	s := r.login("db")
	defer s.Close()
	if k, err := s.ReadKeys(r.t.Context(), 0); err != nil || !slices.Contains(k.Keys, m.Key) {
		r.t.Errorf("keys of reservations: %+v, %v", k, err)
	}
}

// holds compares a vDisk and its snapshots with what they are to hold, and returns what it holds.
func (r *running) holds(name string, d goldenDisk) []byte {
	r.t.Helper()
	for snapshot, want := range d.Snapshots {
		if got := digest(r.content(name, snapshot)); got != want {
			r.t.Errorf("snapshot %s of %s holds %s, not %s", snapshot, name, got, want)
		}
	}
	now := r.content(name, "")
	if got := digest(now); got != d.Now {
		r.t.Errorf("%s holds %s, not %s", name, got, d.Now)
	}
	return now
}

// change writes to a vDisk, over what it has and where it has nothing, and makes a snapshot; now
// is what it holds.
func (r *running) change(name string, now []byte) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	s := r.login(name)
	defer s.Close()
	for i, block := range []int{0, 10, 500, 1022} {
		data := goldenBlock(name, block, 1000+i)
		if err := s.WriteAt(ctx, 0, data, uint64(block)*8); err != nil {
			r.t.Fatalf("write to %s: %v", name, err)
		}
		copy(now[block*4096:], data)
	}
	r.call("POST", "/vdisks/"+name+"/snapshots", map[string]any{"name": "of today"}, 201)
}

// newest returns the only golden that is served with today's formats.
func newest(t *testing.T) (string, manifest) {
	t.Helper()
	all := goldens(t)
	n := all[len(all)-1]
	return unpack(t, n), readManifest(t, n)
}

// edit changes the one file below dir that a pattern names.
func edit(t *testing.T, dir, pattern string, change func(b []byte) []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no file %s: %v", pattern, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, change(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// text replaces text, which has to be there.
func text(t *testing.T, from, to string) func([]byte) []byte {
	return func(b []byte) []byte {
		t.Helper()
		if !bytes.Contains(b, []byte(from)) {
			t.Errorf("there is no %q in %.200q", from, b)
		}
		return bytes.Replace(b, []byte(from), []byte(to), 1)
	}
}

// TestNewerDataDirectory: a node refuses what a newer version wrote with a reason that names the
// format and the remedy, and changes no byte of it.
func TestNewerDataDirectory(t *testing.T) {
	record := func(prefix string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			db, err := kv.OpenBolt(filepath.Join(dir, kvFile), kv.BoltOptions{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			all, _, err := db.Range(t.Context(), prefix, "", 1)
			if err != nil || len(all) != 1 {
				t.Fatalf("records of %s: %d, %v", prefix, len(all), err)
			}
			b := text(t, fmt.Sprintf(`"format":%d`, constantOf(t, "gateway/model/records.go Format")), `"format":99`)(all[0].Value)
			if _, err := db.Txn(t.Context(), nil, []kv.Op{kv.Put(string(all[0].Key), b)}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  []string
		part  string // what is compared: a journal is opened after the devices, whose index then is tidied up
	}{
		{"data directory", func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile), `{"format":99}`) }, []string{"format 99", "upgrade ovgate"}, ""},
		{"node", func(t *testing.T, dir string) { edit(t, dir, selfFile, text(t, `"format":1`, `"format":99`)) }, []string{selfFile, "format 99", "upgrade ovgate"}, ""},
		{"place of the registry", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, formatFile), `{"format":2}`)
			write(t, filepath.Join(dir, placeFile), `{"format":99,"etcd":"x"}`)
		}, []string{placeFile, "format 99", "upgrade ovgate"}, ""},
		{"join", func(t *testing.T, dir string) { write(t, filepath.Join(dir, joinFile), `{"format":99}`) }, []string{joinFile, "format 99", "upgrade ovgate"}, ""},
		{"registry", func(t *testing.T, dir string) {
			db, err := bbolt.Open(filepath.Join(dir, kvFile), 0o600, nil)
			if err == nil {
				err = db.Update(func(tx *bbolt.Tx) error {
					return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint64(nil, 99))
				})
			}
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, []string{kvFile, "format 99", "upgrade ovgate"}, ""},
		{"cluster", record("model/cluster"), []string{"format 99", "upgrade ovgate"}, ""},
		{"vPool", record("model/vpool/"), []string{"model/vpool/", "format 99", "upgrade ovgate"}, ""},
		{"vDisk", record("model/vdisk/"), []string{"model/vdisk/", "format 99", "upgrade ovgate"}, ""},
		{"user", record("model/user/"), []string{"model/user/", "format 99", "upgrade ovgate"}, ""},
		{"schedule", record("model/schedule/"), []string{"model/schedule/", "format 99", "upgrade ovgate"}, ""},
		{"alerting", record("model/alerting/"), []string{"model/alerting/", "format 99", "upgrade ovgate"}, ""},
		{"journal", func(t *testing.T, dir string) {
			edit(t, dir, "local/journal/pool.json", text(t, `"format":1`, `"format":99`))
		}, []string{"pool.json", "format 99", "upgrade ovgate"}, localDir},
		{"journal record", func(t *testing.T, dir string) {
			edit(t, dir, "local/journal/chunk-00000000", func(b []byte) []byte {
				b[8], b[4096+8] = 99, 99 // the version of the first record, which is there twice
				return b
			})
		}, []string{"newer format", "upgrade ovgate", "99"}, localDir},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, _ := newest(t)
			c.spoil(t, dir)
			part := filepath.Join(dir, c.part)
			before := contents(t, part)
			err := Run(t.Context(), Options{Data: dir, Insecure: true, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: io.Discard, Stderr: io.Discard})
			if err == nil {
				t.Fatal("it started")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
			unchanged(t, before, contents(t, part))
		})
	}
}

// unchanged compares the files of a directory with what they were.
func unchanged(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name, b := range before {
		if a, there := after[name]; !there || a != b {
			t.Errorf("%s was changed (there: %v)", name, there)
		}
	}
	for name := range after {
		if _, there := before[name]; !there {
			t.Errorf("%s was made", name)
		}
	}
}

// TestNewerParts: what a newer version wrote to a backend or device keeps that vPool, vDisk or
// device from being used, with a reason that names the format and the remedy; the node serves the
// others, and changes no byte of it.
func TestNewerParts(t *testing.T) {
	head := func(t *testing.T, kind, file string) func(dir string) {
		return func(dir string) {
			edit(t, dir, file, func(b []byte) []byte {
				_, body, _ := bytes.Cut(b, []byte("\n"))
				body = text(t, `"format":1`, `"format":99`)(bytes.TrimSuffix(body, []byte("\n")))
				return fmt.Appendf(nil, "ovgate-%s 99 %x\n%s\n", kind, sha256.Sum256(body), body)
			})
		}
	}
	for _, c := range []struct {
		name, path, part string // the part of the data directory that stays as it was
		spoil            func(dir string)
		want             []string
	}{
		{"store", "/vpools/tin", "backend/tin", func(dir string) { edit(t, dir, "backend/tin/format", text(t, "store 1", "store 99")) }, []string{"store 99", "use the version that made"}},
		{"root", "/vpools/tin", "backend/tin", func(dir string) {
			edit(t, dir, "backend/tin/objects/ovgate.root", text(t, `"format":1`, `"format":99`))
		}, []string{"99", "upgrade"}},
		{"head", "/vdisks/log", "backend/tin", head(t, "head", "backend/tin/objects/v~/*/head~/*"), []string{"99", "upgrade"}},
		{"device", "/osds/1", "asd/1", func(dir string) {
			edit(t, dir, "asd/1/asd/asd", func(b []byte) []byte {
				b[len("OVGASD\r\n")+3] = 99
				return b
			})
		}, []string{"format 99", "use the version that made it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, m := newest(t)
			c.spoil(dir)
			before := contents(t, filepath.Join(dir, c.part))
			config := filepath.Join(t.TempDir(), "ovgate.yaml")
			write(t, config, goldenConfig)
			r := start(t, Options{Data: dir, Config: config})
			var said string
			r.until("told why", func() bool {
				_, b := r.try("GET", c.path, nil)
				said = string(b)
				for _, w := range c.want {
					if !strings.Contains(said, w) {
						return false
					}
				}
				return true
			})
			r.holds("db", m.VDisks["db"])
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			unchanged(t, before, contents(t, filepath.Join(dir, c.part)))
		})
	}
}
