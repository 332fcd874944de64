package main

import (
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

var update = flag.Bool("update", false, "write the golden parts of testdata/*.txt anew")

// testToken is the fake node's.
const testToken = "ovgate_pat_test"

// raceOptions end a process at once: the race detector lets it sleep a second,
// in case other goroutines have something to report, and here that would be most
// of the time.
const raceOptions = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ovgate": func() { os.Exit(mainCode()) }})
}

// TestScripts runs the real command line, as a process of its own, against a fake
// node over TLS. Each script has a node of its own, and the command
//
//	exits N PROGRAM ARGS   runs a program that has to end with exit code N
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("each command is a process of one goroutine, the most of which is its start; TestClusterScripts has commands too")
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup:         setUp,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// TestServeScripts runs real nodes. Besides exits there are
//
//	up DIR   waits until the node of that data directory answers, and sets API to
//	         its HOST:PORT
//	signin STATUS TARGET INITIATOR [USER SECRET]
//	         signs in to a target of the node in $NODE and expects that login
//	         status; 0000 stays signed in, and sets SESSION to the session's id
//	pattern FILE SIZE SEED
//	         makes a raw image of SIZE bytes with data, zeros and holes
//	cut FILE SIZE
//	         cuts a file off
//	begin NAME VPOOL SIZE
//	         begins an import and leaves it
//	asdup    waits until a device is served at $ASD, a free address
//	idp CAFILE
//	         starts a sign-in provider at $IDP, whose user anna is of the group staff
//	enter STATUS USER
//	         signs in to the node at $API through it, as a browser does
//	flip DIR FILE OFFSET
//	         flips a bit in the first file below DIR whose path has FILE in it
func TestServeScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector meets the same code in gateway/node")
	}
	serveScripts(t, "testdata/serve", nil, nil)
}

// TestClusterScripts runs real nodes on a real etcd at ETCD, with the commands of
// TestServeScripts and until.
func TestClusterScripts(t *testing.T) {
	m := etcdtest.Serve(t)
	serveScripts(t, "testdata/cluster", map[string]string{"ETCD": m.Endpoint()}, func(cmds map[string]func(*testscript.TestScript, bool, []string)) {
		cmds["until"] = until
	})
}

// TestRemoteScripts runs real nodes on real stores: those of TestServeScripts, with
// S3URL, S3BUCKET, S3USER, S3SECRET, SWIFTURL, SWIFTUSER and SWIFTSECRET; the secrets
// are files. S3LIMITED may not delete in S3, with S3LIMITEDSECRET, and there are
//
//	policy full|keep       lets that user delete, or not
//	until REGEXP PROGRAM ARGS
//	                       runs a program until its output matches
func TestRemoteScripts(t *testing.T) {
	s3, swift := remotetest.Peer(t, "s3", "--limited"), remotetest.Peer(t, "swift")
	secret := func(text string) string {
		name := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	serveScripts(t, "testdata/remote", map[string]string{
		"S3URL": s3["endpoint"], "S3BUCKET": s3["bucket"], "S3USER": s3["access_key"], "S3SECRET": secret(s3["secret_key"]), "S3DATA": s3["data"],
		"SWIFTURL": swift["auth"], "SWIFTUSER": swift["user"], "SWIFTSECRET": secret(swift["key"]),
		"S3LIMITED": s3["limited_key"], "S3LIMITEDSECRET": secret(s3["limited_secret"]),
	}, func(cmds map[string]func(*testscript.TestScript, bool, []string)) {
		cmds["policy"] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: policy full|keep")
			}
			ts.Check(remotetest.Tell(t, s3, "s3", "policy", args...))
		}
		cmds["until"] = until
	})
}

// until is the script command of that name.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM ARGS")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-limit:
			ts.Fatalf("not after %s; last: %v", startLimit, err)
		case <-again.C:
		}
	}
}

// serveScripts runs the scripts of a directory; more adds commands.
func serveScripts(t *testing.T, dir string, env map[string]string, more func(map[string]func(*testscript.TestScript, bool, []string))) {
	cmds := map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "up": up, "signin": signIn, "pattern": pattern, "flip": flip, "cut": cut, "begin": begin, "asdup": asdUp, "left": left, "recovered": recovered, "idp": idp, "enter": enter}
	if more != nil {
		more(cmds)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			for k, v := range env {
				e.Setenv(k, v)
			}
			e.Setenv("NODE", filepath.Join(e.WorkDir, "node"))
			free, err := freeport.Address()
			if err != nil {
				return err
			}
			e.Setenv("ASD", free)
			e.Setenv("GORACE", raceOptions)
			return nil
		},
		Cmds: cmds,
	})
}

// startLimit bounds how long up waits; a node starts within a second when the
// machine is not busy.
const startLimit = 3 * time.Minute

// up is the script command of that name.
func up(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: up DIR")
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		address, err := answers(args[0])
		if err == nil {
			ts.Setenv("API", address)
			return
		}
		select {
		case <-limit:
			ts.Fatalf("no node after %s: %v", startLimit, err)
		case <-again.C:
		}
	}
}

// answers asks the node of a data directory for its status and returns its address.
func answers(data string) (address string, err error) {
	o, err := client.Discover(client.System(), data)
	if err != nil {
		return "", err
	}
	o.Timeout = startLimit
	api, err := client.New(o)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(o.URL, "https://"), client.Done(api.GetStatus(context.Background()))
}

// signIn is the script command signin.
func signIn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 && len(args) != 5 {
		ts.Fatalf("usage: signin STATUS TARGET INITIATOR [USER SECRET]")
	}
	o, err := client.Discover(client.System(), ts.Getenv("NODE"))
	ts.Check(err)
	o.Timeout = startLimit
	api, err := client.New(o)
	ts.Check(err)
	ctx := context.Background()
	status, err := client.Get[client.Status](api.GetStatus(ctx))
	ts.Check(err)
	in := initiator.Options{Address: status.Portals[0].Address, Target: args[1], Initiator: args[2]}
	if len(args) == 5 {
		in.CHAPUser, in.CHAPSecret = args[3], args[4]
	}
	s, err := initiator.Dial(ctx, in)
	got := "0000"
	var refused *initiator.LoginError
	if errors.As(err, &refused) {
		got = fmt.Sprintf("%04x", refused.Status)
	} else {
		ts.Check(err)
		ts.Defer(s.Close)
		ts.Check(s.Ready(ctx, 0))
		l, err := client.Get[client.ISCSISessionList](api.ListISCSISessions(ctx, &client.ListISCSISessionsParams{Target: &args[1]}))
		ts.Check(err)
		for _, i := range l.Items {
			if i.Initiator == args[2] {
				ts.Setenv("SESSION", i.ID)
			}
		}
	}
	if got != args[0] {
		ts.Fatalf("login status %s, want %s", got, args[0])
	}
}

// setUp starts a node and says where it is in both ways: by environment, and in
// the data directory $DATA.
func setUp(e *testscript.Env) error {
	node := httptest.NewTLSServer(newFake(testToken).handler())
	e.Defer(node.Close)
	data := filepath.Join(e.WorkDir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: node.Certificate().Raw})
	for name, text := range map[string]string{
		"ca.pem": string(ca), "admin.token": testToken + "\n", "api.json": `{"url":"` + node.URL + `","caFile":"ca.pem"}`,
	} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	e.Setenv("GORACE", raceOptions)
	e.Setenv("DATA", data)
	e.Setenv("OVGATE_URL", node.URL)
	e.Setenv("OVGATE_CA", filepath.Join(data, "ca.pem"))
	e.Setenv("OVGATE_TOKEN", testToken)
	return nil
}

// exits is the script command of that name.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N PROGRAM ARGS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
