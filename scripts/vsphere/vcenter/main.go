// Command vcenter serves a simulated vCenter whose hosts log in to a real iSCSI target:
// integrations/vsphere/esxsim as a process, for scripts/peer and people.
//
//	vcenter -listen HOST:PORT -hosts N [-alone] -user USER -password-file FILE -out FILE
//
// It writes key=value lines to -out when it serves, and ends on SIGINT or SIGTERM.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vcenter:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	hosts := flag.Int("hosts", 3, "ESXi hosts in the cluster")
	alone := flag.Bool("alone", false, "an ESXi host without a vCenter")
	user := flag.String("user", "administrator@vsphere.local", "who may sign in")
	secret := flag.String("password-file", "", "file with the password")
	out := flag.String("out", "", "file to write key=value lines to")
	flag.Parse()
	password, err := os.ReadFile(*secret)
	if err != nil {
		return err
	}
	v, err := esxsim.Start(esxsim.Options{
		Address: *listen, Hosts: *hosts, Alone: *alone, User: *user, Password: string(bytes.TrimSpace(password)), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer v.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "url=%s\nuser=%s\nthumbprint=%s\n", v.URL(), v.User(), v.Thumbprint())
	if !*alone {
		fmt.Fprintf(&b, "cluster=%s\n", esxsim.Cluster)
	}
	if err := os.WriteFile(*out+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(*out+".new", *out); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}
