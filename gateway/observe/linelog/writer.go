package linelog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// DefaultFileBytes is how large a file grows: a page of a list reads one whole.
	DefaultFileBytes = 8 << 20
	// fileAge is how long a file is written to, so that old records go a day at a time.
	fileAge = 24 * time.Hour
	// expireEvery is how often a file may go for its age (N3).
	expireEvery = time.Hour
)

// Options say where a log is and how much it keeps.
type Options struct {
	FS        blockfs.FS // the directory of the log
	Clock     clock.Clock
	Log       *slog.Logger
	Name      string // of the files
	What      string // what it is called in the program's log: "audit log"
	MaxBytes  int64  // of all files
	MaxAge    time.Duration
	FileBytes int64 // 0: DefaultFileBytes
}

func (o Options) fileBytes() int64 {
	if o.FileBytes == 0 {
		return DefaultFileBytes
	}
	return o.FileBytes
}

// readMost is above the largest file: the last line, and what is repeated before the first,
// go beyond fileBytes.
func (o Options) readMost() int64 { return 2 * o.fileBytes() }

// Writer appends to the newest file. One goroutine uses it.
type Writer[R Record[R]] struct {
	o       Options
	f       blockfs.File
	size    int64
	began   time.Time // when the file was begun
	last    uint64    // number of the last record
	expired time.Time // when a file last went for its age
}

// NewWriter returns a writer that has looked at nothing yet.
func NewWriter[R Record[R]](o Options) Writer[R] { return Writer[R]{o: o} }

// Open finds where the log ends, and returns the records of its newest file. It has to succeed
// before anything is written, and may be repeated until it does.
func (w *Writer[R]) Open() ([]R, error) {
	all, err := w.o.files()
	if err != nil {
		return nil, err
	}
	w.last = 0
	for i := len(all) - 1; i >= 0; i-- {
		newest := all[i]
		b, err := blockfs.ReadFile(w.o.FS, newest.name, w.o.readMost())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", newest.name, err)
		}
		records, good, damaged := scan[R](b)
		if damaged > 0 {
			w.o.Log.Warn("damaged lines of the "+w.o.What+" are skipped", "file", newest.name, "lines", damaged)
		}
		if len(records) == 0 {
			// Made, and nothing written: its number may be taken again.
			if err := w.o.FS.Remove(newest.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		w.last = records[len(records)-1].Number()
		return records, w.resume(newest, good)
	}
	return nil, nil
}

// resume goes on in a file, without its torn tail.
func (w *Writer[R]) resume(newest file, good int64) error {
	f, err := w.o.FS.Open(newest.name, blockfs.Write)
	if err != nil {
		return err
	}
	if good < newest.size {
		w.o.Log.Info("the torn end of the "+w.o.What+" is cut", "file", newest.name, "bytes", newest.size-good)
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	w.f, w.size, w.began = f, good, w.o.Clock.Now()
	return nil
}

// Write appends records, numbers them in place and makes them durable; written says how many,
// also with an error. again are put first into every new file.
func (w *Writer[R]) Write(records, again []R) (written int, err error) {
	w.expire()
	for written < len(records) {
		if err := w.roll(again); err != nil {
			return written, err
		}
		var b []byte
		n := 0
		for i, r := range records[written:] {
			if i > 0 && w.size+int64(len(b)) >= w.o.fileBytes() {
				break
			}
			records[written+i] = r.Numbered(w.last + uint64(i) + 1)
			line, err := line(records[written+i])
			if err != nil {
				return written, err
			}
			b = append(b, line...)
			n++
		}
		if err := w.append(b); err != nil {
			return written, err
		}
		w.last += uint64(n)
		written += n
	}
	return written, nil
}

// append writes at the end, or leaves the file as it was.
func (w *Writer[R]) append(b []byte) error {
	_, err := w.f.WriteAt(b, w.size)
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		w.size += int64(len(b))
		return nil
	}
	if undo := errors.Join(w.f.Truncate(w.size), w.f.Sync()); undo != nil {
		// What is at its end now is not known. The next file begins with the same number,
		// which hides it (N2).
		err = errors.Join(err, undo, w.f.Close())
		w.f = nil
	}
	return err
}

// roll begins another file when there is none, or it is large or old.
func (w *Writer[R]) roll(again []R) error {
	now := w.o.Clock.Now()
	if w.f != nil && w.size < w.o.fileBytes() && now.Sub(w.began) < fileAge {
		return nil
	}
	name := w.o.fileName(w.last + 1)
	f, err := w.create(name)
	if err != nil {
		return err
	}
	var b []byte
	last := w.last
	for _, r := range again {
		last++
		l, lerr := line(r.Numbered(last))
		if err = errors.Join(err, lerr); lerr == nil {
			b = append(b, l...)
		}
	}
	if err == nil && len(b) > 0 {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = errors.Join(f.Sync(), w.o.FS.SyncDir("."))
	}
	if err != nil {
		return errors.Join(err, f.Close(), w.o.FS.Remove(name))
	}
	old := w.f
	w.f, w.size, w.began, w.last = f, int64(len(b)), now, last
	if old != nil {
		if err := old.Close(); err != nil {
			w.o.Log.Debug("a full file of the "+w.o.What+" was not closed", "error", err)
		}
	}
	w.shrink()
	return nil
}

// create makes a file. One of that name has nothing that was reported as written.
func (w *Writer[R]) create(name string) (blockfs.File, error) {
	if err := w.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return w.o.FS.Open(name, blockfs.Write|blockfs.Create|blockfs.Excl)
}

// shrink removes the oldest files while there is too much (N3).
func (w *Writer[R]) shrink() {
	all, err := w.o.files()
	if err != nil {
		w.o.Log.Warn("old files of the "+w.o.What+" are not removed", "error", err)
		return
	}
	total := w.o.fileBytes() // what the newest grows to
	for _, f := range all[:max(0, len(all)-1)] {
		total += f.size
	}
	for _, f := range all[:max(0, len(all)-1)] {
		if total <= w.o.MaxBytes {
			return
		}
		if !w.remove(f.name) {
			return
		}
		total -= f.size
	}
}

// expire removes the oldest file when its newest line is too old (N3).
func (w *Writer[R]) expire() {
	now := w.o.Clock.Now()
	if !w.expired.IsZero() && now.Sub(w.expired) < expireEvery {
		return
	}
	w.expired = now
	all, err := w.o.files()
	if err != nil || len(all) < 2 || all[0].mod.IsZero() || now.Sub(all[0].mod) < w.o.MaxAge {
		return
	}
	w.remove(all[0].name)
}

func (w *Writer[R]) remove(name string) bool {
	if err := w.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.o.Log.Warn("an old file of the "+w.o.What+" is not removed", "file", name, "error", err)
		return false
	}
	return true
}

// Close closes the file; what was written is durable.
func (w *Writer[R]) Close() {
	if w.f == nil {
		return
	}
	if err := w.f.Close(); err != nil {
		w.o.Log.Debug("the "+w.o.What+" was not closed", "error", err)
	}
}
