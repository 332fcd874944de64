package cinder

import (
	"fmt"
	"regexp"
	"strings"
)

// Config is a section of cinder.conf that loads the driver.
type Config struct {
	Section   string   // its name, and that of the backend in Cinder
	URLs      []string // of nodes, in order of preference
	VPools    []string // empty: all
	TokenFile string   // on the host of cinder-volume
	CAFile    string   // there, too; empty: the CAs that its system trusts
}

// sectionName is what enabled_backends can list, and hosts be called after.
var sectionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Text returns the section. It holds no secret. An error names what oslo.config would
// not read as it is meant.
func (c Config) Text() (string, error) {
	if !sectionName.MatchString(c.Section) {
		return "", fmt.Errorf("section %q: use 1 to 64 letters, digits, '.', '_' and '-'", c.Section)
	}
	if c.Section == "DEFAULT" {
		return "", fmt.Errorf("section DEFAULT is Cinder's own; use another name")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n", c.Section)
	for _, o := range []struct {
		name   string
		values []string
	}{
		{"volume_driver", []string{DriverClass}},
		{"volume_backend_name", []string{c.Section}},
		{"ovgate_api_urls", c.URLs},
		{"ovgate_token_file", []string{c.TokenFile}},
		{"ovgate_ca_file", []string{c.CAFile}},
		{"ovgate_vpools", c.VPools},
	} {
		for _, v := range o.values {
			if strings.ContainsAny(v, " \t\r\n,\"'#$;\\") {
				return "", fmt.Errorf("%s %q: it has a blank, a comma or another sign that cinder.conf reads differently", o.name, v)
			}
		}
		if text := strings.Join(o.values, ", "); text != "" {
			fmt.Fprintf(&b, "%s = %s\n", o.name, text)
		}
	}
	return b.String(), nil
}
