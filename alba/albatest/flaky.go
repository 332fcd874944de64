package albatest

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Fault is what happens to a transaction.
type Fault int

// Faults.
const (
	None      Fault = iota
	Before          // it fails and nothing happened
	Lost            // it happens, and the answer is lost
	Late            // it fails, and happens afterwards, when others were first
	Twice           // it happens, and once more; the first answer counts
	TwiceLast       // and the last one counts
)

// ErrFault is the error of a transaction whose outcome the caller does not know.
var ErrFault = errors.New("albatest: no answer")

// Flaky is a store whose transactions meet faults. Reads are those of the store.
type Flaky struct {
	kv.Store
	mu   sync.Mutex
	next func(then []kv.Op) Fault
	late sync.WaitGroup
}

// NewFlaky returns a store that has no faults yet.
func NewFlaky(s kv.Store) *Flaky { return &Flaky{Store: s} }

// SetFault has fn decide about every transaction from now on; nil ends that. It is
// called by one at a time.
func (f *Flaky) SetFault(fn func(then []kv.Op) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = fn
}

// Once has the nth transaction from now, from 0, meet a fault.
func (f *Flaky) Once(n int, fault Fault) {
	f.SetFault(func([]kv.Op) Fault {
		n--
		if n == -1 {
			return fault
		}
		return None
	})
}

// Settle waits for transactions that are late.
func (f *Flaky) Settle() { f.late.Wait() }

// Txn implements kv.Store.
func (f *Flaky) Txn(ctx context.Context, cmps []kv.Compare, then, els []kv.Op) (kv.TxnResult, error) {
	f.mu.Lock()
	fault := None
	if f.next != nil {
		fault = f.next(then)
	}
	f.mu.Unlock()
	switch fault {
	case Before:
		return kv.TxnResult{}, ErrFault
	case Late:
		f.late.Go(func() {
			runtime.Gosched()
			// Whether it happens is what the caller does not know.
			_, _ = f.Store.Txn(context.WithoutCancel(ctx), cmps, then, els)
		})
		return kv.TxnResult{}, ErrFault
	}
	res, err := f.Store.Txn(ctx, cmps, then, els)
	if err == nil && (fault == Twice || fault == TwiceLast) {
		again, err := f.Store.Txn(ctx, cmps, then, els)
		if err != nil {
			return again, err
		}
		if fault == TwiceLast {
			return again, nil
		}
	}
	if err == nil && fault == Lost {
		return kv.TxnResult{}, ErrFault
	}
	return res, err
}
