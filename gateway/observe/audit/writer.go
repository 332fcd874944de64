package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// writer appends to the newest file. One goroutine uses it.
type writer struct {
	o       Options
	opened  bool
	f       blockfs.File
	size    int64
	began   time.Time // when the file was begun
	seq     uint64    // of the last line
	expired time.Time // when a file last went for its age
	// left are changes that a former process has not ended.
	left []record
}

// open finds where the log ends, and what a crash left (A1, A3).
func (w *writer) open() error {
	all, err := files(w.o.FS)
	if err != nil {
		return err
	}
	w.left, w.seq = nil, 0
	for i := len(all) - 1; i >= 0; i-- {
		last := all[i]
		b, err := blockfs.ReadFile(w.o.FS, last.name, readMost)
		if err != nil {
			return fmt.Errorf("%s: %w", last.name, err)
		}
		records, good, damaged := scan(b)
		if damaged > 0 {
			w.o.Log.Warn("damaged lines of the audit log are skipped", "file", last.name, "lines", damaged)
		}
		if len(records) == 0 {
			// Made, and nothing written: its number may be taken again.
			if err := w.o.FS.Remove(last.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		w.seq = records[len(records)-1].Seq
		w.left = unended(records)
		if err := w.resume(last, good); err != nil {
			return err
		}
		break
	}
	w.opened = true
	return nil
}

// unended returns the changes that were begun and not ended.
func unended(records []record) []record {
	ended := map[string]bool{}
	for _, r := range records {
		if r.Kind == kindEnd {
			ended[r.Op] = true
		}
	}
	var left []record
	for _, r := range records {
		if r.Kind == kindBegin && !ended[r.Op] {
			r.Kind, r.Status = kindEnd, 0
			left = append(left, r)
		}
	}
	return left
}

// resume goes on in a file, without its torn tail.
func (w *writer) resume(last logFile, good int64) error {
	f, err := w.o.FS.Open(last.name, blockfs.Write)
	if err != nil {
		return err
	}
	if good < last.size {
		w.o.Log.Info("the torn end of the audit log is cut", "file", last.name, "bytes", last.size-good)
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	w.f, w.size, w.began = f, good, w.o.Clock.Now()
	return nil
}

// write appends records and makes them durable. open are the changes that go on.
func (w *writer) write(records, open []record) error {
	if !w.opened {
		if err := w.open(); err != nil {
			return err
		}
	}
	w.expire()
	records = append(append([]record(nil), w.left...), records...)
	if len(records) == 0 {
		return nil
	}
	for len(records) > 0 {
		if err := w.roll(open); err != nil {
			return err
		}
		var b []byte
		seq, n := w.seq, 0
		for _, r := range records {
			if n > 0 && w.size+int64(len(b)) >= fileBytes {
				break
			}
			seq++
			r.Seq = seq
			line, err := r.line()
			if err != nil {
				return err
			}
			b = append(b, line...)
			n++
		}
		if err := w.append(b); err != nil {
			return err
		}
		w.seq = seq
		w.left = w.left[min(n, len(w.left)):]
		records = records[n:]
	}
	return nil
}

// append writes at the end, or leaves the file as it was.
func (w *writer) append(b []byte) error {
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
		// which hides it (A3).
		err = errors.Join(err, undo, w.f.Close())
		w.f = nil
	}
	return err
}

// roll begins another file when there is none, or it is large or old.
func (w *writer) roll(open []record) error {
	now := w.o.Clock.Now()
	if w.f != nil && w.size < fileBytes && now.Sub(w.began) < fileAge {
		return nil
	}
	name := fileName(w.seq + 1)
	f, err := w.create(name)
	if err != nil {
		return err
	}
	// What goes on is begun again, so that the newest file alone tells what a crash left.
	var b []byte
	seq := w.seq
	for _, r := range open {
		seq++
		r.Seq = seq
		line, lerr := r.line()
		if err = errors.Join(err, lerr); lerr == nil {
			b = append(b, line...)
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
	w.f, w.size, w.began, w.seq = f, int64(len(b)), now, seq
	if old != nil {
		if err := old.Close(); err != nil {
			w.o.Log.Debug("a full file of the audit log was not closed", "error", err)
		}
	}
	w.shrink()
	return nil
}

// create makes a file. One of that name has nothing that was reported as written.
func (w *writer) create(name string) (blockfs.File, error) {
	if err := w.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return w.o.FS.Open(name, blockfs.Write|blockfs.Create|blockfs.Excl)
}

// shrink removes the oldest files while there is too much (A4).
func (w *writer) shrink() {
	all, err := files(w.o.FS)
	if err != nil {
		w.o.Log.Warn("old files of the audit log are not removed", "error", err)
		return
	}
	total := int64(fileBytes) // what the newest grows to
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

// expire removes the oldest file when its newest line is too old (A4).
func (w *writer) expire() {
	now := w.o.Clock.Now()
	if !w.expired.IsZero() && now.Sub(w.expired) < expireEvery {
		return
	}
	w.expired = now
	all, err := files(w.o.FS)
	if err != nil || len(all) < 2 || all[0].mod.IsZero() || now.Sub(all[0].mod) < w.o.MaxAge {
		return
	}
	w.remove(all[0].name)
}

func (w *writer) remove(name string) bool {
	if err := w.o.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.o.Log.Warn("an old file of the audit log is not removed", "file", name, "error", err)
		return false
	}
	return true
}

func (w *writer) close() {
	if w.f == nil {
		return
	}
	if err := w.f.Close(); err != nil {
		w.o.Log.Debug("the audit log was not closed", "error", err)
	}
}
