package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// One side of a network listens, and lets in who knows its token; the other one measures.
//
//	client: token (26 bytes), what it does (1 byte)
//	echo:   4 KiB to and fro, until the client ends
//	send:   the client sends until it ends its side, and is told how many bytes came (8 bytes)
//	fetch:  the server sends until the client ends
const (
	tokenBytes = 26
	doEcho     = 'e'
	doSend     = 's'
	doFetch    = 'f'
	// helloWait bounds the time until a client has said its token, connLife that of a
	// connection, conns how many there are at once.
	helloWait = 10 * time.Second
	connLife  = maxEach + time.Minute
	conns     = 8
	streams   = 4 // of a bandwidth
)

// NewToken draws what lets a client in.
func NewToken() string { return rand.Text() }

// Serve answers clients until ctx ends, which closes the listener.
func Serve(ctx context.Context, l net.Listener, token string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, conns)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			end := context.AfterFunc(ctx, func() { c.Close() })
			defer end()
			_ = answer(c, token) // the client says what it did not get
		})
	}
}

func answer(c net.Conn, token string) error {
	if err := c.SetDeadline(time.Now().Add(helloWait)); err != nil {
		return err
	}
	hello := make([]byte, tokenBytes+1)
	if _, err := io.ReadFull(c, hello); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(hello[:tokenBytes], []byte(token)) != 1 {
		return errors.New("another token")
	}
	if err := c.SetDeadline(time.Now().Add(connLife)); err != nil {
		return err
	}
	switch hello[tokenBytes] {
	case doEcho:
		b := make([]byte, page)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	case doSend:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, mebi))
		if err != nil {
			return err
		}
		return binary.Write(c, binary.BigEndian, uint64(n))
	case doFetch:
		for b := make([]byte, mebi); ; {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	return errors.New("nothing that is known")
}

// Network measures the way to a Serve and back.
func Network(ctx context.Context, address, token string, each time.Duration) ([]Figure, error) {
	if err := checkEach(&each); err != nil {
		return nil, err
	}
	if len(token) != tokenBytes {
		return nil, fmt.Errorf("the token has %d bytes instead of %d: give the one that the other side shows", len(token), tokenBytes)
	}
	trip, err := roundTrip(ctx, address, token, each)
	if err != nil {
		return nil, err
	}
	out := []Figure{trip.say("round trip of 4 KiB", most(trip.P99, 500*time.Microsecond, 2*time.Millisecond), map[Verdict]string{
		Good: "for mirrored journals (dtl sync)", Fair: "each write that is mirrored waits that long", Poor: "not for mirrored journals, nor for one registry: nodes are too far apart",
	})}
	means := map[Verdict]string{Good: "10 gigabit or more", Fair: "what hosts write crosses it twice, with a mirrored journal and devices elsewhere", Poor: "it limits everything"}
	for _, way := range []struct {
		name string
		do   byte
	}{{"bandwidth to there", doSend}, {"bandwidth from there", doFetch}} {
		rate, err := bandwidth(ctx, address, token, way.do, each)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.name, err)
		}
		out = append(out, Figure{Bytes: rate}.say(way.name, least(rate, 800e6, 100e6), means))
	}
	return out, nil
}

// dial connects and says the token. What is on the way ends with ctx.
func dial(ctx context.Context, address, token string, do byte) (net.Conn, func(), error) {
	d := net.Dialer{Timeout: helloWait}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	end := func() { stop(); c.Close() }
	if _, err := c.Write(append([]byte(token), do)); err != nil {
		end()
		return nil, nil, err
	}
	return c, end, nil
}

func refused(address string, err error) error {
	return fmt.Errorf("%s hung up: is its token another one, or does it serve %d already? %w", address, conns, err)
}

func roundTrip(ctx context.Context, address, token string, each time.Duration) (Figure, error) {
	c, end, err := dial(ctx, address, token, doEcho)
	if err != nil {
		return Figure{}, err
	}
	defer end()
	b, r := make([]byte, page), bufio.NewReaderSize(c, page)
	return load(ctx, 1, each, page, func(context.Context, int, int) error {
		if err := c.SetDeadline(time.Now().Add(helloWait)); err != nil {
			return err
		}
		_, err := c.Write(b)
		if err == nil {
			_, err = io.ReadFull(r, b)
		}
		if err != nil {
			return refused(address, err)
		}
		return nil
	})
}

// bandwidth moves bytes one way over some connections at once, and returns bytes per second.
func bandwidth(ctx context.Context, address, token string, do byte, each time.Duration) (float64, error) {
	begin := time.Now()
	moved, errs := make([]int64, streams), make([]error, streams)
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() { moved[i], errs[i] = stream(ctx, address, token, do, begin.Add(each)) })
	}
	wg.Wait()
	total := int64(0)
	for _, n := range moved {
		total += n
	}
	return float64(total) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func stream(ctx context.Context, address, token string, do byte, until time.Time) (n int64, err error) {
	c, end, err := dial(ctx, address, token, do)
	if err != nil {
		return 0, err
	}
	defer end()
	b := make([]byte, mebi)
	for time.Now().Before(until) && ctx.Err() == nil {
		if err := c.SetDeadline(time.Now().Add(helloWait)); err != nil {
			return n, err
		}
		m := 0
		if do == doSend {
			m, err = c.Write(b)
		} else {
			m, err = c.Read(b)
		}
		n += int64(m)
		if err != nil {
			return n, refused(address, err)
		}
	}
	if do == doFetch || ctx.Err() != nil {
		return n, ctx.Err()
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return n, err
	}
	var came uint64
	if err := c.SetDeadline(time.Now().Add(maxEach)); err != nil {
		return n, err
	}
	if err := binary.Read(c, binary.BigEndian, &came); err != nil {
		return n, refused(address, err)
	}
	return int64(came), nil
}
