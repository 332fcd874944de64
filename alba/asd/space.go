package asd

import (
	"cmp"
	"fmt"
	"slices"
)

// run is a range of free pages of a container.
type run struct{ page, pages uint32 }

func (r run) end() uint32 { return r.page + r.pages }

// freeRuns are the free pages of one container: runs in order that do not touch.
// There are 8192 of them at worst, as extents have 4 pages at least, and some
// dozens where values are large; so a scan costs microseconds and a run 8 bytes.
type freeRuns struct {
	runs []run
	free uint32 // pages in runs
	max  uint32 // pages of the largest run
}

// allFree returns the runs of an empty container.
func allFree() freeRuns {
	return freeRuns{runs: []run{{0, containerPages}}, free: containerPages, max: containerPages}
}

// take removes the smallest run's first pages that fit, of equals the first one.
// There must be a run that large.
func (f *freeRuns) take(pages uint32) uint32 {
	best := -1
	for i, r := range f.runs {
		if r.pages >= pages && (best < 0 || r.pages < f.runs[best].pages) {
			best = i
			if r.pages == pages {
				break
			}
		}
	}
	page := f.runs[best].page
	f.cut(best, page, pages)
	return page
}

// claim removes given pages; false when they are not all free.
func (f *freeRuns) claim(page, pages uint32) bool {
	i, found := slices.BinarySearchFunc(f.runs, page, func(r run, p uint32) int { return cmp.Compare(r.page, p) })
	if !found {
		i--
	}
	if i < 0 || f.runs[i].end() < page+pages {
		return false
	}
	f.cut(i, page, pages)
	return true
}

// cut removes pages from the inside of run i.
func (f *freeRuns) cut(i int, page, pages uint32) {
	r := f.runs[i]
	before, after := run{r.page, page - r.page}, run{page + pages, r.end() - page - pages}
	switch {
	case before.pages > 0 && after.pages > 0:
		f.runs[i] = before
		f.runs = slices.Insert(f.runs, i+1, after)
	case before.pages > 0:
		f.runs[i] = before
	case after.pages > 0:
		f.runs[i] = after
	default:
		f.runs = slices.Delete(f.runs, i, i+1)
	}
	f.free -= pages
	if r.pages == f.max {
		f.max = 0
		for _, r := range f.runs {
			f.max = max(f.max, r.pages)
		}
	}
}

// give makes pages free again, and joins them with their neighbours. Giving what
// is free is a fault of this package that would hand space out twice: it panics.
func (f *freeRuns) give(page, pages uint32) {
	i, _ := slices.BinarySearchFunc(f.runs, page, func(r run, p uint32) int { return cmp.Compare(r.page, p) })
	if i > 0 && f.runs[i-1].end() > page || i < len(f.runs) && f.runs[i].page < page+pages {
		panic(fmt.Sprintf("asd: pages [%d,+%d) were freed twice", page, pages))
	}
	f.free += pages
	r := run{page, pages}
	from, to := i, i // runs that r replaces
	if i > 0 && f.runs[i-1].end() == page {
		from--
		r = run{f.runs[from].page, f.runs[from].pages + pages}
	}
	if i < len(f.runs) && f.runs[i].page == page+pages {
		r.pages += f.runs[i].pages
		to++
	}
	f.runs = slices.Replace(f.runs, from, to, r)
	f.max = max(f.max, r.pages)
}

// tail returns the first page after all that is in use.
func (f *freeRuns) tail() uint32 {
	if n := len(f.runs); n > 0 && f.runs[n-1].end() == containerPages {
		return f.runs[n-1].page
	}
	return containerPages
}

// ranking orders containers by their largest run, then by number: the first one
// that is large enough is found by bisection. An element takes 8 bytes, and a
// terabyte has 4096 containers, so that keeping the order by moving elements is
// cheap.
type ranking []uint64

func rank(max, file uint32) uint64 { return uint64(max)<<32 | uint64(file) }

// fit returns the container to take pages from.
func (k ranking) fit(pages uint32) (file uint32, ok bool) {
	i, _ := slices.BinarySearch(k, rank(pages, 0))
	if i == len(k) {
		return 0, false
	}
	return uint32(k[i]), true
}

// move notes that the largest run of a container changed; 0 is not listed.
func (k *ranking) move(file, from, to uint32) {
	if from == to {
		return
	}
	if i, ok := slices.BinarySearch(*k, rank(from, file)); ok && from > 0 {
		*k = slices.Delete(*k, i, i+1)
	}
	if to > 0 {
		i, _ := slices.BinarySearch(*k, rank(to, file))
		*k = slices.Insert(*k, i, rank(to, file))
	}
}
