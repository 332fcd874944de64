// Command guestctl keeps a test guest running for a person or a script; scripts/peer
// guest is its front.
//
//	guestctl serve DIR         boot, print READY, serve until SIGTERM
//	guestctl run DIR < SCRIPT  run a shell script in the guest; its output and status
//	guestctl route DIR N ADDR  lead address N of the guest to 127.0.0.1:PORT, or to "" (nowhere)
//
// DIR/control is a unix socket. A request is a JSON object; the answer is a JSON
// object for each line of output, and one that says what became of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/openvstorage/ovgate/scripts/guest"
)

// maxScript bounds a script, in bytes.
const maxScript = 1 << 20

type request struct {
	Script string `json:"script,omitempty"`
	Route  *int   `json:"route,omitempty"`
	To     string `json:"to,omitempty"`
}

type answer struct {
	Line  *string `json:"line,omitempty"` // one line of output; more follows
	Error string  `json:"error,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestctl:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(ctx, args[1])
	case len(args) == 2 && args[0] == "run":
		script, err := io.ReadAll(io.LimitReader(os.Stdin, maxScript+1))
		if err != nil {
			return err
		}
		if len(script) > maxScript {
			return fmt.Errorf("the script is longer than %d bytes", maxScript)
		}
		return ask(args[1], request{Script: string(script)})
	case len(args) == 4 && args[0] == "route":
		n, err := strconv.Atoi(args[2])
		if err != nil || n < 0 || n >= guest.Routes {
			return fmt.Errorf("route %q: use 0 to %d", args[2], guest.Routes-1)
		}
		return ask(args[1], request{Route: &n, To: args[3]})
	}
	return errors.New("usage: guestctl serve DIR | run DIR < SCRIPT | route DIR N ADDRESS")
}

func serve(ctx context.Context, dir string) (err error) {
	image, err := guest.Image(ctx, ".")
	if err != nil {
		return err
	}
	relay, err := guest.BuildRelay(ctx, dir)
	if err != nil {
		return err
	}
	g, err := guest.Start(ctx, image, relay, guest.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	control := filepath.Join(dir, "control")
	if err := os.Remove(control); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", control)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Println("READY")
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		handle(ctx, g, c)
	}
}

// handle serves one request; a client that left misses its answer.
func handle(ctx context.Context, g *guest.Guest, c net.Conn) {
	defer c.Close()
	to := json.NewEncoder(c)
	var r request
	err := json.NewDecoder(io.LimitReader(c, 2*maxScript)).Decode(&r)
	switch {
	case err != nil:
	case r.Route != nil:
		err = g.Route(*r.Route, r.To)
	default:
		g.Log(func(line string) { _ = to.Encode(answer{Line: &line}) })
		_, err = g.Run(ctx, r.Script)
		g.Log(nil)
	}
	var failed *guest.StatusError
	switch {
	case err == nil:
		_ = to.Encode(answer{})
	case errors.As(err, &failed): // its output was sent already
		_ = to.Encode(answer{Error: fmt.Sprintf("the script ended with status %s", failed.Status)})
	default:
		_ = to.Encode(answer{Error: err.Error()})
	}
}

func ask(dir string, r request) error {
	c, err := net.Dial("unix", filepath.Join(dir, "control"))
	if err != nil {
		return fmt.Errorf("%w; scripts/peer guest up starts it", err)
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return err
	}
	in := json.NewDecoder(c)
	for {
		var a answer
		if err := in.Decode(&a); err != nil {
			return fmt.Errorf("the guest ended: %w", err)
		}
		switch {
		case a.Line != nil:
			fmt.Println(*a.Line)
		case a.Error != "":
			return errors.New(a.Error)
		default:
			return nil
		}
	}
}
