// Package lineartest records what clients of blocks asked for and heard, and checks that each
// block behaved as one register: that there is an order of the operations, each at a moment
// between its begin and its end, in which every read sees the newest write. Tests of whatever
// serves blocks use it; the search is porcupine's.
//
// # Operations
//
//	       begin           end
//	write    ├──── Done ────┤           it happened in between
//	write    ├──── Over ────┤           it happened in between, or never does
//	write    ├──── Never                it did not happen, and does not
//	write    ├─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─   it happens at any later time, or never
//	read     ├──── Saw  ────┤           it saw that value
//	read     ├─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─   it says nothing
//
// Begin and end are counted, not measured: what ended before another one began has a lower
// number. A client that tries again begins another write, with another value.
//
// # Invariants
//
//	L1  Each write of a block has a value of its own, not 0, which is what the block holds at
//	    first. So it is known which write a read saw.
//	L2  A write of unknown outcome that no read saw is left out: when it is the last one of
//	    all, nobody can tell.
//	L3  One that was seen happened before the first read that saw it ended. With L2, nothing is
//	    open to the end, and the search stays short.
package lineartest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// History is what clients asked for and heard. The zero value is empty. Safe for concurrent
// use, but for Check, which looks at what ended.
type History struct {
	mu  sync.Mutex
	now int64
	ops []*Op
}

// Op is an operation that began. One of its methods is called at most once.
type Op struct {
	h            *History
	block, value uint64
	write        bool
	began, ended int64 // ended is 0 while it has not
	how          outcome
}

type outcome uint8

const (
	unknown  outcome = iota
	answered         // Done, Saw
	over
	never
)

// Write begins a write of a value that no other write of the block has (L1).
func (h *History) Write(block, value uint64) *Op {
	return h.begin(&Op{block: block, value: value, write: true})
}

// Read begins a read.
func (h *History) Read(block uint64) *Op { return h.begin(&Op{block: block}) }

func (h *History) begin(o *Op) *Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	o.h, o.began = h, h.now
	h.ops = append(h.ops, o)
	return o
}

func (o *Op) end(how outcome) {
	o.h.mu.Lock()
	defer o.h.mu.Unlock()
	o.h.now++
	o.ended, o.how = o.h.now, how
}

// Done: the write was answered.
func (o *Op) Done() { o.end(answered) }

// Over: whether the write happened is not known; it does not happen from now on.
func (o *Op) Over() { o.end(over) }

// Never: the write did not happen, and never does.
func (o *Op) Never() { o.end(never) }

// Saw: the read was answered with a value.
func (o *Op) Saw(value uint64) {
	o.value = value
	o.end(answered)
}

// Len is how many operations began.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Check looks for the order that the operations of each block happened in, for at most limit
// (0: without one). The error names the block and what does not fit. An operation that ends
// after the call is none that ended.
func (h *History) Check(limit time.Duration) error {
	h.mu.Lock()
	blocks := map[uint64][]Op{}
	for _, o := range h.ops {
		blocks[o.block] = append(blocks[o.block], *o)
	}
	h.mu.Unlock()
	var order []uint64
	for b := range blocks {
		order = append(order, b)
	}
	slices.Sort(order)
	for _, b := range order {
		ops, err := closed(blocks[b])
		if err == nil {
			err = check(ops, limit)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", b, err)
		}
	}
	return nil
}

// closed leaves those operations of a block whose begin and end are known (L2, L3).
func closed(ops []Op) ([]Op, error) {
	seen := map[uint64]int64{} // value -> end of the first read of it
	for _, o := range ops {
		if !o.write && o.how == answered {
			if end, ok := seen[o.value]; !ok || o.ended < end {
				seen[o.value] = o.ended
			}
		}
	}
	written := map[uint64]bool{0: true}
	var out []Op
	for _, o := range ops {
		if !o.write {
			if o.how == answered {
				out = append(out, o)
			}
			continue
		}
		if written[o.value] {
			return nil, fmt.Errorf("value %d is written twice", o.value)
		}
		end, read := seen[o.value]
		switch {
		case o.how == never:
			if read {
				return nil, fmt.Errorf("value %d was read, and was never written: %v", o.value, o)
			}
			continue
		case o.how != answered && !read:
			written[o.value] = true
			continue
		case o.how == unknown:
			o.ended = math.MaxInt64
		}
		written[o.value] = true
		if read {
			o.ended = min(o.ended, end)
		}
		if o.ended < o.began {
			return nil, fmt.Errorf("value %d was read before it was written: %v", o.value, o)
		}
		out = append(out, o)
	}
	for v := range seen {
		if !written[v] {
			return nil, fmt.Errorf("value %d was read, and nobody wrote it", v)
		}
	}
	return out, nil
}

// register is one block: its state is the value.
var register = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, _ any) (bool, any) {
		o := input.(Op)
		if o.write {
			return true, o.value
		}
		return state == o.value, state
	},
	Hash: func(state any) uint64 { return state.(uint64) * 0x9e3779b97f4a7c15 },
}

// shownMost bounds how many operations an error names.
const shownMost = 12

func check(ops []Op, limit time.Duration) error {
	list := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		list[i] = porcupine.Operation{Input: o, Call: o.began, Return: o.ended}
	}
	switch porcupine.CheckOperationsTimeout(register, list, limit) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("no order of %d operations was found within %s, and not that there is none", len(ops), limit)
	}
	_, info := porcupine.CheckOperationsVerbose(register, list, limit)
	var most []int
	for _, p := range info.PartialLinearizations() {
		for _, ids := range p {
			if len(ids) > len(most) {
				most = ids
			}
		}
	}
	var text []string
	for _, id := range most[max(0, len(most)-2):] {
		text = append(text, "then "+ops[id].String())
	}
	rest := 0
	for id, o := range ops {
		if slices.Contains(most, id) {
			continue
		}
		if rest++; rest <= shownMost {
			text = append(text, o.String())
		}
	}
	return fmt.Errorf("no order of its %d operations explains what was read: %d fit, %d do not: %s", len(ops), len(most), rest, strings.Join(text, "; "))
}

// String tells what it is, with begin and end.
func (o Op) String() string {
	kind := "read"
	if o.write {
		kind = "write"
	}
	return fmt.Sprintf("%s %d [%d, %d]", kind, o.value, o.began, o.ended)
}
