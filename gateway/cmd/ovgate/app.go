package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/client"
)

// defaultData is the data directory of a node that was given none.
const defaultData = "/var/lib/ovgate"

// defaultTimeout bounds one request: longer than the two minutes that a node
// gives an operation, so that its own word on what is late arrives.
const defaultTimeout = 150 * time.Second

// app is what every verb shares: the process's surroundings and the global flags.
type app struct {
	env      client.Env
	in       io.Reader
	out, err io.Writer
	terminal terminal // of standard input; nil when it is none
	run      func(context.Context, node.Options) error

	data      string
	url       string
	ca        string
	tokenFile string
	output    string
	timeout   time.Duration
	yes       bool

	keepEvery time.Duration // 0: keepEvery
}

// system returns the app of this process.
func system() *app {
	a := &app{env: client.System(), in: os.Stdin, out: os.Stdout, err: os.Stderr, run: node.Run}
	if t, ok := openTerminal(os.Stdin); ok {
		a.terminal = t
	}
	return a
}

// dial returns a client for the node that the flags and environment name.
func (a *app) dial() (*client.Client, error) {
	env := a.env
	env.Getenv = func(name string) string {
		switch {
		case name == "OVGATE_URL" && a.url != "":
			return a.url
		case name == "OVGATE_CA" && a.ca != "":
			return a.ca
		}
		return a.env.Getenv(name)
	}
	opts, err := client.Discover(env, a.dataDir())
	if err != nil {
		return nil, err
	}
	if a.tokenFile != "" {
		if opts.Token, err = client.ReadToken(env, a.tokenFile); err != nil {
			return nil, err
		}
	}
	opts.UserAgent, opts.Timeout = "ovgate/"+build().Version, a.timeout
	return client.New(opts)
}

// dataDir returns the data directory to find the node by, empty for none.
func (a *app) dataDir() string {
	if a.data != "" || a.url != "" {
		return a.data
	}
	if d := a.env.Getenv("OVGATE_DATA"); d != "" {
		return d
	}
	if a.env.Getenv("OVGATE_URL") != "" {
		return ""
	}
	return defaultData
}

// call is a verb that talks to a node.
type call func(ctx context.Context, api *client.Client, args []string) error

// online makes a cobra function of a verb that talks to a node.
func (a *app) online(f call) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		api, err := a.dial()
		if err != nil {
			return err
		}
		return f(cmd.Context(), api, args)
	}
}

// checkFlags checks the global flags.
func (a *app) checkFlags() error {
	switch {
	case a.output != outputTable && a.output != outputJSON:
		return usagef("-o %s: write -o %s or -o %s", a.output, outputTable, outputJSON)
	case a.data != "" && a.url != "":
		return usagef("--data and --url name two nodes; give one of them")
	case a.timeout < 0:
		return usagef("--timeout %s: write a time such as 30s, or 0 for none", a.timeout)
	}
	return nil
}

// backendPath makes a backend's path absolute. Only a path on this machine can
// be completed, so elsewhere it has to be absolute already; empty is the node's
// own choice.
func (a *app) backendPath(path string) (string, error) {
	switch {
	case path == "":
		return "", nil
	case filepath.IsAbs(path):
		return filepath.Clean(path), nil
	case a.dataDir() == "":
		return "", usagef("--path %s: write an absolute path, it is a directory on the node", path)
	}
	return filepath.Abs(path)
}

// exit codes, see the package comment.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitRefused
	exitUnauthorised
)

// usageError is a command line that cannot be carried out as written.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef returns a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode maps an error to an exit code.
func exitCode(err error) int {
	var usage usageError
	var api *client.APIError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errDeclined):
		return exitRefused
	case errors.As(err, &api):
		switch api.Status {
		case 404:
			return exitNotFound
		case 400, 409, 412, 413, 422:
			return exitRefused
		case 401, 403:
			return exitUnauthorised
		}
	case errors.Is(err, fs.ErrPermission):
		return exitUnauthorised
	}
	return exitFailed
}

// report prints an error with its parts on lines of their own.
func (a *app) report(err error) {
	var api *client.APIError
	var away *client.UnreachableError
	var usage usageError
	switch {
	case errors.As(err, &api):
		line := api.Message
		if api.Object != "" {
			line = api.Object + ": " + line
		}
		if api.Field != "" {
			line += " (field " + api.Field + ")"
		}
		fmt.Fprintln(a.err, "ovgate:", clean(line))
		a.hint(api.Hint)
		if api.Status == 401 && api.Hint == "" {
			a.hint("set OVGATE_TOKEN to a token made with ovgate user token create, or use --data on the node itself")
		}
		if api.RequestID != "" {
			fmt.Fprintln(a.err, "  request:", clean(api.RequestID))
		}
	case errors.As(err, &away):
		fmt.Fprintf(a.err, "ovgate: no answer from %s: %s\n", away.URL, clean(away.Err.Error()))
		a.hint(away.Hint)
	case errors.As(err, &usage):
		fmt.Fprintln(a.err, "ovgate:", clean(err.Error()))
		a.hint("ovgate help shows the verbs, and --help after a verb its flags")
	default:
		fmt.Fprintln(a.err, "ovgate:", clean(err.Error()))
	}
}

// hint prints what to do, if there is something.
func (a *app) hint(text string) {
	if text != "" {
		fmt.Fprintln(a.err, "  hint:", clean(text))
	}
}
