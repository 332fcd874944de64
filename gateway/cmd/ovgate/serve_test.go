package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestServe checks what a command line asks of the node.
func TestServe(t *testing.T) {
	for _, c := range []struct {
		args, env string
		want      string // of the options
		code      int
	}{
		{"", "", "/var/lib/ovgate|||[]|[]|false|", 0},
		{"--data /d --api :1 --iscsi :2 --iscsi [::1]:5 --advertise a:3 --advertise b:4 --insecure --log-format json", "", "/d||:1|[:2 [::1]:5]|[a:3 b:4]|true|json", 0},
		{"", "/e", "/e|||[]|[]|false|", 0},
		{"--data /d", "/e", "/d|||[]|[]|false|", 0},
		{"--config /c", "", "/var/lib/ovgate|/c||[]|[]|false|", 0},
		{"--log-format xml", "", "", exitUsage},
		{"--url https://127.0.0.1:1", "", "", exitUsage},
		{"extra", "", "", exitUsage},
	} {
		got := ""
		a := &app{env: client.System(), in: strings.NewReader(""), out: io.Discard, err: io.Discard}
		a.env.Getenv = func(name string) string {
			if name == "OVGATE_DATA" {
				return c.env
			}
			return ""
		}
		a.run = func(_ context.Context, o node.Options) error {
			got = fmt.Sprintf("%s|%s|%s|%s|%v|%v|%s", o.Data, o.Config, o.API, o.ISCSI, o.Advertise, o.Insecure, o.LogFormat)
			return nil
		}
		if code := run(t.Context(), append([]string{"serve"}, strings.Fields(c.args)...), a); code != c.code || got != c.want {
			t.Errorf("serve %s: got %d, %s, want %d, %s", c.args, code, got, c.code, c.want)
		}
	}
	a := &app{env: client.System(), in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	a.run = func(context.Context, node.Options) error { return errors.New("port in use") }
	if code := run(t.Context(), []string{"serve"}, a); code != exitFailed {
		t.Errorf("a failing node ends with %d", code)
	}
}
