package node

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// sampleFile is the configuration that the Debian package installs.
const sampleFile = "../../scripts/debian/ovgate.yaml"

// TestSampleConfiguration: a node takes the sample as it is, and with every setting in force;
// there is no setting that it lacks.
func TestSampleConfiguration(t *testing.T) {
	b, err := os.ReadFile(sampleFile)
	if err != nil {
		t.Fatal(err)
	}
	// Settings begin right behind the mark of the comment, or deeper by two spaces.
	all := regexp.MustCompile(`(?m)^#((?:  )?[a-z_]+:)`).ReplaceAllString(string(b), "$1")
	// Nodes run the registry, or it is in an etcd.
	member := regexp.MustCompile(`(?m)^  member: .*\n`)
	etcd, own := filepath.Join(t.TempDir(), "etcd.yaml"), filepath.Join(t.TempDir(), "own.yaml")
	for file, text := range map[string]string{etcd: member.ReplaceAllString(all, ""), own: "registry:\n" + member.FindString(all)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{sampleFile, etcd, own} {
		if _, err := loadConfig(Options{Config: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	keys := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^((?:  )?[a-z_]+):`).FindAllStringSubmatch(all, -1) {
		keys[m[1]] = true
	}
	for f := range reflect.TypeFor[config]().Fields() {
		name := f.Tag.Get("yaml")
		if !keys[name] {
			t.Errorf("%s is not in the sample", name)
		}
		if f.Type.Kind() != reflect.Struct {
			continue
		}
		_, section, _ := strings.Cut(all, "\n"+name+":\n")
		for inner := range f.Type.Fields() {
			if !inner.IsExported() {
				continue
			}
			if key := "  " + inner.Tag.Get("yaml") + ":"; !strings.Contains(indented(section), key) {
				t.Errorf("%s:%s is not in the sample", name, key)
			}
		}
	}
	defaults, err := loadConfig(Options{Config: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	sample, err := loadConfig(Options{Config: sampleFile})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(sample, defaults) {
		t.Errorf("the sample as it is changes something: %+v", sample)
	}
}

// indented returns the indented lines that a text begins with.
func indented(s string) string {
	end := 0
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "  ") {
			break
		}
		end += len(line)
	}
	return s[:end]
}
