package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

// image makes an ext4 image with real files in it (the Go library's sources).
func (e *env) image(ctx context.Context) (string, error) {
	path := filepath.Join(e.dir, "image.ext4")
	goroot, err := tool(ctx, nil, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	files := filepath.Join(strings.TrimSpace(goroot), "src")
	_, err = tool(ctx, nil, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
		"-d", files, path, fmt.Sprintf("%dk", e.size>>10))
	return path, err
}

// tool runs a program and returns its output; what it said is in the error.
func tool(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed: run scripts/setup.sh", name)
	}
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// url returns a LUN as libiscsi names it, and the environment that carries its
// secret (which stays out of the arguments).
func url(c client.Connection) (string, []string) {
	return fmt.Sprintf("iscsi://%s/%s/%d", c.Portals[0].Address, c.IQN, c.LUN),
		[]string{"LIBISCSI_CHAP_USERNAME=" + c.ChapUser, "LIBISCSI_CHAP_PASSWORD=" + c.ChapSecret}
}

// convert copies a raw image to a LUN.
func convert(ctx context.Context, image string, c client.Connection) error {
	u, env := url(c)
	_, err := tool(ctx, env, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, u)
	return err
}

// compare says whether image and LUN are identical.
func compare(ctx context.Context, image string, c client.Connection) error {
	u, env := url(c)
	out, err := tool(ctx, env, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, u)
	if err != nil {
		return fmt.Errorf("vdisk %s: %w", c.VDisk, err)
	}
	if !strings.Contains(out, "identical") {
		return fmt.Errorf("vdisk %s: qemu-img compare says %q", c.VDisk, out)
	}
	return nil
}

// copied is a copy of an image whose acknowledged pieces are known.
type copied struct {
	mu     sync.Mutex
	pieces []bool
	bytes  int64
}

const (
	pieceSize = 256 << 10
	copyDepth = 8
)

// copyImage writes the image to a disk in order, several pieces in flight,
// until it is done or the disk fails; progress is told after each piece.
func (c *copied) copyImage(image *os.File, d disk, progress func(bytes int64)) error {
	info, err := image.Stat()
	if err != nil {
		return err
	}
	c.pieces = make([]bool, info.Size()/pieceSize)
	next := make(chan int)
	stop := make(chan struct{})
	errs := make([]error, copyDepth)
	var wg sync.WaitGroup
	var once sync.Once
	for w := range copyDepth {
		wg.Go(func() {
			buf := make([]byte, pieceSize)
			for i := range next {
				if _, err := image.ReadAt(buf, int64(i)*pieceSize); err != nil {
					errs[w] = err
				} else if _, err := d.WriteAt(buf, int64(i)*pieceSize); err != nil {
					once.Do(func() { close(stop) })
					return
				}
				progress(c.ack(i))
			}
		})
	}
feed:
	for i := range c.pieces {
		select {
		case next <- i:
		case <-stop:
			break feed
		}
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

func (c *copied) ack(i int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pieces[i] = true
	c.bytes += pieceSize
	return c.bytes
}

// check reads the acknowledged pieces back.
func (c *copied) check(image *os.File, d disk) error {
	want, got := make([]byte, pieceSize), make([]byte, pieceSize)
	for i, acked := range c.pieces {
		if !acked {
			continue
		}
		if _, err := image.ReadAt(want, int64(i)*pieceSize); err != nil {
			return err
		}
		if _, err := d.ReadAt(got, int64(i)*pieceSize); err != nil {
			return fmt.Errorf("read acknowledged piece %d: %w", i, err)
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("acknowledged piece %d (256 KiB at %d) is not there", i, i*pieceSize)
		}
	}
	return nil
}

func kill9Image(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx)
	if err != nil {
		return "", err
	}
	path, err := e.image(ctx)
	if err != nil {
		return "", err
	}
	first, err := n.CreateVDisk(ctx, "drill", "first", e.size)
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := convert(ctx, path, first); err != nil {
		return "", err
	}
	e.say("first copy of %d MiB by qemu-img took %v", e.size>>20, time.Since(start).Round(time.Millisecond))
	var acked int64
	for round := range e.rounds {
		got, err := e.killSecondCopy(ctx, n, path, round)
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if err := compare(ctx, path, first); err != nil {
			return "", fmt.Errorf("round %d: first copy: %w", round+1, err)
		}
		acked += got
		e.say("round %d: first copy identical, %d MiB of the second acknowledged and there", round+1, got>>20)
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds, image of %d MiB identical, %d MiB of interrupted copies acknowledged, 0 lost",
		e.rounds, e.size>>20, acked>>20), nil
}

// killSecondCopy kills the node while qemu-img and our own initiator copy the
// image to fresh vDisks, restarts it, and checks what ours was acknowledged. It
// returns those bytes.
func (e *env) killSecondCopy(ctx context.Context, n interface {
	CreateVDisk(ctx context.Context, vpool, name string, size int64) (client.Connection, error)
	Kill() error
	Start(context.Context) error
}, path string, round int) (int64, error) {
	second, err := n.CreateVDisk(ctx, "drill", fmt.Sprintf("second%d", round), e.size)
	if err != nil {
		return 0, err
	}
	beside, err := n.CreateVDisk(ctx, "drill", fmt.Sprintf("beside%d", round), e.size)
	if err != nil {
		return 0, err
	}
	image, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer image.Close()
	d, err := dial(ctx, second)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	var qemu, killed error
	qemuCtx, cancel := context.WithTimeout(ctx, e.copyLimit())
	defer cancel()
	wg.Go(func() { qemu = convert(qemuCtx, path, beside) })
	var once sync.Once
	killAt := e.size/5 + rand.Int64N(e.size/2) // somewhere in the middle
	var c copied
	err = c.copyImage(image, d, func(bytes int64) {
		if bytes >= killAt {
			once.Do(func() { killed = n.Kill(); cancel() })
		}
	})
	wg.Wait()
	err = errors.Join(err, killed, ignore(d.Close()))
	if err == nil && c.bytes == int64(len(c.pieces))*pieceSize {
		err = errors.New("the second copy finished before the node was killed")
	}
	if err != nil {
		return 0, err
	}
	e.say("killed at %d MiB of the second copy; qemu-img beside it: %v", c.bytes>>20, firstLine(qemu))
	if err := n.Start(ctx); err != nil {
		return 0, fmt.Errorf("restart: %w", err)
	}
	if d, err = dial(ctx, second); err != nil {
		return 0, err
	}
	defer d.Close()
	return c.bytes, c.check(image, d)
}

// copyLimit bounds the copy that the kill interrupts: libiscsi goes on trying
// to reconnect to a node that is gone, so qemu-img has to be ended too.
func (e *env) copyLimit() time.Duration {
	return time.Minute + time.Duration(e.size>>20)*100*time.Millisecond
}

// ignore drops the error of closing a connection whose peer was killed.
func ignore(error) error { return nil }

func firstLine(err error) string {
	if err == nil {
		return "done"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
