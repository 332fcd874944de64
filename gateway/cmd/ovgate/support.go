package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// bundleTimeout is more than a node takes for a support bundle at most.
const bundleTimeout = 3 * time.Minute

// support returns the verbs for those who look for a fault together with others.
func (a *app) support() *cobra.Command {
	return group("support", "What helps others to find out what is wrong with a node", a.supportBundle())
}

func (a *app) supportBundle() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle [FILE]",
		Short: "Write a node's configuration, log, metrics, state and surroundings to a tar.gz",
		Long: "Write a node's configuration, the end of its log, its metrics, what its API answers, and what its operating system\n" +
			"says of the machine to a tar.gz, by default here under a name with the node and the time. No password, token, key or\n" +
			"CHAP secret is in it; names, labels and addresses are. A file that exists is not overwritten; - is standard output.\n" +
			"In a cluster each node has its own: name the node with --url.",
		Example: "  ovgate support bundle\n  ovgate support bundle /tmp/node1.tar.gz",
		Args:    cobra.MaximumNArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("timeout") {
			a.timeout = bundleTimeout
		}
		return a.online(a.writeBundle)(cmd, args)
	}
	return cmd
}

func (a *app) writeBundle(ctx context.Context, api *client.Client, args []string) error {
	file := ""
	if len(args) > 0 {
		file = args[0]
	}
	if file != "" && file != "-" {
		if _, err := os.Lstat(file); err == nil {
			return usagef("support bundle: %s exists: name another file, or remove it", file)
		}
	}
	resp, err := api.GetSupportBundle(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return client.Done(resp, nil)
	}
	switch file {
	case "-":
		_, err := io.Copy(a.out, resp.Body)
		return cutOff(err)
	case "":
		if file, err = bundleName(resp.Header.Get("Content-Disposition")); err != nil {
			return err
		}
	}
	if err := writeNew(file, resp.Body); err != nil {
		return cutOff(err)
	}
	if a.output == outputJSON {
		return printJSON(a.out, struct {
			File string `json:"file"`
		}{file})
	}
	_, err = fmt.Fprintln(a.out, file)
	return err
}

func cutOff(err error) error {
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return fmt.Errorf("the bundle was not written to its end: %w", err)
}

// bundleName is the name that the node gives its bundle.
func bundleName(disposition string) (string, error) {
	_, params, err := mime.ParseMediaType(disposition)
	name := params["filename"]
	if err != nil || name == "" || filepath.Base(name) != name || !strings.HasPrefix(name, "ovgate-support-") {
		return "", fmt.Errorf("the node gives its bundle no name that can be used: write a FILE")
	}
	return name, nil
}

// writeNew writes a file that does not exist, for its owner only; after an error there is none.
func writeNew(file string, from io.Reader) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	return f.Sync()
}
