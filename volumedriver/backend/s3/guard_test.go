package s3

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// rawStore answers on connections byte by byte, as Go's server does not.
type rawStore struct {
	// head is the answer to HEAD of an object.
	head string
	// stray comes after the answer to a HEAD, when the next request is there.
	stray string
	// breaks tells the n-th request on a connection, from 0, to be answered with stray
	// bytes and its end.
	breaks func(method string, n int) bool

	mu       sync.Mutex
	requests []string // methods
	conns    int
}

const (
	goneChunked = "HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n"
	goneClean   = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
	lastChunk   = "0\r\n\r\n"
	// objectAnswer is good for GET of one byte and, as its MD5 is not asked for, for PUT.
	objectAnswer = "HTTP/1.1 200 OK\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\nETag: \"0123456789abcdef0123456789abcdef\"\r\nContent-Length: 1\r\n\r\nx"
)

// open serves s on loopback and opens a store there. Both go with the test.
func (s *rawStore) open(t *testing.T) *Store {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(conn) })
		}
	})
	store, err := New(Options{Endpoint: "http://" + l.Addr().String(), Region: "us-east-1", Bucket: "bucket", AccessKey: "a", SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = store.Close()
		_ = l.Close()
		wg.Wait()
	})
	return store
}

// counts returns the methods that were asked for, and how many connections were made.
func (s *rawStore) counts() ([]string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests), s.conns
}

func (s *rawStore) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	r, stray := bufio.NewReader(conn), ""
	for n := 0; ; n++ {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		s.mu.Lock()
		s.requests = append(s.requests, req.Method)
		head := s.head
		s.mu.Unlock()
		if s.breaks != nil && s.breaks(req.Method, n) {
			_, _ = io.WriteString(conn, lastChunk)
			return
		}
		answer := objectAnswer
		switch {
		case req.Method == http.MethodHead && strings.HasSuffix(req.URL.Path, end):
			answer = head
		case req.Method == http.MethodHead:
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		}
		if _, err := io.WriteString(conn, stray+answer); err != nil || req.Close {
			return
		}
		if stray = ""; answer == goneChunked {
			stray = s.stray
		}
	}
}

// A store that ends its answers to HEAD with the last chunk of a body, as Swift's s3api
// does, spoils no other request; neither does one that begins with it later.
func TestChunkedHead(t *testing.T) {
	for _, first := range []string{goneChunked, goneClean} {
		s := &rawStore{head: first, stray: lastChunk}
		store := s.open(t)
		for i := range 5 {
			if _, err := store.Stat(t.Context(), "v/o"); !errors.Is(err, backend.ErrNotExist) {
				t.Errorf("stat %d: %v", i, err)
			}
			if err := store.Put(t.Context(), "v/o", []byte("x")); err != nil {
				t.Errorf("put %d: %v", i, err)
			}
			s.mu.Lock()
			s.head = goneChunked
			s.mu.Unlock()
		}
		if got, _ := s.counts(); len(got) != 15 {
			t.Errorf("%d requests, want 15: %v", len(got), got)
		}
	}
	s := &rawStore{head: goneClean}
	store := s.open(t)
	for range 5 {
		if _, err := store.Stat(t.Context(), "v/o"); !errors.Is(err, backend.ErrNotExist) {
			t.Error(err)
		}
	}
	if _, n := s.counts(); n != 2 {
		t.Errorf("a clean store got %d connections, want one more than the first", n)
	}
}

// K1: a read on a connection that breaks goes out once more, a change does not.
func TestBrokenConnection(t *testing.T) {
	for _, tc := range []struct {
		name   string
		breaks func(method string, n int) bool
		call   func(*Store) error
		good   bool
		want   int // requests
	}{
		{"get", func(_ string, n int) bool { return n == 1 }, func(s *Store) error { _, err := s.Get(t.Context(), "v/o", 1); return err }, true, 2},
		{"range", func(_ string, n int) bool { return n == 1 }, func(s *Store) error { return s.ReadAt(t.Context(), "v/o", make([]byte, 1), 0) }, true, 2},
		{"stat", func(_ string, n int) bool { return n == 1 }, func(s *Store) error { _, err := s.Stat(t.Context(), "v/o"); return err }, true, 2},
		{"get, always", func(m string, _ int) bool { return m == http.MethodGet }, func(s *Store) error { _, err := s.Get(t.Context(), "v/o", 1); return err }, false, 2},
		{"put", func(_ string, n int) bool { return n == 1 }, func(s *Store) error { return s.Put(t.Context(), "v/o", []byte("x")) }, false, 1},
		{"delete", func(_ string, n int) bool { return n == 1 }, func(s *Store) error { return s.Delete(t.Context(), "v/o") }, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &rawStore{head: strings.TrimSuffix(objectAnswer, "x"), breaks: tc.breaks}
			store := s.open(t)
			if err := store.Put(t.Context(), "v/first", []byte("x")); err != nil {
				t.Fatal(err)
			}
			err := tc.call(store)
			var e *remote.Error
			if (err == nil) != tc.good || err != nil && !errors.As(err, &e) {
				t.Errorf("error %v", err)
			}
			if got, _ := s.counts(); len(got)-1 != tc.want {
				t.Errorf("requests %v, want %d after the first", got, tc.want)
			}
		})
	}
}
