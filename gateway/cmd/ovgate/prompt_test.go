package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/client"
)

// echoes is a terminal that records what happened to its echo.
type echoes struct{ log []string }

func (e *echoes) Echo(on bool) error {
	e.log = append(e.log, fmt.Sprint(on))
	return nil
}

// talk returns an app on a terminal where input is typed.
func talk(input string) (*app, *echoes, *strings.Builder) {
	e, out := &echoes{}, &strings.Builder{}
	return &app{env: client.System(), in: strings.NewReader(input), out: io.Discard, err: out, terminal: e}, e, out
}

// TestConfirm checks invariant 2: only a clear yes goes on.
func TestConfirm(t *testing.T) {
	for input, want := range map[string]error{"y\n": nil, "YES\r\n": nil, "n\n": errDeclined, "\n": errDeclined, "yep\n": errDeclined, "": io.EOF} {
		a, _, out := talk(input)
		if err := a.confirm(t.Context(), "Delete \x1b[2J?"); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", input, err, want)
		}
		if got := out.String(); got != "Delete ?[2J? [y/N] " {
			t.Errorf("asked %q", got)
		}
	}
	a, _, out := talk("n\n")
	a.yes = true
	if err := a.confirm(t.Context(), "?"); err != nil || out.Len() > 0 {
		t.Errorf("--yes: got %v, asked %q", err, out)
	}
	if got := exitCode(errDeclined); got != exitRefused {
		t.Errorf("declined ends with %d", got)
	}
}

// TestDeleteAsks runs a whole command line on a terminal.
func TestDeleteAsks(t *testing.T) {
	a, _, out := talk("no\n")
	code := run(t.Context(), []string{"vdisk", "delete", "demo", "--url", "https://127.0.0.1:1"}, a)
	if code != exitRefused || !strings.Contains(out.String(), "Delete vDisk demo? [y/N] ovgate: not done") {
		t.Errorf("got %d, %q", code, out)
	}
}

func TestPassword(t *testing.T) {
	for _, c := range []struct {
		name, input string
		again       bool
		want, fails string
	}{
		{"once", "s3cret pass \n", false, "s3cret pass ", ""},
		{"twice", "abc\nabc\n", true, "abc", ""},
		{"differ", "abc\nabd\n", true, "abc", "differ"},
		{"empty", "\n", false, "", "is empty"},
		{"end", "", false, "", "EOF"},
		{"too long", strings.Repeat("x", 2*maxSecret) + "\n", false, "", "buffer full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, e, out := talk(c.input)
			got, err := a.password(t.Context(), "password", false, c.again)
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got error %v, want %q", err, c.fails)
			}
			if err == nil && got != c.want {
				t.Errorf("got %q", got)
			}
			if n := len(e.log); n == 0 || n%2 != 0 || e.log[0] != "false" || e.log[n-1] != "true" {
				t.Errorf("echo was turned %v", e.log)
			}
			if strings.Contains(out.String(), "abc") {
				t.Errorf("the password is in %q", out)
			}
		})
	}
}

// TestPasswordInterrupted restores echo when the user gives up.
func TestPasswordInterrupted(t *testing.T) {
	in, keep := io.Pipe()
	defer keep.Close()
	a, e, _ := talk("")
	a.in = in
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.password(ctx, "password", false, true); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(e.log) != 2 || e.log[1] != "true" {
		t.Errorf("echo was turned %v", e.log)
	}
}

// TestTTY turns the echo of a real terminal off and on.
func TestTTY(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term, ok := openTerminal(slave)
	if !ok {
		t.Fatal("a terminal is not taken for one")
	}
	for _, on := range []bool{false, true} {
		if err := term.Echo(on); err != nil {
			t.Fatal(err)
		}
		state, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if got := state.Lflag&unix.ECHO != 0; got != on {
			t.Errorf("echo is %v, want %v", got, on)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, ok := openTerminal(null); ok {
		t.Error(os.DevNull + " is taken for a terminal")
	}
}
