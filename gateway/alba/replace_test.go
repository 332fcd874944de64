package alba

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/preset"
)

// TestReplace: what cannot be is refused before anything is made; what was begun goes
// on, wherever it ended.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	s := newService(t, dir, registry(t, dir), Dir{Path: path("1")}, Dir{Path: path("2")}, Dir{Path: path("3")})
	t.Cleanup(func() { must(t, s.Close()) })
	r, err := s.open(t.Context())
	must(t, err)

	refused := func(old uint32, c Claim, is error, wants string) {
		t.Helper()
		before, err := r.manager.OSDs(t.Context())
		must(t, err)
		if _, err := s.Replace(t.Context(), old, c); !errors.Is(err, is) || !strings.Contains(err.Error(), wants) {
			t.Errorf("replace %d by %+v: %v", old, c, err)
		}
		after, err := r.manager.OSDs(t.Context())
		must(t, err)
		for i := range after {
			if len(after) != len(before) || after[i].State != before[i].State {
				t.Errorf("replace %d by %+v: %+v became %+v", old, c, before, after)
			}
		}
	}
	refused(9, Claim{Directory: path("4")}, manager.ErrNotFound, "device 9")
	refused(1, Claim{}, manager.ErrInvalid, "name either")
	refused(1, Claim{Directory: path("1")}, manager.ErrInUse, "it is device 1, in-use")
	refused(1, Claim{Directory: path("2")}, manager.ErrInUse, "it is device 2, in-use")
	// A preset that names its devices has none to take the place of one.
	_, err = s.CreatePreset(t.Context(), NewPreset{Name: "fixed", Policies: []preset.Policy{{K: 1, M: 1, C: 2, X: 2}}, OSDs: []uint32{1, 2}})
	must(t, err)
	refused(1, Claim{Directory: path("4")}, manager.ErrUnsafe, "add a device first")
	must(t, s.DeletePreset(t.Context(), "fixed"))
	if _, err := os.Stat(path("4")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused replacement made %s: %v", path("4"), err)
	}

	// It ended between the claim and the emptying.
	by, err := s.Claim(t.Context(), Claim{Directory: path("4"), replaces: 1})
	must(t, err)
	refused(1, Claim{Directory: path("5")}, manager.ErrInUse, "device 4 replaces it already")
	for range 2 {
		o, err := s.Replace(t.Context(), 1, Claim{Directory: path("4")})
		must(t, err)
		if o.Number != by.Number || o.State != manager.InUse {
			t.Errorf("replaced by %+v", o)
		}
	}
	// A look of the node's own may have let it go by now.
	if old, err := s.OSD(t.Context(), 1); !errors.Is(err, manager.ErrNotFound) && (err != nil || old.ReplacedBy != by.Number) {
		t.Errorf("the old device: %+v, %v, want one replaced by %d", old, err, by.Number)
	}
	must(t, r.agent.Survey(t.Context())) // nothing is stored: it leaves
	if _, err := s.OSD(t.Context(), 1); !errors.Is(err, manager.ErrNotFound) {
		t.Errorf("the old device: %v", err)
	}
	o, err := s.Replace(t.Context(), 1, Claim{Directory: path("4")})
	if err != nil || o.Number != by.Number {
		t.Errorf("once more: %+v, %v", o, err)
	}
	jobs, err := s.OwnJobs(t.Context())
	must(t, err)
	told := ""
	for _, j := range jobs {
		if !j.Ended.IsZero() && j.Error == "" {
			told += j.What + "\n"
		}
	}
	if !strings.Contains(told, "replace device 1 with device 4\n") {
		t.Errorf("jobs:\n%s", told)
	}
}
