package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// backend returns the verbs of registered stores.
func (a *app) backend() *cobra.Command {
	create := group("create", "Register a store, after every operation was tried", a.backendCreate(client.RemoteKindSwift), a.backendCreate(client.RemoteKindS3))
	return group("backend", "Swift and S3 stores that vPools may use", create, a.backendList(), a.backendShow(), a.backendTest(), a.backendPerformance(), a.backendSet(), a.backendDelete())
}

// maxCA bounds a file of certificates, in bytes, as openapi.yaml does.
const maxCA = 1 << 20

// remoteFlags are the flags of a store, by the names of options in the API.
type remoteFlags struct {
	cmd         *cobra.Command
	o           client.RemoteOptionsInput
	text        map[string]**string
	ca          string
	secretStdin bool
	connections int
	up, down    sizeFlag
	iam, cred   bool
	version     int
	shards      int
}

// add adds the flags that a kind has; empty: those of all kinds.
func (r *remoteFlags) add(cmd *cobra.Command, kind client.RemoteKind) {
	r.cmd, r.text = cmd, map[string]**string{}
	f := cmd.Flags()
	text := func(name string, to **string, usage string) {
		f.String(name, "", usage)
		r.text[name] = to
	}
	s3, swift := kind != client.RemoteKindSwift, kind != client.RemoteKindS3
	if s3 {
		text("bucket", &r.o.Container, "S3: the bucket, which is there already")
		text("addressing", &r.o.Addressing, "S3: where the bucket's name stands in requests: auto, path or virtual (default auto)")
		f.BoolVar(&r.iam, "iam", false, "S3: take the keys from the environment of the node or from the machine's role")
		text("sse", &r.o.Sse, "S3: encryption by the store: none, AES256 or aws:kms (default none)")
		text("sse-key", &r.o.SseKey, "S3: id of the key, with aws:kms")
	}
	if swift {
		text("container", &r.o.Container, "Swift: the container, made when missing")
		f.IntVar(&r.version, "auth-version", 0, "Swift: 1, 2 or 3 (default by the URL)")
		text("domain", &r.o.Domain, "Swift: domain of the user")
		text("project", &r.o.Project, "Swift: project, formerly tenant")
		text("project-domain", &r.o.ProjectDomain, "Swift: domain of the project (default the user's)")
		text("trust", &r.o.Trust, "Swift: id of a trust")
		f.BoolVar(&r.cred, "application-credential", false, "Swift: --user is the id of an application credential")
		text("endpoint", &r.o.Endpoint, "Swift: which of the catalogue's endpoints: public, internal or admin (default public)")
		text("policy", &r.o.Policy, "Swift: storage policy of containers that are made")
		f.IntVar(&r.shards, "shards", 0, "Swift: containers that vDisks spread over, 1 to 256 (default 1)")
	}
	text("url", &r.o.URL, "S3: the endpoint (default Amazon's of the region); Swift: where users sign in")
	text("region", &r.o.Region, "region at the store")
	text("user", &r.o.User, "S3: access key; Swift: user, or the id of an application credential")
	text("proxy", &r.o.Proxy, "URL of an HTTP proxy")
	f.BoolVar(&r.secretStdin, "secret-stdin", false, "read the secret key or password from standard input")
	f.StringVar(&r.ca, "ca", "", "file of certificates in PEM to trust in place of the system's; - for the system's again")
	f.IntVar(&r.connections, "connections", 0, "connections at a time (default 64)")
	f.Var(&r.up, "upload-limit", "bytes per second that each vPool uploads at most, such as 100MiB (default no bound)")
	f.Var(&r.down, "download-limit", "bytes per second that each vPool downloads at most (default no bound)")
}

// input returns what was given; any tells whether there was something.
func (r *remoteFlags) input() (in client.RemoteOptionsInput, any bool, err error) {
	given := r.cmd.Flags().Changed
	for name, to := range r.text {
		if given(name) {
			v, err := r.cmd.Flags().GetString(name)
			if err != nil {
				return in, false, err
			}
			*to, any = &v, true
		}
	}
	in = r.o
	if given("ca") {
		pem := ""
		if r.ca != "-" {
			if pem, err = readBounded(r.ca, maxCA); err != nil {
				return in, false, err
			}
		}
		in.Ca, any = &pem, true
	}
	for name, set := range map[string]func(){
		"connections":            func() { in.Connections = &r.connections },
		"iam":                    func() { in.Iam = &r.iam },
		"auth-version":           func() { in.AuthVersion = &r.version },
		"application-credential": func() { in.ApplicationCredential = &r.cred },
		"shards":                 func() { in.Shards = &r.shards },
		"upload-limit":           func() { in.UploadBytes = r.up.ptr() },
		"download-limit":         func() { in.DownloadBytes = r.down.ptr() },
	} {
		if given(name) {
			set()
			any = true
		}
	}
	return in, any, nil
}

// allWork returns an error for the first thing that was tried of an object and does not work.
func allWork(object string, steps []client.RemoteStep) error {
	for _, s := range steps {
		if !s.Ok {
			return fmt.Errorf("%s: %s does not work: %s", object, s.Step, s.Detail)
		}
	}
	return nil
}

// readBounded reads a small file.
func readBounded(name string, most int64) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = usagef("%s has more than %s", name, formatSize(most))
	}
	return string(b), err
}

// secret reads the secret if it was asked for.
func (r *remoteFlags) secret(ctx context.Context, a *app) (*string, error) {
	if !r.secretStdin {
		return nil, nil
	}
	s, err := a.secretLine(ctx, "secret")
	return &s, err
}

func (a *app) backendCreate(kind client.RemoteKind) *cobra.Command {
	var flags remoteFlags
	cmd := &cobra.Command{Use: string(kind) + " NAME", Args: names("NAME")}
	if kind == client.RemoteKindSwift {
		cmd.Short = "Register an OpenStack Swift"
		cmd.Example = "  ovgate backend create swift cloud --url https://keystone.example.org:5000/v3 --user ovgate --project storage \\\n" +
			"    --domain Default --container vpools --secret-stdin < password"
	} else {
		cmd.Short = "Register Amazon S3, or a store that speaks like it"
		cmd.Example = "  ovgate backend create s3 rgw --url https://rgw.example.org --bucket vpools --user AKIA0123456789 --secret-stdin < key"
	}
	cmd.Long = cmd.Short + ". Every operation is tried first, on objects that are made for it and removed; what the store\n" +
		"gives is told. The secret is kept sealed, and shown nowhere."
	flags.add(cmd, kind)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.RemoteBackendInput{Name: args[0], Kind: kind}
		var err error
		if in.Options, _, err = flags.input(); err != nil {
			return err
		}
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		r, err := client.Get[client.RemoteBackendResult](api.CreateBackend(ctx, &client.CreateBackendParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printBackendResult(r)
	})
	return cmd
}

func (a *app) backendList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List the registered stores", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.RemoteBackend, *string, error) {
			l, err := client.Get[client.RemoteBackendList](api.ListBackends(ctx, &client.ListBackendsParams{Limit: new(pageSize), Cursor: cursor, Q: given(query)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "KIND", "URL", "CONTAINER", "USER", "VPOOLS", "TESTED"}, func(b client.RemoteBackend) []string {
			return []string{b.Name, string(b.Kind), dash(b.Options.URL), b.Options.Container, dash(b.Options.User), strconv.Itoa(len(b.Vpools)), formatTime(&b.TestedAt)}
		})
	})
	return cmd
}

func (a *app) backendShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a registered store, and what it gives", Args: names("NAME"), ValidArgsFunction: a.completeBackends}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		b, err := client.Get[client.RemoteBackend](api.GetBackend(ctx, args[0]))
		if err != nil {
			return err
		}
		return printOne(a, b, backendRows(b))
	})
	return cmd
}

func (a *app) backendTest() *cobra.Command {
	cmd := &cobra.Command{Use: "test NAME", Short: "Try every operation of a registered store", Args: names("NAME"), ValidArgsFunction: a.completeBackends}
	cmd.Long = "Try every operation of a registered store, on objects that are made for it and removed. It ends with an error when\n" +
		"one does not work."
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, err := client.Get[client.RemoteBackendResult](api.TestBackend(ctx, args[0]))
		if err != nil {
			return err
		}
		if err := a.printBackendResult(r); err != nil {
			return err
		}
		return allWork("backend "+args[0], r.Steps)
	})
	return cmd
}

func (a *app) backendSet() *cobra.Command {
	var flags remoteFlags
	var name string
	cmd := &cobra.Command{Use: "set NAME", Short: "Rename a registered store, or change how it is reached", Args: names("NAME"), ValidArgsFunction: a.completeBackends}
	cmd.Long = "Rename a registered store, or change how it is reached. New addresses and credentials are tried before they are\n" +
		"kept; the vPools on it go on with them without a stop."
	cmd.Example = "  ovgate backend set rgw --user AKIA9876543210 --secret-stdin < key"
	flags.add(cmd, "")
	cmd.Flags().StringVar(&name, "name", "", "new name")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.RemoteBackendPatch{Name: given(name)}
		o, any, err := flags.input()
		if err != nil {
			return err
		}
		if any {
			in.Options = &o
		}
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		if in.Name == nil && in.Options == nil && in.Secret == nil {
			return usagef("backend set %s: nothing to change was given", args[0])
		}
		r, err := client.Get[client.RemoteBackendResult](api.UpdateBackend(ctx, args[0], in))
		if err != nil {
			return err
		}
		return a.printBackendResult(r)
	})
	return cmd
}

func (a *app) backendDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Forget a registered store that no vPool uses", Args: names("NAME"), ValidArgsFunction: a.completeBackends}
	cmd.Long = "Forget a registered store that no vPool uses. Nothing at the store changes."
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Forget backend "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteBackend(ctx, args[0]))
	})
	return cmd
}

func (a *app) printBackendResult(r client.RemoteBackendResult) error {
	return printOne(a, r, append(backendRows(r.Backend), stepRows(r.Steps)...))
}

// stepRows print what was tried.
func stepRows(steps []client.RemoteStep) [][]string {
	var rows [][]string
	for _, s := range steps {
		text := "works"
		if !s.Ok {
			text = "DOES NOT WORK"
		}
		if s.Detail != "" {
			text += ": " + s.Detail
		}
		rows = append(rows, []string{s.Step, fmt.Sprintf("%s (%.0f ms)", text, s.Millis)})
	}
	return rows
}

func backendRows(b client.RemoteBackend) [][]string {
	o := b.Options
	rows := [][]string{{"name", b.Name}, {"id", b.ID}, {"kind", string(b.Kind)}}
	for _, r := range [][2]string{
		{"url", o.URL}, {"region", o.Region}, {"container", o.Container}, {"user", o.User}, {"project", o.Project}, {"domain", o.Domain},
		{"project domain", o.ProjectDomain}, {"trust", o.Trust}, {"policy", o.Policy}, {"proxy", o.Proxy}, {"addressing", o.Addressing},
		{"sse", o.Sse}, {"sse key", o.SseKey}, {"endpoint", o.Endpoint},
	} {
		if r[1] != "" {
			rows = append(rows, []string{r[0], r[1]})
		}
	}
	if o.Shards > 1 {
		rows = append(rows, []string{"shards", strconv.Itoa(o.Shards)})
	}
	if o.Ca != "" {
		rows = append(rows, []string{"ca", fmt.Sprintf("%d certificates", strings.Count(o.Ca, "BEGIN CERTIFICATE"))})
	}
	for _, l := range []struct {
		name string
		n    int64
	}{{"upload limit", o.UploadBytes}, {"download limit", o.DownloadBytes}} {
		if l.n > 0 {
			rows = append(rows, []string{l.name, formatSize(l.n) + "/s"})
		}
	}
	rows = append(rows, []string{"vpools", dash(strings.Join(b.Vpools, " "))}, []string{"tested", formatTime(&b.TestedAt)})
	rows = append(rows, requestRows(b.Requests)...)
	for _, g := range b.Gives {
		rows = append(rows, []string{"gives", g})
	}
	for _, w := range b.Warnings {
		rows = append(rows, []string{"warning", w})
	}
	return rows
}

// requestRows print the kinds of requests that were made.
func requestRows(all []client.StoreRequests) [][]string {
	var rows [][]string
	for _, r := range all {
		if r.Requests == 0 {
			continue
		}
		text := strconv.FormatInt(r.Requests, 10)
		if r.Bytes > 0 {
			text += ", " + formatSize(r.Bytes)
		}
		if r.Failed > 0 {
			text += fmt.Sprintf(", %d failed", r.Failed)
		}
		rows = append(rows, []string{r.Kind + " requests", text})
	}
	return rows
}
