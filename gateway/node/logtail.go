package node

import (
	"bytes"
	"sync"
)

// logKept is how much of the log's end a node keeps in memory, in bytes.
const logKept = 2 << 20

// logTail keeps the end of what is written to it, in whole lines.
type logTail struct {
	mu sync.Mutex
	b  []byte // up to twice logKept
}

// Write implements io.Writer; it never fails.
func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.b)+len(p) > 2*logKept {
		l.b = append(l.b[:0], l.end()...)
	}
	l.b = append(l.b, p[max(0, len(p)-logKept):]...)
	return len(p), nil
}

// Bytes returns a copy of the end, of up to logKept bytes.
func (l *logTail) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.end())
}

// end is the whole lines of the last logKept bytes.
func (l *logTail) end() []byte {
	if len(l.b) <= logKept {
		return l.b
	}
	b := l.b[len(l.b)-logKept-1:]
	i := bytes.IndexByte(b, '\n')
	return b[i+1:]
}
