// Command labctl is scripts/cluster, which builds it and explains its verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/scripts/lab"
)

func main() {
	handled, err := lab.Helper(os.Args)
	if !handled {
		err = run(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// verb is one of the program's.
type verb struct {
	args []string // what they are called
	do   func(ctx context.Context, l *lab.Lab, args []string) error
}

var verbs = map[string]verb{
	"status": {nil, func(_ context.Context, l *lab.Lab, _ []string) error { return status(l) }},
	"cut":    {[]string{"A", "B"}, func(ctx context.Context, l *lab.Lab, a []string) error { return l.Cut(ctx, a[0], a[1]) }},
	"delay": {[]string{"A", "B", "MS"}, func(ctx context.Context, l *lab.Lab, a []string) error {
		ms, err := strconv.Atoi(a[2])
		if err != nil {
			return fmt.Errorf("a delay of %q: a number of milliseconds", a[2])
		}
		return l.Delay(ctx, a[0], a[1], ms)
	}},
	"loss": {[]string{"A", "PERCENT"}, func(ctx context.Context, l *lab.Lab, a []string) error {
		percent, err := strconv.ParseFloat(a[1], 64)
		if err != nil {
			return fmt.Errorf("a loss of %q: a number of percent", a[1])
		}
		return l.Loss(ctx, a[0], percent)
	}},
	"heal":   {nil, func(ctx context.Context, l *lab.Lab, _ []string) error { return l.Heal(ctx) }},
	"kill":   {[]string{"A"}, func(ctx context.Context, l *lab.Lab, a []string) error { return l.Kill(ctx, a[0]) }},
	"pause":  {[]string{"A"}, func(_ context.Context, l *lab.Lab, a []string) error { return l.Signal(a[0], syscall.SIGSTOP) }},
	"resume": {[]string{"A"}, func(_ context.Context, l *lab.Lab, a []string) error { return l.Signal(a[0], syscall.SIGCONT) }},
}

func run(args []string) error {
	dir, o := "cluster", lab.Options{Nodes: 3, Members: 1}
	for len(args) > 1 && strings.HasPrefix(args[0], "--") {
		switch args[0] {
		case "--dir":
			dir = args[1]
		case "--bin":
			o.Bin = args[1]
		case "--etcd":
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return fmt.Errorf("--etcd %q: 1, 3 or 5 members", args[1])
			}
			o.Members = n
		case "--storage":
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return fmt.Errorf("--storage %q: how many machines with devices alone", args[1])
			}
			o.Storage, o.Alba = n, n != 0
		default:
			return fmt.Errorf("there is no option %s", args[0])
		}
		args = args[2:]
	}
	if len(args) == 0 {
		return errors.New("which verb? scripts/cluster help explains them")
	}
	name, args := args[0], args[1:]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch name {
	case "up":
		return up(ctx, dir, o, args)
	case "down":
		return lab.Down(ctx, dir)
	}
	l, err := lab.Open(dir)
	if err != nil {
		return fmt.Errorf("%w: make one with scripts/cluster up 3, or name its directory with --dir", err)
	}
	if name == "exec" {
		return enter(l, args)
	}
	v, ok := verbs[name]
	if !ok {
		return fmt.Errorf("there is no verb %q; scripts/cluster help explains them", name)
	}
	if len(args) != len(v.args) {
		return fmt.Errorf("usage: scripts/cluster %s %s", name, strings.Join(v.args, " "))
	}
	return v.do(ctx, l, args)
}

func up(ctx context.Context, dir string, o lab.Options, args []string) (err error) {
	if len(args) > 1 {
		return errors.New("usage: scripts/cluster up [N]")
	}
	if len(args) == 1 {
		if o.Nodes, err = strconv.Atoi(args[0]); err != nil {
			return fmt.Errorf("%q nodes: a number", args[0])
		}
	}
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return err
	}
	l, err := lab.Up(ctx, dir, o, func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err != nil {
		return err
	}
	return status(l)
}

// status prints what runs where.
func status(l *lab.Lab) error {
	for _, p := range l.Places() {
		what := "-"
		switch {
		case l.Runs(p) && l.Running(p):
			what = "running"
		case l.Runs(p):
			what = "down"
		}
		fmt.Printf("%-9s %-14s %s\n", p, lab.Address(p), what)
	}
	links, err := l.Links()
	for _, k := range links {
		fmt.Printf("link %s %s: %s\n", k.A, k.B, k)
	}
	return err
}

// enter replaces the process by a command at a place, with the CLI's way to the node.
func enter(l *lab.Lab, args []string) error {
	if len(args) < 2 {
		return errors.New("give a node and a command: scripts/cluster exec NODE COMMAND [ARGUMENT]")
	}
	if !slices.Contains(l.Places(), args[0]) {
		return fmt.Errorf("there is no %q: use %s", args[0], strings.Join(l.Places(), ", "))
	}
	path, argv, env, err := l.Command(args[0], args[1:]...)
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, env)
}
