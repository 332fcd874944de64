package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSecret bounds a password line, in bytes; the API takes 1024.
const maxSecret = 4096

// errDeclined is the answer no to a question.
var errDeclined = errors.New("not done, as answered")

// terminal is a terminal that can be asked without echo.
type terminal interface {
	// Echo turns echo on or off.
	Echo(on bool) error
}

// tty is the terminal behind a file.
type tty struct{ f *os.File }

// openTerminal returns f's terminal, and whether it is one.
func openTerminal(f *os.File) (tty, bool) {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return tty{f}, err == nil
}

// Echo implements terminal.
func (t tty) Echo(on bool) error {
	state, err := unix.IoctlGetTermios(int(t.f.Fd()), unix.TCGETS)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	state.Lflag &^= unix.ECHO
	if on {
		state.Lflag |= unix.ECHO
	}
	if err := unix.IoctlSetTermios(int(t.f.Fd()), unix.TCSETS, state); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

// confirm asks before something is lost (invariant 2).
func (a *app) confirm(ctx context.Context, question string) error {
	if a.yes || a.terminal == nil {
		return nil
	}
	fmt.Fprintf(a.err, "%s [y/N] ", clean(question))
	answer, err := a.line(ctx)
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errDeclined
	}
	return nil
}

// password reads a secret: a line of standard input when stdin is set, else
// from the terminal without echo, twice when again is set.
func (a *app) password(ctx context.Context, what string, stdin, again bool) (string, error) {
	if stdin {
		return a.secretLine(ctx, what)
	}
	if a.terminal == nil {
		return "", usagef("the %s has to come from somewhere: standard input is no terminal; give it there and say --password-stdin", what)
	}
	first, err := a.ask(ctx, what)
	if err != nil || !again {
		return first, err
	}
	second, err := a.ask(ctx, what+" again")
	if err == nil && first != second {
		err = errors.New("the two passwords differ; nothing was changed")
	}
	return first, err
}

// ask prompts for a secret without echo.
func (a *app) ask(ctx context.Context, what string) (string, error) {
	if err := a.terminal.Echo(false); err != nil {
		return "", err
	}
	fmt.Fprintf(a.err, "%s: ", what)
	secret, err := a.secretLine(ctx, what)
	fmt.Fprintln(a.err)
	return secret, errors.Join(err, a.terminal.Echo(true))
}

// secretLine reads a secret that is not empty.
func (a *app) secretLine(ctx context.Context, what string) (string, error) {
	line, err := a.line(ctx)
	if err == nil && line == "" {
		err = usagef("the %s is empty", what)
	}
	return line, err
}

// line reads a line of standard input, or returns when ctx ends: the reader
// stays behind then, and the process is about to end.
func (a *app) line(ctx context.Context) (string, error) {
	type result struct {
		text string
		err  error
	}
	if _, ok := a.in.(*bufio.Reader); !ok {
		a.in = bufio.NewReaderSize(a.in, maxSecret)
	}
	in := a.in.(*bufio.Reader)
	done := make(chan result, 1)
	go func() {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(text) > 0 {
			err = nil
		}
		done <- result{strings.TrimRight(string(text), "\r\n"), err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return "", fmt.Errorf("read standard input: %w", r.err)
		}
		return r.text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
