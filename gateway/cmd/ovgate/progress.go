package main

import (
	"fmt"
	"time"
)

// stopTime bounds what a verb that is interrupted still asks of the node.
const stopTime = 30 * time.Second

// progressEvery is how often a line of progress is written: to a terminal it is a line
// that changes, to a log one that says that it goes on.
const (
	progressEvery    = 500 * time.Millisecond
	progressEveryLog = 30 * time.Second
)

// progress tells on standard error how far something is.
type progress struct {
	a     *app
	what  string
	every time.Duration
	last  time.Time
	shown bool
}

// progress returns one; what is a participle, "verified".
func (a *app) progress(what string) *progress {
	p := &progress{a: a, what: what, every: progressEveryLog, last: time.Now()}
	if a.terminal != nil {
		p.every = progressEvery
	}
	return p
}

// show writes how far it is, when it is time to.
func (p *progress) show(done, total int64) {
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		text := formatSize(done) + " " + p.what
		if total > 0 {
			text = fmt.Sprintf("%s of %s (%d %%)", text, formatSize(total), done*100/total)
		}
		if p.a.terminal == nil {
			fmt.Fprintln(p.a.err, text)
			return
		}
		p.shown = true
		fmt.Fprintf(p.a.err, "\r%-60s", text)
	}
}

// end leaves a line that is written to.
func (p *progress) end() {
	if p.shown {
		fmt.Fprintf(p.a.err, "\r%60s\r", "")
	}
}
