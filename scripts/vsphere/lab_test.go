package vsphere

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	pool = "fast"
	gib  = 1 << 30
	// patience bounds waiting for a job: a step that failed is tried again after a second
	// or a few.
	patience = 3 * time.Minute
	poll     = 50 * time.Millisecond
)

// bin is the ovgate binary, built by TestMain.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "ovgate-vsphere-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin, err = node.Build(ctx, dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

// lab is a node and a vCenter.
type lab struct {
	t    *testing.T
	node *node.Node
	api  *client.Client
	v    *esxsim.VCenter
}

// start starts both, the node with more arguments, and registers the vCenter under the name
// dc. Tests wait more than they work, so they run side by side.
func start(t *testing.T, o esxsim.Options, args ...string) *lab {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	n, err := node.New(node.Options{Bin: bin, Data: filepath.Join(dir, "data"), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, node: n}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.LogTail())
		}
		if testing.Verbose() { // why jobs took their time
			text, err := os.ReadFile(filepath.Join(dir, "data.log"))
			for line := range strings.Lines(string(text)) {
				if strings.Contains(line, "is tried again") {
					t.Log(line)
				}
			}
			if err != nil {
				t.Log(err)
			}
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l.startNode()
	if err := n.CreateVPool(t.Context(), pool, filepath.Join(dir, pool), "--journal-quota", "128MiB", "--sco-size", "4MiB"); err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if l.v, err = esxsim.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.v.Close)
	if _, err := l.register("dc", client.CenterOptionsInput{}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) startNode() {
	l.t.Helper()
	if err := l.node.Start(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	var err error
	if l.api, err = l.node.API(); err != nil {
		l.t.Fatal(err)
	}
}

// register registers the vCenter; what is left out of o is right.
func (l *lab) register(name string, o client.CenterOptionsInput) (client.CenterResult, error) {
	if o.URL == nil {
		o.URL = new(l.v.URL())
	}
	if o.User == nil {
		o.User = new(l.v.User())
	}
	return client.Get[client.CenterResult](l.api.CreateCenter(l.t.Context(), nil, client.CenterInput{Name: name, Options: o, Secret: new(l.v.Password())}))
}

// create asks for a datastore of 2 GiB in the cluster of all hosts.
func (l *lab) create(name string) client.Datastore {
	l.t.Helper()
	r, err := client.Get[client.DatastoreResult](l.api.CreateDatastore(l.t.Context(), nil, client.DatastoreInput{Name: name, Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib}))
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Datastore
}

func (l *lab) get(name string) (client.Datastore, error) {
	return client.Get[client.Datastore](l.api.GetDatastore(l.t.Context(), name))
}

// settled waits until a datastore has no job.
func (l *lab) settled(name string) client.Datastore {
	l.t.Helper()
	var d client.Datastore
	l.until(name+" settled", func() error {
		var err error
		if d, err = l.get(name); err == nil && d.Job != nil {
			err = fmt.Errorf("its job is %+v", *d.Job)
		}
		return err
	})
	return d
}

// gone waits until there is no datastore of a name.
func (l *lab) gone(name string) {
	l.t.Helper()
	l.until(name+" gone", func() error {
		d, err := l.get(name)
		if status(err) == 404 {
			return nil
		}
		if err == nil && d.Job != nil {
			err = fmt.Errorf("its job is %+v", *d.Job)
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

// failing waits until a datastore's job tells an error with these words.
func (l *lab) failing(name string, words ...string) client.DatastoreJob {
	l.t.Helper()
	var job client.DatastoreJob
	l.until(fmt.Sprintf("%s fails with %q", name, words), func() error {
		d, err := l.get(name)
		if err != nil || d.Job == nil {
			return fmt.Errorf("%+v %w", d, err)
		}
		job = *d.Job
		for _, w := range words {
			if !strings.Contains(job.Error+" "+job.Hint, w) {
				return fmt.Errorf("its job is %+v", job)
			}
		}
		return nil
	})
	return job
}

func (l *lab) until(what string, ok func() error) {
	l.t.Helper()
	end := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("not %s: %v", what, err)
		}
		select {
		case <-l.t.Context().Done():
			l.t.Fatalf("not %s: %v", what, err)
		case <-time.After(poll):
		}
	}
}

func status(err error) int {
	var e *client.APIError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

func (l *lab) live(name string) client.DatastoreLive {
	l.t.Helper()
	x, err := client.Get[client.DatastoreLive](l.api.LookAtDatastore(l.t.Context(), name))
	if err != nil {
		l.t.Fatal(err)
	}
	return x
}

// remove asks for the removal of a datastore.
func (l *lab) remove(name string) error {
	return client.Done(l.api.RemoveDatastore(l.t.Context(), name, &client.RemoveDatastoreParams{}))
}

// refused wants an error of the API with a code and words.
func refused(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var e *client.APIError
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("the answer is %v, want %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message+" "+e.Hint+" "+e.Field, w) {
			t.Errorf("%v does not tell %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "secret-of-") {
		t.Errorf("%v tells a secret", err)
	}
}
