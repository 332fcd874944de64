package bench

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// shortly is each load's time in tests.
const shortly = 20 * time.Millisecond

func measured(t *testing.T, all []Figure, want int) {
	t.Helper()
	if len(all) != want {
		t.Fatalf("%d figures, want %d", len(all), want)
	}
	for _, f := range all {
		if f.Name == "" || f.Says == "" || f.Bytes <= 0 || f.Verdict != Good && f.Verdict != Fair && f.Verdict != Poor || f.P99 < f.P50 {
			t.Errorf("%+v", f)
		}
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	all, err := Disk(t.Context(), dir, DiskOptions{Bytes: minDiskBytes, Each: shortly})
	if err != nil {
		t.Fatal(err)
	}
	measured(t, all, 4)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]DiskOptions{"use 6": {Bytes: 1 << 20}, "10ms to": {Each: time.Hour}}
	if free := int64(st.Bavail) * st.Bsize; free > minDiskBytes && free < maxDiskBytes {
		wrong["free"] = DiskOptions{Bytes: free}
	}
	for what, o := range wrong {
		if _, err := Disk(t.Context(), dir, o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Disk(t.Context(), dir+"/nowhere", DiskOptions{}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no directory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Disk(ctx, dir, DiskOptions{Bytes: minDiskBytes}); err == nil {
		t.Error("measured after the end")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, token := l.Addr().String(), NewToken()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, token) }()
	all, err := Network(t.Context(), address, token, shortly)
	if err != nil {
		t.Fatal(err)
	}
	measured(t, all, 3)
	if _, err := Network(t.Context(), address, NewToken(), shortly); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("another token: %v", err)
	}
	if _, err := Network(t.Context(), address, "no", shortly); err == nil || !strings.Contains(err.Error(), "26") {
		t.Errorf("no token: %v", err)
	}
	// Who says nothing does not keep others out for ever, and there are not too many of them.
	var silent []net.Conn
	for range conns + 1 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	if _, err := Network(t.Context(), address, token, shortly); err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("beside too many: %v", err)
	}
	cancel() // with connections open
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, c := range silent {
		c.Close()
	}
	if _, err := Network(t.Context(), address, token, shortly); err == nil {
		t.Error("measured after the end")
	}
}
