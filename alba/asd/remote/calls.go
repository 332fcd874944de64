package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// begin starts the meta of a request.
func (cc *clientConn) begin(ctx context.Context) *wire.Encoder {
	if cap(cc.e.B) > keepEncoder {
		cc.e.B = nil
	}
	cc.e.B = cc.e.B[:0]
	var left time.Duration
	if t, ok := ctx.Deadline(); ok {
		left = min(max(t.Sub(cc.clock.Now()), time.Millisecond), maxWait)
	}
	cc.e.Uvarint(uint64(left / time.Millisecond))
	return &cc.e
}

// broke says that the request was sent, at least in part, and no reply came.
func broke(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the connection broke before the answer was complete: %w", err)
}

// ask sends the request and returns the meta of its reply. A failure is an error;
// after it the connection is whole again.
func (cc *clientConn) ask(typ uint16, body ...[]byte) (wire.Decoder, error) {
	if err := cc.w.Send(typ, 0, cc.e.B, body...); err != nil {
		return wire.Decoder{}, broke(err)
	}
	h, err := cc.w.Next()
	if err != nil {
		return wire.Decoder{}, broke(err)
	}
	meta, err := cc.w.Meta()
	if err != nil {
		return wire.Decoder{}, broke(err)
	}
	d := wire.NewDecoder(meta)
	if h.Type == typeFailure && h.Body == 0 && h.Flags&^flagLast == 0 {
		f, err := decodeFailure(&d)
		if err != nil {
			return d, err
		}
		cc.whole = h.Flags == 0
		return d, f.err()
	}
	if h.Type != typ+typeReply || h.Flags != 0 {
		return d, protocolError("message %d in answer to %d", h.Type, typ)
	}
	return d, nil
}

// bodyIs checks the length of a reply's body; with 0 the reply is read to its end.
func (cc *clientConn) bodyIs(n int) error {
	if got := cc.w.BodyLeft(); got != n {
		return protocolError("a body of %d bytes, expected %d", got, n)
	}
	cc.whole = n == 0
	return nil
}

// body reads the reply's body into p, which is its end.
func (cc *clientConn) body(p []byte) error {
	if err := cc.bodyIs(len(p)); err != nil {
		return err
	}
	if err := cc.w.Body(p); err != nil {
		return broke(err)
	}
	cc.whole = true
	return nil
}

// Info implements osd.OSD.
func (c *Client) Info(ctx context.Context) (info osd.Info, err error) {
	err = c.call(ctx, "info", func(cc *clientConn) error {
		cc.begin(ctx)
		d, err := cc.ask(typeInfo)
		if err != nil {
			return err
		}
		if info, err = decodeInfo(&d); err != nil {
			return err
		}
		return cc.bodyIs(0)
	})
	return info, err
}

// Stats implements osd.OSD.
func (c *Client) Stats(ctx context.Context) (stats osd.Stats, err error) {
	err = c.call(ctx, "stats", func(cc *clientConn) error {
		cc.begin(ctx)
		d, err := cc.ask(typeStats)
		if err != nil {
			return err
		}
		if stats, err = decodeStats(&d); err != nil {
			return err
		}
		return cc.bodyIs(0)
	})
	return stats, err
}

// invalid refuses what the protocol cannot carry, because no device takes it.
func (c *Client) invalid(op string, err error) error {
	return fmt.Errorf("%s: %s: %w", c.what, op, err)
}

// Get implements osd.OSD. The values share their memory.
func (c *Client) Get(ctx context.Context, keys [][]byte, limit int, prio osd.Priority) ([]osd.Value, error) {
	const op = "get"
	if len(keys) > osd.MaxListKeys {
		return nil, c.invalid(op, fmt.Errorf("%w: %d keys, at most %d", osd.ErrInvalid, len(keys), osd.MaxListKeys))
	}
	for _, k := range keys {
		if err := osd.ValidKey(k); err != nil {
			return nil, c.invalid(op, err)
		}
	}
	var values []osd.Value
	err := c.call(ctx, op, func(cc *clientConn) error {
		r := getRequest{prio: prio, limit: int64(limit), keys: keys}
		r.encode(cc.begin(ctx))
		d, err := cc.ask(typeGet)
		if err != nil {
			return err
		}
		heads, total, err := decodeValues(&d)
		if err != nil {
			return err
		}
		if len(heads) != len(keys) {
			return protocolError("%d values for %d keys", len(heads), len(keys))
		}
		if err := cc.bodyIs(total); err != nil {
			return err
		}
		b := make([]byte, total)
		if err := cc.body(b); err != nil {
			return err
		}
		values, err = cc.cut(keys, heads, b)
		return err
	})
	return values, err
}

// cut makes values of a Get's body.
func (cc *clientConn) cut(keys [][]byte, heads []valueHead, b []byte) ([]osd.Value, error) {
	values := make([]osd.Value, len(heads))
	for i, h := range heads {
		if !h.there {
			continue
		}
		values[i] = osd.Value{Data: b[:h.size:h.size], CRC: h.crc}
		b = b[h.size:]
		if cc.sums && osd.CRC(values[i].Data) != h.crc {
			return nil, fmt.Errorf("the value of %q was damaged on its way", keys[i])
		}
	}
	return values, nil
}

// Read implements osd.OSD. What p holds after an error is not defined.
func (c *Client) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	const op = "read"
	if err := osd.ValidKey(key); err != nil {
		return c.invalid(op, err)
	}
	if len(p) > osd.MaxValueBytes {
		return c.invalid(op, fmt.Errorf("%w: %d bytes of %q, at most %d", osd.ErrInvalid, len(p), key, osd.MaxValueBytes))
	}
	return c.call(ctx, op, func(cc *clientConn) error {
		r := readRequest{prio: prio, key: key, off: off, length: len(p)}
		r.encode(cc.begin(ctx))
		d, err := cc.ask(typeRead)
		if err != nil {
			return err
		}
		sum, crc, err := decodeSum(&d)
		if err != nil {
			return err
		}
		if err := cc.body(p); err != nil {
			return err
		}
		if sum && osd.CRC(p) != crc {
			return fmt.Errorf("%d bytes of %q were damaged on their way", len(p), key)
		}
		return nil
	})
}

// Apply implements osd.OSD. A value's CRC is passed on as it is, for the device to
// compare.
func (c *Client) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	const op = "apply"
	if err := osd.ValidateApply(asserts, updates); err != nil {
		return c.invalid(op, err)
	}
	return c.call(ctx, op, func(cc *clientConn) error {
		encodeApply(cc.begin(ctx), asserts, updates, prio)
		values := make([][]byte, 0, 8)
		for i := range updates {
			if len(updates[i].Value) > 0 {
				values = append(values, updates[i].Value)
			}
		}
		d, err := cc.ask(typeApply, values...)
		if err != nil {
			return err
		}
		if err := d.Done(); err != nil {
			return err
		}
		return cc.bodyIs(0)
	})
}

// inKey refuses prefixes and positions that are longer than keys.
func inKey(name string, p []byte) error {
	if len(p) > osd.MaxKeyBytes {
		return fmt.Errorf("%w: %s of %d bytes, at most %d", osd.ErrInvalid, name, len(p), osd.MaxKeyBytes)
	}
	return nil
}

// List implements osd.OSD. The keys share their memory.
func (c *Client) List(ctx context.Context, prefix, after []byte, limit int, prio osd.Priority) ([]osd.Entry, error) {
	const op = "list"
	if err := errors.Join(inKey("prefix", prefix), inKey("after", after)); err != nil {
		return nil, c.invalid(op, err)
	}
	var entries []osd.Entry
	err := c.call(ctx, op, func(cc *clientConn) error {
		r := listRequest{prio: prio, prefix: prefix, after: after, limit: int64(limit)}
		r.encode(cc.begin(ctx))
		d, err := cc.ask(typeList)
		if err != nil {
			return err
		}
		if entries, err = decodeEntries(&d); err != nil {
			return err
		}
		return cc.bodyIs(0)
	})
	return entries, err
}

// Validate implements osd.OSD.
func (c *Client) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	const op = "validate"
	if err := errors.Join(inKey("prefix", prefix), inKey("after", after)); err != nil {
		return osd.Validation{}, c.invalid(op, err)
	}
	var v osd.Validation
	err := c.call(ctx, op, func(cc *clientConn) error {
		r := validateRequest{prefix: prefix, after: after, limit: int64(limit), budget: budget}
		r.encode(cc.begin(ctx))
		d, err := cc.ask(typeValidate)
		if err != nil {
			return err
		}
		if v, err = decodeValidation(&d); err != nil {
			return err
		}
		return cc.bodyIs(0)
	})
	return v, err
}
