package blockfs

// pageSize is the unit in which Mem shares content between files' volatile and
// durable state and between clones, in bytes.
const pageSize = 4096

type page [pageSize]byte

// zeroPage stands for an allocated page of zeros. Pages are never changed once
// they are in a content.
var zeroPage page

// content is what a file holds: immutable pages, replaced on write. A nil page
// is a hole. len(pages) is size rounded up to pages.
type content struct {
	size   int64
	pages  []*page
	used   int64 // pages that are not holes
	shared bool  // another content has the same slice; copy it before a change
}

// share returns a second content with the same bytes, in constant time.
func (c *content) share() content {
	c.shared = true
	return *c
}

// own makes the page table private.
func (c *content) own() {
	if c.shared {
		c.pages = append(make([]*page, 0, len(c.pages)), c.pages...)
		c.shared = false
	}
}

func pagesFor(size int64) int64 { return (size + pageSize - 1) / pageSize }

// readAt copies bytes from off and returns how many there were.
func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for done := 0; done < len(p); {
		i, in := (off+int64(done))/pageSize, (off+int64(done))%pageSize
		end := min(len(p), done+int(pageSize-in))
		if pg := c.pages[i]; pg != nil {
			copy(p[done:end], pg[in:])
		} else {
			clear(p[done:end])
		}
		done = end
	}
	return len(p)
}

// grow sets the size to at least size; the new part is a hole.
func (c *content) grow(size int64) {
	if size <= c.size {
		return
	}
	c.size = size
	if n := pagesFor(size) - int64(len(c.pages)); n > 0 {
		c.own()
		c.pages = append(c.pages, make([]*page, n)...)
	}
}

// put replaces a page and keeps count.
func (c *content) put(i int64, pg *page) {
	if c.pages[i] == nil {
		c.used++
	}
	c.pages[i] = pg
}

// write puts data at off. Whole pages refer to data, which must not change any
// more.
func (c *content) write(off int64, data []byte) {
	if len(data) == 0 {
		return
	}
	c.grow(off + int64(len(data)))
	c.own()
	for len(data) > 0 {
		i, in := off/pageSize, off%pageSize
		n := min(int64(len(data)), pageSize-in)
		if n == pageSize {
			c.put(i, (*page)(data))
		} else {
			var pg page
			if old := c.pages[i]; old != nil {
				pg = *old
			}
			copy(pg[in:], data[:n])
			c.put(i, &pg)
		}
		data, off = data[n:], off+n
	}
}

// truncate sets the size; what is cut reads as zeros if the file grows again.
func (c *content) truncate(size int64) {
	if size >= c.size {
		c.grow(size)
		return
	}
	c.own()
	keep := pagesFor(size)
	for _, pg := range c.pages[keep:] {
		if pg != nil {
			c.used--
		}
	}
	c.pages = c.pages[:keep:keep]
	c.size = size
	if in := size % pageSize; in != 0 && c.pages[keep-1] != nil {
		pg := *c.pages[keep-1]
		clear(pg[in:])
		c.pages[keep-1] = &pg
	}
}

// allocate grows to size and fills holes from the page of off on with zeros.
func (c *content) allocate(off, size int64) {
	c.grow(size)
	c.own()
	for i := off / pageSize; i < pagesFor(size); i++ {
		if c.pages[i] == nil {
			c.put(i, &zeroPage)
		}
	}
}

// newPages returns how many pages a write of [off, off+n) would add.
func (c *content) newPages(off, n int64) int64 {
	if n == 0 {
		return 0
	}
	var add int64
	for i := off / pageSize; i < pagesFor(off+n); i++ {
		if i >= int64(len(c.pages)) {
			return add + pagesFor(off+n) - i
		}
		if c.pages[i] == nil {
			add++
		}
	}
	return add
}
