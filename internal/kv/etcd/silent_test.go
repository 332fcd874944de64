package etcd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// memberEnv makes this program a member, described there.
const memberEnv = "OVGATE_TEST_ETCD_MEMBER"

func TestMain(m *testing.M) {
	if o := os.Getenv(memberEnv); o != "" {
		if err := runMember(o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runMember is a member until its input ends. It prints "up" once it is part of a quorum.
func runMember(options string) error {
	var o etcd.ServerOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	s, err := etcd.Serve(context.Background(), o)
	if err != nil {
		return err
	}
	fmt.Println("up")
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Close()
	return err
}

// apart is members in processes of their own, which can stand still.
type apart struct {
	endpoints []string
	processes []*os.Process
}

// limit is far above what anything here takes on a busy machine.
const limit = 3 * time.Minute

func newApart(t *testing.T, n int) *apart {
	t.Helper()
	for try := 1; ; try++ {
		a, err := startApart(t, n)
		if err == nil {
			return a
		}
		if try == 5 { // a test beside this one was quicker to take a port
			t.Fatal(err)
		}
		t.Log(err)
	}
}

func startApart(t *testing.T, n int) (*apart, error) {
	a := &apart{}
	members := map[string]string{}
	var all []etcd.ServerOptions
	for i := range n {
		o := etcd.ServerOptions{Name: fmt.Sprint("m", i), Dir: t.TempDir(), Members: members, Client: etcdtest.Free(t), Token: t.Name()}
		members[o.Name] = etcdtest.Free(t)
		all, a.endpoints = append(all, o), append(a.endpoints, o.Client)
	}
	up := make(chan error, n)
	for _, o := range all {
		b, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), memberEnv+"="+string(b))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		t.Cleanup(func() {
			in.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		a.processes = append(a.processes, cmd.Process)
		go func() {
			line, err := bufio.NewReader(out).ReadString('\n')
			if err == nil && strings.TrimSpace(line) != "up" {
				err = fmt.Errorf("member %s says %q", o.Name, line)
			}
			up <- err
		}()
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for range n {
		select {
		case err := <-up:
			if err != nil {
				for _, p := range a.processes {
					_ = p.Kill()
				}
				return nil, fmt.Errorf("a member did not start: %w", err)
			}
		case <-timer.C:
			t.Fatal("members do not start")
		}
	}
	return a, nil
}

func (a *apart) signal(t *testing.T, i int, s syscall.Signal) {
	t.Helper()
	if err := a.processes[i].Signal(s); err != nil {
		t.Fatal(err)
	}
}

func openAt(t testing.TB, prefix string, endpoints ...string) *etcd.Store {
	t.Helper()
	return openWith(t, etcd.Options{Endpoints: endpoints, Prefix: prefix})
}

func openWith(t testing.TB, o etcd.Options) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, err := etcd.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer, again := time.NewTimer(limit), time.NewTicker(50*time.Millisecond)
	defer timer.Stop()
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-timer.C:
			t.Fatal("not so: ", what)
		}
	}
}

// record is a counter that one writer raises, and what its watch says.
type record struct {
	s     *etcd.Store
	key   string
	value int
	watch <-chan kv.WatchBatch
}

func newRecord(t *testing.T, s *etcd.Store, key string) *record {
	t.Helper()
	_, rev, err := s.Range(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &record{s: s, key: key}
	if r.watch, err = s.Watch(t.Context(), key, rev); err != nil {
		t.Fatal(err)
	}
	return r
}

// raise adds one. What is not known to be done is looked at (K1).
func (r *record) raise(ctx context.Context) error {
	next := fmt.Sprint(r.value + 1)
	for {
		old, err := r.s.Get(ctx, r.key)
		if err != nil {
			return err
		}
		if old != nil && string(old.Value) == next {
			r.value++
			return nil
		}
		cond := kv.Absent(r.key)
		if old != nil {
			cond = kv.ModRevIs(r.key, old.ModRev)
		}
		res, err := r.s.Txn(ctx, []kv.Compare{cond}, []kv.Op{kv.Put(r.key, []byte(next)), kv.Get(r.key)}, nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !res.Succeeded:
			return fmt.Errorf("%s: somebody else wrote", r.key)
		case err == nil && (len(res.Gets) != 1 || (res.Gets[0] == nil) != (old == nil)):
			return fmt.Errorf("%s: it was %v, and the transaction read %v", r.key, old, res.Gets)
		case err == nil:
			r.value++
			return nil
		}
	}
}

// seen fails unless the watch says each value once, in order.
func (r *record) seen(t *testing.T) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for v := 1; v <= r.value; v++ {
		select {
		case b, ok := <-r.watch:
			if !ok || b.Err != nil || len(b.Events) != 1 || string(b.Events[0].KV.Value) != fmt.Sprint(v) {
				t.Fatalf("%s: the watch says %+v (open %v), want %d", r.key, b, ok, v)
			}
		case <-timer.C:
			t.Fatalf("%s: the watch does not say %d", r.key, v)
		}
	}
	if got, err := r.s.Get(t.Context(), r.key); err != nil || string(got.Value) != fmt.Sprint(r.value) {
		t.Fatalf("%s: %v %v, want %d", r.key, got, err, r.value)
	}
}

// TestPaused: each of three members stands still in turn, the leader too. Everything that is
// asked is answered meanwhile, watches tell each change once, and a lease that is renewed stays.
// No connection breaks: nothing but the store notices.
func TestPaused(t *testing.T) {
	a := newApart(t, 3)
	s := openAt(t, "ovgate/paused/", a.endpoints...)
	lease, err := s.Grant(t.Context(), 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	held := kv.Put("lease", []byte("x"))
	held.Lease = lease
	if _, err := s.Txn(t.Context(), nil, []kv.Op{held}, nil); err != nil {
		t.Fatal(err)
	}
	r := newRecord(t, s, "n")
	longest, what := time.Duration(0), ""
	took := func(name string, began time.Time) {
		if d := time.Since(began); d > longest {
			longest, what = d, name
		}
	}
	asks := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"txn", r.raise},
		{"get", func(ctx context.Context) error {
			got, err := s.Get(ctx, "n")
			if err == nil && string(got.Value) != fmt.Sprint(r.value) {
				err = fmt.Errorf("stale: %s after %d", got.Value, r.value)
			}
			return err
		}},
		{"get all", func(ctx context.Context) error { _, err := s.GetAll(ctx, []string{"n", "lease"}); return err }},
		{"range", func(ctx context.Context) error {
			got, _, err := s.Range(ctx, "", "", 0)
			if err == nil && len(got) != 2 {
				err = fmt.Errorf("%d keys", len(got))
			}
			return err
		}},
		{"dump", func(ctx context.Context) error {
			n := 0
			err := s.Dump(ctx, "", func(int64) error { return nil }, func(kv.KV) error { n++; return nil })
			if err == nil && n != 2 {
				err = fmt.Errorf("%d keys", n)
			}
			return err
		}},
		{"keep alive", func(ctx context.Context) error { return s.KeepAlive(ctx, lease) }},
		{"grant and revoke", func(ctx context.Context) error {
			id, err := s.Grant(ctx, time.Minute)
			if err == nil {
				err = s.Revoke(ctx, id)
			}
			return err
		}},
		{"watch", func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			_, rev, err := s.Range(ctx, "", "", 0)
			if err != nil {
				return err
			}
			ch, err := s.Watch(ctx, "n", rev)
			if err == nil {
				err = r.raise(ctx)
			}
			if err != nil {
				return err
			}
			select {
			case b := <-ch:
				if b.Err != nil || string(b.Events[0].KV.Value) != fmt.Sprint(r.value) {
					return fmt.Errorf("it says %+v, want %d", b, r.value)
				}
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}},
		{"list", func(ctx context.Context) error {
			l, err := s.List(ctx)
			if err == nil && len(l) != 3 {
				err = fmt.Errorf("%d members", len(l))
			}
			return err
		}},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	defer cancel()
	led := false
	for i := range a.processes {
		var leads bool
		until(t, "all members answer, and one leads", func() bool {
			n := 0
			for k, m := range s.Members(ctx) {
				if m.Err != nil {
					return false
				}
				if m.Leads {
					n++
					leads = k == i
				}
			}
			return n == 1
		})
		led = led || leads
		a.signal(t, i, syscall.SIGSTOP)
		for n, ask := range append(asks, asks...) {
			began := time.Now()
			if err := ask.do(ctx); err != nil {
				t.Fatalf("member %d (leads: %v) stands still: %s: %v", i, leads, ask.name, err)
			}
			took(fmt.Sprintf("%s, round %d of member %d (leads: %v)", ask.name, n/len(asks), i, leads), began)
		}
		if m := s.Members(ctx)[i]; m.Err == nil {
			t.Errorf("member %d answers, and stands still", i)
		}
		a.signal(t, i, syscall.SIGCONT)
	}
	r.seen(t)
	if got, err := s.Get(ctx, "lease"); err != nil || got == nil || got.Lease != lease {
		t.Errorf("what the lease holds: %v %v", got, err)
	}
	t.Logf("longest: %v (%s); one of them led: %v", longest, what, led)
}

// relay passes on what a store and a member say, or holds it back, with all connections open.
type relay struct {
	t  testing.TB
	l  net.Listener
	to string
	wg sync.WaitGroup

	mu       sync.Mutex
	up, down chan struct{} // closed: what goes to the member, or comes from it, passes
	conns    []net.Conn
	held     int // pieces that are held back
	closing  int // connections that the store closed and the member did not
}

func newRelay(t testing.TB, endpoint string) *relay {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	close(open)
	r := &relay{t: t, l: l, to: u.Host, up: open, down: open}
	r.wg.Go(r.serve)
	t.Cleanup(func() {
		l.Close()
		r.pass()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) endpoint() string { return "http://" + r.l.Addr().String() }

// hold holds back what goes to the member, or what comes from it.
func (r *relay) hold(up, down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if up {
		r.up = make(chan struct{})
	}
	if down {
		r.down = make(chan struct{})
	}
}

// pass passes on what was held back, of connections that were closed since, too.
func (r *relay) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, gate := range []chan struct{}{r.up, r.down} {
		select {
		case <-gate:
		default:
			close(gate)
		}
	}
}

// count returns how many pieces are held back, and how many connections the store closed of
// which the member has not read all.
func (r *relay) count() (held, closing int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held, r.closing
}

func (r *relay) serve() {
	for {
		in, err := r.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		var closed, read bool
		r.wg.Go(func() {
			r.copy(out, in, func() chan struct{} { return r.up })
			r.mu.Lock()
			if closed = true; !read {
				r.closing++
			}
			r.mu.Unlock()
			_ = out.(*net.TCPConn).CloseWrite() // it reads all that was said
		})
		r.wg.Go(func() {
			r.copy(in, out, func() chan struct{} { return r.down })
			r.mu.Lock()
			if read = true; closed {
				r.closing--
			}
			r.mu.Unlock()
			in.Close()
		})
	}
}

// copy passes on what comes, until it ends.
func (r *relay) copy(to, from net.Conn, gate func() chan struct{}) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		g := gate()
		r.held++
		r.mu.Unlock()
		<-g
		r.mu.Lock()
		r.held--
		r.mu.Unlock()
		if n > 0 {
			_, _ = to.Write(b[:n]) // to nobody, once the other side closed
		}
		if err != nil {
			return
		}
	}
}

// TestLateChange: changes do not reach their member, and are made at another one. When the
// member reads them at last, it does not make them again.
func TestLateChange(t *testing.T) {
	c := newCluster(t, 1)
	r := newRelay(t, c.endpoints[0])
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, direct := openAt(t, "ovgate/late/", r.endpoint()), c.open(t, "ovgate/late/")
	_, rev, err := direct.Range(ctx, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := direct.Watch(ctx, "", rev)
	if err != nil {
		t.Fatal(err)
	}
	r.hold(true, false)
	const changes = 8
	done := make(chan error, changes)
	for i := range changes {
		go func() { // nothing in them keeps them from being made twice
			_, err := s.Txn(ctx, nil, []kv.Op{kv.Put(fmt.Sprint("k", i), []byte("ours"))}, nil)
			done <- err
		}()
	}
	until(t, "the changes are on their way", func() bool { held, _ := r.count(); return held > 0 })
	s.SetEndpoints([]string{r.endpoint(), c.endpoints[0]})
	for range changes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	var later []kv.Op
	for i := range changes {
		later = append(later, kv.Put(fmt.Sprint("k", i), []byte("later")))
	}
	if _, err := direct.Txn(ctx, nil, later, nil); err != nil {
		t.Fatal(err)
	}
	r.pass()
	until(t, "the member has read what was held back", func() bool { held, closing := r.count(); return held+closing == 0 })
	if _, err := direct.Txn(ctx, nil, []kv.Op{kv.Put("end", nil)}, nil); err != nil {
		t.Fatal(err)
	}
	puts := map[string]int{}
	for b := range watch {
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		for _, e := range b.Events {
			puts[string(e.KV.Key)+" "+string(e.KV.Value)]++
		}
		if puts["end "] == 1 {
			break
		}
	}
	for i := range changes {
		for _, v := range []string{"ours", "later"} {
			if n := puts[fmt.Sprintf("k%d %s", i, v)]; n != 1 {
				t.Errorf("k%d was made %q %d times", i, v, n)
			}
		}
	}
	if got, _, err := direct.Range(ctx, "", "", 0); err != nil || len(got) != changes+1 {
		t.Errorf("%d keys, want %d: %v", len(got), changes+1, err)
	}
}

// TestUnansweredChange: a member makes a change, and its answer is lost. The store says that it
// does not know, and does not make it again.
func TestUnansweredChange(t *testing.T) {
	c := newCluster(t, 1)
	r := newRelay(t, c.endpoints[0])
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, direct := openAt(t, "ovgate/unanswered/", r.endpoint()), c.open(t, "ovgate/unanswered/")
	// round is false when the store gave the connection up before it sent the change, on a busy
	// machine.
	round := func(name string, ops []kv.Op) bool {
		s.SetEndpoints([]string{r.endpoint()})
		until(t, "the relay passes", func() bool { _, err := s.Get(ctx, "k"); return err == nil })
		for _, k := range []string{"gone", "gone too"} {
			if _, err := direct.Txn(ctx, nil, []kv.Op{kv.Put(k, nil)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		_, rev, err := direct.Range(ctx, "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		watch, err := direct.Watch(watching, "", rev)
		if err != nil {
			t.Fatal(err)
		}
		r.hold(false, true)
		done := make(chan error, 1)
		go func() {
			_, err := s.Txn(ctx, nil, ops, nil)
			done <- err
		}()
		sent := time.NewTimer(20 * time.Second)
		defer sent.Stop()
		select {
		case b := <-watch:
			if b.Err != nil || len(b.Events) != len(ops) {
				t.Fatalf("%s: %+v", name, b)
			}
		case <-sent.C:
			r.pass()
			<-done
			return false
		}
		s.SetEndpoints([]string{r.endpoint(), c.endpoints[0]})
		if err := <-done; err == nil || errors.Is(err, kv.ErrInvalid) || ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.pass()
		if _, err := direct.Txn(ctx, nil, []kv.Op{kv.Put("end", nil)}, nil); err != nil {
			t.Fatal(err)
		}
		if b := <-watch; b.Err != nil || len(b.Events) == 0 || string(b.Events[0].KV.Key) != "end" {
			t.Errorf("%s: once more: %+v", name, b)
		}
		return true
	}
	for name, ops := range map[string][]kv.Op{
		"put":    {kv.Put("k", []byte("x"))},
		"delete": {kv.Delete("gone")},
		"both":   {kv.Put("l", []byte("x")), kv.Delete("gone too")},
	} {
		for !round(name, ops) {
			t.Log(name, "was not sent; once more")
		}
	}
}

// TestOwnKeys: what the store keeps beside its users' keys is not theirs.
func TestOwnKeys(t *testing.T) {
	c := newCluster(t, 1)
	s := c.open(t, "ovgate/own/")
	for _, key := range []string{"\x00ovgate/void/x", "\x00ovgate/void/"} {
		if _, err := s.Get(t.Context(), key); !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("get %q: %v", key, err)
		}
		if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put(key, nil)}, nil); !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("put %q: %v", key, err)
		}
		if _, err := s.Txn(t.Context(), []kv.Compare{kv.Absent(key)}, nil, nil); !errors.Is(err, kv.ErrInvalid) {
			t.Errorf("compare %q: %v", key, err)
		}
	}
	raw := c.open(t, "ovgate/")
	if _, err := raw.Txn(t.Context(), nil, []kv.Op{kv.Put("own/\x00ovgate/void/x", nil)}, nil); err != nil {
		t.Fatal(err)
	}
	keys := []string{"\x00a", "\x00ovgate/voie", "a", "b"}
	for _, k := range keys {
		if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put(k, nil)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for limit := 1; limit <= len(keys)+1; limit++ {
		got, _, err := s.Range(t.Context(), "", "", limit)
		if err != nil || len(got) != min(limit, len(keys)) {
			t.Fatalf("%d of limit %d: %v", len(got), limit, err)
		}
		for i, r := range got {
			if string(r.Key) != keys[i] {
				t.Errorf("limit %d: key %d is %q, want %q", limit, i, r.Key, keys[i])
			}
		}
	}
	for _, tc := range []struct {
		prefix, after string
		want          int
	}{{"\x00ovgate/void/", "", 0}, {"\x00ovgate/void/x", "", 0}, {"\x00", "", 2}, {"", "\x00ovgate/void/", 3}, {"", "b", 0}, {"", "\x00b", 3}} {
		if got, rev, err := s.Range(t.Context(), tc.prefix, tc.after, 0); err != nil || rev == 0 || len(got) != tc.want {
			t.Errorf("prefix %q after %q: %d keys, want %d: %v", tc.prefix, tc.after, len(got), tc.want, err)
		}
	}
	n := 0
	if err := s.Dump(t.Context(), "", func(int64) error { return nil }, func(kv.KV) error { n++; return nil }); err != nil || n != len(keys) {
		t.Errorf("dump of %d: %v", n, err)
	}
}
