package etcd

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestGuard: what a request runs into while its member stops is an answer; anything else is what it was.
func TestGuard(t *testing.T) {
	var g guard
	stops := make(chan struct{})
	ask := func() (err error) {
		_, err = g.unary(context.Background(), nil, nil, func(context.Context, any) (any, error) { panic("closed") })
		return err
	}
	panics := func() (why any) {
		defer func() { why = recover() }()
		t.Errorf("answered %v while it serves", ask())
		return nil
	}
	if why := panics(); why != "closed" {
		t.Errorf("while it starts: %v", why)
	}
	var stopping <-chan struct{} = stops
	g.stopping.Store(&stopping)
	if why := panics(); why != "closed" {
		t.Errorf("while it serves: %v", why)
	}
	close(stops)
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("while it stops: %v", err)
	}
	if err := g.stream(nil, nil, nil, func(any, grpc.ServerStream) error { panic("closed") }); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream while it stops: %v", err)
	}
}
