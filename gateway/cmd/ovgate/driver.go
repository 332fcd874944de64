package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/integrations/cinder"
	"github.com/openvstorage/ovgate/internal/client"
)

// Where the generated section expects the secrets on the host of cinder-volume.
const (
	cinderTokenFile = "/etc/cinder/ovgate.token"
	cinderCAFile    = "/etc/cinder/ovgate-ca.pem"
	cinderPython    = "/usr/bin/python3"
)

// driverSection is what driver config prints as JSON.
type driverSection struct {
	Section string   `json:"section"`
	Text    string   `json:"text"`
	VPools  []string `json:"vpools"` // pools of the backend
}

func (a *app) driverConfig() *cobra.Command {
	var c cinder.Config
	var service cinder.ServiceToken
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print a section of cinder.conf for this node's vPools",
		Long: "Print a section of cinder.conf for this node's vPools, each of which is a pool of the one backend. It holds no\n" +
			"secret: the driver reads its token from a file. With --auth-url it prints the sections for service tokens, too,\n" +
			"without which Cinder refuses detaches of Nova and long copies of images fail.",
		Example: "  ovgate openstack driver config --vpool fast --endpoint https://node1:8443 --endpoint https://node2:8443\n" +
			"  ovgate user token create cinder --role write -o json | jq -r .secret > ovgate.token",
		Args: names(),
	}
	f := cmd.Flags()
	f.StringVar(&c.Section, "section", "ovgate", "name of the section, and of the backend in Cinder")
	f.StringArrayVar(&c.VPools, "vpool", nil, "vPool that becomes a pool; several times (default all, those to come too)")
	f.StringArrayVar(&c.URLs, "endpoint", nil, "address of a node as cinder-volume reaches it, https://HOST:8443; several times, in order of preference\n(default the one that this command talks to)")
	f.StringVar(&c.TokenFile, "driver-token-file", cinderTokenFile, "file with the token on the host of cinder-volume")
	f.StringVar(&c.CAFile, "driver-ca-file", cinderCAFile, "file with the node's CA there; empty: the CAs that its system trusts")
	f.StringVar(&service.AuthURL, "auth-url", "", "address of Keystone: print the sections for service tokens, too")
	f.StringVar(&service.User, "service-user", "cinder", "Cinder's user in Keystone, which needs the role service")
	f.StringVar(&service.Project, "service-project", "service", "project of that user")
	f.StringVar(&service.Domain, "service-domain", "Default", "domain of both")
	if err := cmd.RegisterFlagCompletionFunc("vpool", a.completeVPoolFlag); err != nil {
		panic(err) // the flag is there
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		vpools, err := client.All(func(cursor *string) ([]client.VPool, *string, error) {
			l, err := client.Get[client.VPoolList](api.ListVPools(ctx, &client.ListVPoolsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		var have []string
		for _, v := range vpools {
			have = append(have, v.Name)
		}
		if err := checkPools(c.VPools, have); err != nil {
			return err
		}
		own := strings.TrimSuffix(strings.TrimSuffix(api.Server, "/"), client.BasePath)
		if len(c.URLs) == 0 {
			c.URLs = []string{own}
		}
		for _, u := range c.URLs {
			local, err := checkEndpoint(u)
			if err != nil {
				return err
			}
			if local {
				a.hint(u + " is this machine alone: where cinder-volume runs elsewhere, give --endpoint")
			}
		}
		text, err := c.Text()
		if err != nil {
			return usageError{err}
		}
		if service.AuthURL != "" {
			sections, err := service.Text()
			if err != nil {
				return usageError{err}
			}
			text = sections + "\n" + text
		}
		if len(c.VPools) > 0 {
			have = c.VPools
		}
		if a.output == outputJSON {
			return printJSON(a.out, driverSection{Section: c.Section, Text: text, VPools: have})
		}
		_, err = fmt.Fprintf(a.out, "# Name it in [DEFAULT]: enabled_backends = %s\n"+
			"# The files are for user and group of Cinder alone, mode 0640:\n"+
			"#   token  ovgate user token create cinder --role write\n"+
			"#   CA     data/tls/ca.pem of a node\n"+
			"%s", c.Section, text)
		return err
	})
	return cmd
}

// checkPools refuses names of vPools that there are not, and no pool at all.
func checkPools(want, have []string) error {
	if len(have) == 0 {
		return errors.New("the node has no vPool: make one with ovgate vpool create, then repeat this")
	}
	for i, name := range want {
		if !slices.Contains(have, name) {
			return &client.APIError{Status: http.StatusNotFound, Object: "vpool " + name, Message: "there is no such vPool", Hint: "there are: " + strings.Join(have, ", ")}
		}
		if slices.Contains(want[:i], name) {
			return usagef("--vpool %s is given twice", name)
		}
	}
	return nil
}

// checkEndpoint refuses what the driver cannot use as the address of a node. local: it is
// one of loopback.
func checkEndpoint(text string) (local bool, err error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return false, usagef("--endpoint %s: write https://HOST:8443", text)
	case u.User != nil:
		return false, usagef("--endpoint %s: leave the user out; the driver has a token", u.Redacted())
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return false, usagef("--endpoint %s: write only %s://%s", text, u.Scheme, u.Host)
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// driverChange is a change as it is printed.
type driverChange struct {
	Action string `json:"action"`
	Path   string `json:"path"`
}

// driverChanges is what install and uninstall print as JSON.
type driverChanges struct {
	Dir     string         `json:"dir"`
	Version string         `json:"version"`
	DryRun  bool           `json:"dryRun"`
	Changes []driverChange `json:"changes"`
}

// driverPlace are the flags that say where the driver goes.
type driverPlace struct {
	dir, python string
	dryRun      bool
}

func (p *driverPlace) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.dir, "dir", "", "directory on the Python path of cinder-volume (default where --python wants modules)")
	f.StringVar(&p.python, "python", cinderPython, "the Python that runs cinder-volume, in a virtual environment for one")
	f.BoolVar(&p.dryRun, "dry-run", false, "only print what would be done")
}

// find says which directory it is; the Python is asked unless --dir was given.
func (p *driverPlace) find(ctx context.Context) (cinder.Python, error) {
	if p.dir != "" {
		dir, err := filepath.Abs(p.dir)
		p.dir = dir
		return cinder.Python{}, err
	}
	python, err := cinder.AskPython(ctx, p.python)
	p.dir = python.Dir
	return python, err
}

func (a *app) driverInstall() *cobra.Command {
	var p driverPlace
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the driver on this machine, for cinder-volume to load",
		Long: "Install the driver that this ovgate holds on this machine, for cinder-volume to load. It may be repeated: what is\n" +
			"there already stays, what an older ovgate installed is replaced. Needs no node, and nothing but files of the driver\n" +
			"changes. Hosts without ovgate use the Debian package python3-ovgate-cinder.",
		Args: names(),
	}
	p.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		python, err := p.find(cmd.Context())
		if err != nil {
			return err
		}
		if d := python.Driver; d != "" && d != cinder.DriverDir(p.dir) {
			return fmt.Errorf("%s finds a driver in %s already, of a package for one: upgrade or remove that, or name the directory with --dir", p.python, d)
		}
		changes, err := cinder.Install(p.dir, p.dryRun)
		if err := a.printDriver(p, changes); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if python.Dir != "" && !python.Finds(p.dir) {
			a.hint(p.python + " does not look for modules in " + p.dir + ": set PYTHONPATH=" + p.dir + " for cinder-volume")
		}
		if len(changes) > 0 && !p.dryRun {
			a.hint("load it with: systemctl restart cinder-volume")
		}
		return nil
	}
	return cmd
}

func (a *app) driverUninstall() *cobra.Command {
	var p driverPlace
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the driver from this machine",
		Long: "Remove the driver that ovgate openstack driver install put on this machine. A cinder-volume whose cinder.conf names\n" +
			"it does not start that backend any more; vDisks and volumes stay.",
		Args: names(),
	}
	p.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		if _, err := p.find(cmd.Context()); err != nil {
			return err
		}
		if !p.dryRun {
			if err := a.confirm(cmd.Context(), "Remove the driver from "+p.dir+"?"); err != nil {
				return err
			}
		}
		changes, err := cinder.Uninstall(p.dir, p.dryRun)
		return errors.Join(a.printDriver(p, changes), err)
	}
	return cmd
}

// printDriver prints what was done, also before an error.
func (a *app) printDriver(p driverPlace, changes []cinder.Change) error {
	out := driverChanges{Dir: p.dir, Version: cinder.DriverVersion(), DryRun: p.dryRun, Changes: []driverChange{}}
	rows := [][]string{{"directory", p.dir}, {"version", out.Version}}
	for _, c := range changes {
		out.Changes = append(out.Changes, driverChange(c))
		rows = append(rows, []string{c.Action, c.Path})
	}
	if len(changes) == 0 {
		rows = append(rows, []string{"changed", "nothing"})
	} else if p.dryRun {
		rows = append(rows, []string{"changed", "nothing: this is a dry run"})
	}
	return printOne(a, out, rows)
}
