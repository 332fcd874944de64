package sco

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// ErrUnreadable: these bytes of an object are not to be had, however often they are
// asked for. What Check reads with returns it for damage; any other error ends Check.
var ErrUnreadable = errors.New("sco: bytes cannot be read")

// checkGroups is how many groups Check reads at once: a megabyte is little memory and
// enough that a disk or a store is not asked in vain.
const checkGroups = 16

// checkSums is how many bytes of sums it reads at once.
const checkSums = 64 << 10

// Object is an SCO to be checked.
type Object struct {
	Size int64 // bytes
	// Read fills p from offset off.
	Read func(p []byte, off int64) error
	// Want is the footer that it has by its TLog; nil: what the object says itself.
	Want *Footer
	// Part: the TLog is a collected one (package tlog, L1). Want has those extents alone
	// that count, and seqs and times that are not the object's; no others are looked at
	// cluster by cluster.
	Part bool
}

// Checked is what Check found.
type Checked struct {
	// Footer is the one that was checked by; nil if there is none to go by.
	Footer   *Footer
	Clusters uint64 // whose checksum was looked at
	Bad      uint64 // of these, those that do not verify
	// Problems are what is wrong beside single clusters; nil: nothing.
	Problems []error
}

// OK reports whether the object is whole.
func (c *Checked) OK() bool { return c.Bad == 0 && len(c.Problems) == 0 }

// Check verifies an object piece by piece, in memory that does not depend on it, and
// calls bad for each cluster that does not verify, in the order of the object. It
// goes on behind what is damaged. The error is one of Read that is not
// ErrUnreadable; then the rest was not looked at.
func Check(o Object, bad func(lba uint64, index uint32)) (Checked, error) {
	c := checker{o: o, bad: bad}
	err := c.run()
	return c.out, err
}

type checker struct {
	o      Object
	bad    func(lba uint64, index uint32)
	out    Checked
	own    *Footer // what the object says itself; nil: nothing to be believed
	layout Layout
	seed   clustersum.Seed
	owners []owner
	data   xxh3.Hasher
	torn   bool // not all was read, so the sums over all say nothing
}

// owner is a data extent by the clusters that it has in the object.
type owner struct {
	first, n uint32
	lba      uint64
}

func (c *checker) problem(format string, a ...any) {
	c.out.Problems = append(c.out.Problems, fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, a...)...))
}

// read is Read that turns damage into false.
func (c *checker) read(p []byte, off int64) (bool, error) {
	err := c.o.Read(p, off)
	if errors.Is(err, ErrUnreadable) {
		c.torn = true
		return false, nil
	}
	return err == nil, err
}

func (c *checker) run() error {
	trailer := make([]byte, trailerBytes)
	footer, err := c.footer(trailer)
	if err != nil {
		return err
	}
	f := c.out.Footer
	if f == nil {
		return nil
	}
	whole := f
	if c.o.Part && c.own != nil {
		whole = c.own
	}
	if want := int64(Size(int(f.Cluster), int(f.Clusters), len(whole.Extents))); want != c.o.Size && (!c.o.Part || c.own != nil) {
		c.problem("it has %d bytes and should have %d", c.o.Size, want)
		if c.o.Want == nil {
			return nil // then nothing says where the clusters are
		}
		c.torn = true
	}
	c.layout, c.seed = Layout{int(f.Cluster)}, clustersum.NewSeed(f.VDisk)
	per := f.Cluster / lbaBytes
	for _, e := range f.Extents {
		if e.Kind == KindData {
			c.owners = append(c.owners, owner{e.First, uint32(e.Length / uint64(per)), e.LBA})
		}
	}
	slices.SortFunc(c.owners, func(a, b owner) int { return cmp.Compare(a.first, b.first) })
	for first := uint32(0); first < f.Clusters; {
		n := min(f.Clusters-first, uint32(checkGroups*c.layout.PerGroup()))
		if err := c.clusters(first, n); err != nil {
			return err
		}
		first += n
	}
	if footer == nil || c.torn {
		return nil
	}
	if c.data.Sum64() != binary.LittleEndian.Uint64(trailer[8:]) && c.out.Bad == 0 {
		c.problem("checksum over all data, although every cluster verifies")
	}
	return c.sums(footer, trailer)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// footer reads trailer and footer; it returns the footer's bytes, nil when there are
// none to be believed.
func (c *checker) footer(trailer []byte) ([]byte, error) {
	c.out.Footer = c.o.Want
	at := c.o.Size - trailerBytes
	if at < fixedFooter {
		c.problem("%d bytes are no object", c.o.Size)
		return nil, nil
	}
	if ok, err := c.read(trailer, at); !ok {
		if err == nil {
			c.problem("the trailer cannot be read")
		}
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(trailer))
	if string(trailer[24:]) != string(magic[:]) || n < fixedFooter || n > int64(FooterBytes(maxExtents)) || n > at {
		c.problem("no trailer at offset %d", at)
		return nil, nil
	}
	b := make([]byte, n)
	if ok, err := c.read(b, at-n); !ok {
		if err == nil {
			c.problem("the footer at offset %d cannot be read", at-n)
		}
		return nil, err
	}
	f, used, err := DecodeFooter(b)
	switch {
	case err != nil:
		c.out.Problems = append(c.out.Problems, fmt.Errorf("footer at offset %d: %w", at-n, err))
		return nil, nil
	case int64(used) != n || f.Cluster > GroupData:
		c.problem("footer fields at offset %d", at-n)
		return nil, nil
	case c.o.Want == nil:
		c.out.Footer = f
	case c.o.Part && !sameObject(f, c.o.Want), !c.o.Part && !sameFooter(f, c.o.Want):
		c.problem("the footer at offset %d is not the one that the TLog has", at-n)
	}
	c.own = f
	return b, nil
}

// sameObject reports whether two footers are of the same object, whatever they say of
// what is in it.
func sameObject(a, b *Footer) bool {
	return a.Cluster == b.Cluster && a.VDisk == b.VDisk && a.Epoch == b.Epoch && a.Nonce == b.Nonce && a.Number == b.Number && a.Clusters == b.Clusters
}

func sameFooter(a, b *Footer) bool {
	if len(a.Extents) != len(b.Extents) {
		return false
	}
	x, y := make([]byte, FooterBytes(len(a.Extents))), make([]byte, FooterBytes(len(b.Extents)))
	EncodeFooter(x, a)
	EncodeFooter(y, b)
	return bytes.Equal(x, y)
}

// clusters checks n clusters from first, which starts a group.
func (c *checker) clusters(first, n uint32) error {
	f := c.out.Footer
	group, _ := c.layout.Group(first)
	off, _, _ := c.layout.GroupRange(group, f.Clusters)
	b := make([]byte, c.layout.GroupsBytes(int(n)))
	have, err := c.read(b, off)
	if err != nil {
		return err
	}
	if per := uint32(c.layout.PerGroup()); !have && n > per { // what of it can be read?
		for k := uint32(0); k < n; k += per {
			if err := c.clusters(first+k, min(per, n-k)); err != nil {
				return err
			}
		}
		return nil
	}
	_, _ = c.data.Write(b)
	for i := range n {
		lba, owned := c.owner(first + i)
		if !owned {
			continue // nothing names it; the checksum over all covers it
		}
		c.out.Clusters++
		if data, sum := c.layout.Slot(b, n, i); have && c.seed.Sum(lba, data) == binary.LittleEndian.Uint32(sum) {
			continue
		}
		c.out.Bad++
		c.bad(lba, first+i)
	}
	return nil
}

// sums checks what stands between the groups and the trailer.
func (c *checker) sums(footer, trailer []byte) error {
	at, left := c.layout.SumsRange(c.out.Footer.Clusters)
	crc := uint32(0)
	b := make([]byte, min(left, checkSums))
	for left > 0 {
		b = b[:min(left, len(b))]
		if ok, err := c.read(b, at); !ok {
			if err == nil {
				c.problem("the sums at offset %d cannot be read", at)
			}
			return err
		}
		crc = crc32.Update(crc, castagnoli, b)
		at, left = at+int64(len(b)), left-len(b)
	}
	if crc32.Update(crc, castagnoli, footer) != binary.LittleEndian.Uint32(trailer[4:]) {
		c.problem("checksum of sums and footer")
	}
	return nil
}

// owner returns the address of a cluster of the object.
func (c *checker) owner(i uint32) (lba uint64, ok bool) {
	k, found := slices.BinarySearchFunc(c.owners, i, func(o owner, i uint32) int { return cmp.Compare(o.first, i) })
	if !found {
		k--
	}
	if k < 0 || i-c.owners[k].first >= c.owners[k].n {
		return 0, false
	}
	o := c.owners[k]
	return o.lba + uint64(i-o.first)*uint64(c.out.Footer.Cluster/lbaBytes), true
}
