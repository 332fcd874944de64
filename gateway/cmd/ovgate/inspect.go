package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// The verbs of inspect read one file of a node's disks or of a directory backend, with
// the decoders of the engine. They open it for reading only, ask no node, and hold a
// part of it that has a bound.

// inspectors are the structures by the word that names them.
var inspectors = []struct {
	word, short string
	run         func(*inspection) error
}{
	{"journal", "a chunk of the journal, DIR/journal/chunk-*", (*inspection).journal},
	{"group", "a file of the journal's group log, DIR/journal/group-*", (*inspection).group},
	{"sco", "an SCO, v/ID/sco/* of a vPool's backend", (*inspection).sco},
	{"tlog", "a TLog, v/ID/tlog/* of a backend, or a local copy", (*inspection).tlog},
	{"head", "a head, v/ID/head/* of a backend, or a local copy", (*inspection).head},
	{"past", "a past, v/ID/past/* of a backend, or a local copy", (*inspection).past},
	{"checkpoint", "a checkpoint of a map, DIR/vdisk/ID/map, or v/ID/map/* of a backend", (*inspection).checkpoint},
	{"segment", "a segment of map pages, DIR/vdisk/ID/page-*, or v/ID/page/* of a backend", (*inspection).segment},
}

// inspect returns the verbs that look into files.
func (a *app) inspect() *cobra.Command {
	cmd := group("inspect", "Print a file of the engine and check it; nothing is written, no node is asked")
	for _, i := range inspectors {
		verb := &cobra.Command{Use: i.word + " FILE", Short: "Print and check " + i.short, Args: names("FILE")}
		verb.Long = verb.Short + ".\n\nEvery checksum and rule of the format is checked, and what is wrong is printed as a line that begins\n" +
			"with BAD; then the exit code is 1. With -o json each line is a JSON object with the key \"is\"."
		verb.RunE = func(_ *cobra.Command, args []string) error {
			if err := a.checkFlags(); err != nil {
				return err
			}
			return a.inspectFile(args[0], i.run)
		}
		cmd.AddCommand(verb)
	}
	return cmd
}

func (a *app) inspectFile(path string, run func(*inspection) error) (err error) {
	// A pipe would wait for a writer, and a device has no size.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file; copy what is to be inspected to one", path)
	}
	i := &inspection{f: f, size: info.Size(), out: a.out, json: a.output == outputJSON}
	if err := run(i); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if i.bad > 0 {
		return fmt.Errorf("%s is damaged in %d places", path, i.bad)
	}
	i.line("sound", object{}, "whole, %s", cmp.Or(i.sound, "every checksum verifies"))
	return i.err
}

// object is what a line says, for programs.
type object map[string]any

// inspection prints what is found, line by line.
type inspection struct {
	f    *os.File
	size int64
	out  io.Writer
	json bool
	bad  int
	// sound is what was checked of a file that is whole; empty: all of it.
	sound string
	err   error // of out
}

// line prints a thing that was found: o with -o json, else the text.
func (i *inspection) line(is string, o object, format string, args ...any) {
	if i.err != nil {
		return
	}
	if i.json {
		o["is"] = is
		enc := json.NewEncoder(i.out)
		enc.SetEscapeHTML(false)
		i.err = enc.Encode(o)
		return
	}
	_, i.err = fmt.Fprintln(i.out, strings.TrimRight(clean(fmt.Sprintf(format, args...)), " "))
}

// problem prints what is wrong, and where; off below 0: not at one place.
func (i *inspection) problem(off int64, format string, args ...any) {
	i.bad++
	text := fmt.Sprintf(format, args...)
	o := object{"text": text}
	if off >= 0 {
		o["offset"] = off
		text = fmt.Sprintf("offset %d: %s", off, text)
	}
	i.line("bad", o, "BAD %s", text)
}

// all reads the whole file, of at most limit bytes; a larger one is damaged.
func (i *inspection) all(limit int64) ([]byte, bool, error) {
	if i.size > limit {
		i.problem(limit, "it has %d bytes, such an object at most %d", i.size, limit)
		return nil, false, nil
	}
	b := make([]byte, i.size)
	_, err := i.f.ReadAt(b, 0)
	return b, err == nil, err
}

// instant prints a time of the engine.
func instant(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func idText(id [16]byte) string { return volume.ID(id).String() }

var journalKinds = map[journal.Kind]string{journal.KindData: "data", journal.KindZero: "zero", journal.KindTrim: "trim",
	journal.KindPin: "pin", journal.KindReservation: "reservation"}

func (i *inspection) journal() error {
	records := 0
	err := journal.Inspect(i.f, i.size, func(in journal.Inspected) {
		if h := in.Header; h != nil {
			i.record(in, h)
			records++
		}
		if in.Problem != "" {
			i.problem(in.Off, "%s", in.Problem)
		}
	})
	if err == nil && records == 0 && i.bad == 0 {
		i.problem(0, "there is no record in it")
	}
	return err
}

func (i *inspection) group() error {
	frames := 0
	err := journal.InspectGroup(i.f, i.size, func(f journal.InspectedFrame) {
		frames++
		i.line("frame", object{"offset": f.Off, "number": f.Number, "oldest": f.Oldest, "bytes": f.Bytes, "records": len(f.Records)},
			"%-8d frame %d, of those from %d on, %d bytes, %d records", f.Off, f.Number, f.Oldest, f.Bytes, len(f.Records))
		for _, r := range f.Records {
			if r.Header == nil {
				i.problem(f.Off, "record for %s at %d: %s", r.Chunk, r.Off, r.Problem)
				continue
			}
			i.line("for", object{"chunk": r.Chunk}, "         for %s", r.Chunk)
			i.record(journal.Inspected{Off: r.Off}, r.Header)
		}
	})
	if err == nil && frames == 0 {
		i.problem(0, "there is no frame in it")
	}
	return err
}

func (i *inspection) record(in journal.Inspected, h *journal.Header) {
	what := "record"
	switch {
	case in.Opener:
		what = "opener"
	case h.Seqs == 0:
		what = "promise"
	}
	behind := ""
	if in.Behind {
		behind = " behind a gap"
	}
	i.line(what, object{"offset": in.Off, "vdisk": idText(h.VDisk), "epoch": h.Epoch, "generation": fmt.Sprintf("%016x", h.Generation), "seq": h.Seq, "seqs": h.Seqs,
		"promise": h.Promise, "time": instant(h.Time), "cluster": h.Cluster, "headerBytes": h.HeaderBytes, "dataBytes": h.DataBytes, "behind": in.Behind},
		"%-8d %s%s vdisk %s epoch %d generation %016x seq %d+%d promise %d %s %d bytes in clusters of %d",
		in.Off, what, behind, idText(h.VDisk), h.Epoch, h.Generation, h.Seq, h.Seqs, h.Promise, instant(h.Time), h.DataBytes, h.Cluster)
	for _, e := range h.Extents {
		i.extent(e.LBA, e.Length, journalKinds[e.Kind], object{"seq": h.Seq + uint64(e.SeqDelta), "data": e.Data},
			fmt.Sprintf("seq %d", h.Seq+uint64(e.SeqDelta)))
	}
}

func (i *inspection) extent(lba, length uint64, kind string, o object, more string) {
	o["lba"], o["length"], o["kind"] = lba, length, kind
	i.line("extent", o, "         %s lba %d+%d %s", kind, lba, length, more)
}

var scoKinds = map[sco.Kind]string{sco.KindData: "data", sco.KindZero: "zero", sco.KindTrim: "trim"}

func (i *inspection) footer(f *sco.Footer, bytes int64) {
	i.line("sco", object{"vdisk": idText(f.VDisk), "number": f.Number, "epoch": f.Epoch, "nonce": f.Nonce, "bytes": bytes, "cluster": f.Cluster, "clusters": f.Clusters,
		"firstSeq": f.FirstSeq, "lastSeq": f.LastSeq, "firstTime": instant(f.FirstTime), "lastTime": instant(f.LastTime), "extents": len(f.Extents)},
		"sco %d vdisk %s epoch %d nonce %08x seq %d to %d, %s to %s, %d bytes, %d clusters of %d, %d extents",
		f.Number, idText(f.VDisk), f.Epoch, f.Nonce, f.FirstSeq, f.LastSeq, instant(f.FirstTime), instant(f.LastTime), bytes, f.Clusters, f.Cluster, len(f.Extents))
	for _, e := range f.Extents {
		more := ""
		o := object{}
		if e.Kind == sco.KindData {
			o["first"], more = e.First, fmt.Sprintf("cluster %d", e.First)
		}
		if e.Source != 0 {
			o["source"] = blockmap.Loc(e.Source).String()
			more += " from " + blockmap.Loc(e.Source).String()
		}
		i.extent(e.LBA, e.Length, scoKinds[e.Kind], o, more)
	}
}

func (i *inspection) sco() error {
	type bad struct {
		lba   uint64
		index uint32
	}
	// Those that are named; all of them are counted.
	const most = 1000
	var all []bad
	c, err := sco.Check(sco.Object{Size: i.size, Read: func(p []byte, off int64) error {
		_, err := i.f.ReadAt(p, off)
		if errors.Is(err, io.EOF) {
			err = sco.ErrUnreadable
		}
		return err
	}}, func(lba uint64, index uint32) {
		if len(all) < most {
			all = append(all, bad{lba, index})
		}
	})
	if err != nil {
		return err
	}
	if c.Footer != nil {
		i.footer(c.Footer, i.size)
	}
	for _, p := range c.Problems {
		i.problem(-1, "%v", p)
	}
	for _, b := range all {
		l := sco.Layout{Cluster: int(c.Footer.Cluster)}
		i.problem(l.DataOffset(b.index, c.Footer.Clusters), "cluster %d, which is lba %d of the disk, does not verify", b.index, b.lba)
	}
	if n := int(c.Bad) - len(all); n > 0 {
		i.problem(-1, "%d more clusters do not verify", n)
	}
	return nil
}

func (i *inspection) tlog() error {
	b, ok, err := i.all(tlog.MaxBytes)
	if !ok {
		return err
	}
	t, err := tlog.Decode(b)
	if err != nil {
		i.problem(-1, "%v", err)
		return nil
	}
	i.line("tlog", object{"vdisk": idText(t.VDisk), "number": t.Number, "epoch": t.Epoch, "nonce": t.Nonce, "moved": t.Moved, "scos": len(t.Entries)},
		"tlog %d vdisk %s epoch %d nonce %08x, %d SCOs, moved %s", t.Number, idText(t.VDisk), t.Epoch, t.Nonce, len(t.Entries), yesNo(t.Moved))
	for _, e := range t.Entries {
		i.footer(e.Footer, e.Bytes)
	}
	return nil
}

func (i *inspection) head() error {
	b, ok, err := i.all(volume.MaxHeadBytes)
	if !ok {
		return err
	}
	h, ref, err := volume.InspectHead(b)
	if err != nil {
		i.problem(-1, "%v", err)
		return nil
	}
	return i.whole("head", ref.Hash, h)
}

func (i *inspection) past() error {
	b, ok, err := i.all(volume.MaxPastBytes)
	if !ok {
		return err
	}
	p, sha, err := volume.InspectPast(b)
	if err != nil {
		i.problem(-1, "%v", err)
		return nil
	}
	return i.whole("past", sha, p)
}

// whole prints an object that is JSON by itself.
func (i *inspection) whole(is, sha string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if i.json {
		i.line(is, object{"sha256": sha, "object": json.RawMessage(b)}, "")
		return nil
	}
	i.line(is, object{}, "%s, sha-256 %s", is, sha)
	for line := range strings.Lines(string(b)) {
		i.line(is, object{}, "%s", strings.TrimRight(line, "\n"))
	}
	return nil
}

// checkpoint prints the index of a map. Up to format 2 the pages were in it.
func (i *inspection) checkpoint() error {
	var start [10]byte
	if n, err := i.f.ReadAt(start[:], 0); n == len(start) && binary.LittleEndian.Uint16(start[8:]) < blockmap.FormatVersion {
		return i.oldCheckpoint()
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	b, ok, err := i.all(volume.MaxIndexBytes)
	if !ok {
		return err
	}
	pages, mapped := 0, 0
	x, err := blockmap.InspectIndex(b, func(n uint64, s *blockmap.Segment, slot uint16, sum uint32, m int) {
		pages, mapped = pages+1, mapped+m
		if s == nil {
			i.line("page", object{"number": n, "mapped": 0}, "page %d, none, where the parent's map has one", n)
			return
		}
		i.line("page", object{"number": n, "mapped": m, "segment": s.Number, "epoch": s.Epoch, "nonce": s.Nonce, "slot": slot, "crc32c": sum},
			"page %d, %d clusters mapped, in segment %d epoch %d nonce %08x slot %d, crc32c %08x", n, m, s.Number, s.Epoch, s.Nonce, slot, sum)
	})
	if err != nil {
		i.problem(-1, "%v", err)
		return nil
	}
	for _, s := range x.SCOs {
		i.scoInfo(s)
	}
	for _, s := range x.Segments {
		i.line("segment", object{"number": s.Number, "epoch": s.Epoch, "nonce": s.Nonce, "pages": s.Pages},
			"segment %d epoch %d nonce %08x, %d pages", s.Number, s.Epoch, s.Nonce, s.Pages)
	}
	i.line("checkpoint", object{"vdisk": idText(x.VDisk), "cluster": x.Cluster, "clusters": x.Clusters, "nextTLog": x.NextTLog, "epoch": x.Epoch, "nonce": x.Nonce,
		"number": x.Number, "line": fmt.Sprintf("%x", x.Line), "scos": len(x.SCOs), "segments": len(x.Segments), "pages": pages, "mapped": mapped},
		"checkpoint of vdisk %s after head %d of epoch %d nonce %08x, %d clusters of %d, TLogs before %d, line %x, %d SCOs, %d segments, %d pages, %d clusters mapped",
		idText(x.VDisk), x.Number, x.Epoch, x.Nonce, x.Clusters, x.Cluster, x.NextTLog, x.Line, len(x.SCOs), len(x.Segments), pages, mapped)
	return nil
}

func (i *inspection) scoInfo(s blockmap.SCOInfo) {
	i.line("sco", object{"number": s.Number, "clusters": s.Clusters, "bytes": s.Bytes, "epoch": s.Epoch, "nonce": s.Nonce},
		"sco %d epoch %d nonce %08x, %d clusters, %d bytes", s.Number, s.Epoch, s.Nonce, s.Clusters, s.Bytes)
}

// segment prints a segment. The checksums of its pages are in the checkpoint.
func (i *inspection) segment() error {
	i.sound = "as its header says; the checkpoint has the checksums of the pages"
	vdisk, s, err := blockmap.InspectSegment(i.f, i.size, func(slot uint32, mapped int) {
		i.line("page", object{"slot": slot, "mapped": mapped}, "slot %d, %d clusters mapped", slot, mapped)
	})
	if errors.Is(err, blockmap.ErrCheckpoint) {
		i.problem(-1, "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	i.line("segment", object{"vdisk": idText(vdisk), "number": s.Number, "epoch": s.Epoch, "nonce": s.Nonce, "pages": s.Pages},
		"segment %d of vdisk %s epoch %d nonce %08x, %d pages", s.Number, idText(vdisk), s.Epoch, s.Nonce, s.Pages)
	return nil
}

func (i *inspection) oldCheckpoint() error {
	pages, mapped, scos := 0, 0, 0
	h, err := blockmap.InspectCheckpoint(io.NewSectionReader(i.f, 0, i.size), func(s blockmap.SCOInfo) {
		scos++
		i.scoInfo(s)
	}, func(n uint64, m int) {
		pages, mapped = pages+1, mapped+m
		i.line("page", object{"number": n, "mapped": m}, "page %d, %d clusters mapped", n, m)
	})
	if err != nil {
		i.problem(-1, "%v", err)
		return nil
	}
	i.line("checkpoint", object{"vdisk": idText(h.VDisk), "cluster": h.Cluster, "clusters": h.Clusters, "firstTLog": h.FirstTLog, "lastTLog": h.LastTLog,
		"line": fmt.Sprintf("%x", h.Line), "scos": scos, "pages": pages, "mapped": mapped},
		"checkpoint of vdisk %s, %d clusters of %d, TLogs %d to before %d, line %x, %d SCOs, %d pages, %d clusters mapped",
		idText(h.VDisk), h.Clusters, h.Cluster, h.FirstTLog, h.LastTLog, h.Line, scos, pages, mapped)
	return nil
}
