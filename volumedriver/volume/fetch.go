package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// maxReads is how often one thing is read from a backend before it counts as damaged
// or away. Networks and proxies flip bits and cut answers short, and what a read
// decides - that a head is none, that somebody else holds the claim - is not undone
// by a later one.
const maxReads = 6

// again makes a call to the backend until it works, maxReads times at
// most. That something is not there is an answer.
func (p *Pool) again(ctx context.Context, call func() error) error {
	wait := minBackoff
	for try := 1; ; try, wait = try+1, 2*wait {
		err := call()
		if err == nil || try == maxReads || errors.Is(err, backend.ErrNotExist) || ctx.Err() != nil {
			return err
		}
		t := p.host.o.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// fetch reads a whole object; what check finds damaged is read again.
func (p *Pool) fetch(ctx context.Context, name string, limit int64, check func([]byte) error) error {
	return p.again(ctx, func() error {
		b, err := p.cfg.Store.Get(ctx, name, limit)
		if err != nil {
			return err
		}
		return check(b)
	})
}

// claimIs reads a claim and tells whether it is the one with this body. It has no
// checksum: that it is another one must be read twice.
func (p *Pool) claimIs(ctx context.Context, name string, body []byte) (bool, error) {
	var last string
	for range maxReads {
		have, err := p.cfg.Store.Get(ctx, name, maxRoot)
		switch {
		case err != nil:
			return false, err
		case string(have) == string(body):
			return true, nil
		case string(have) == last:
			return false, nil
		}
		last = string(have)
	}
	return false, fmt.Errorf("%s reads differently each time: %w", name, backend.ErrCorrupt)
}
