package cache

import "math/bits"

// sketch counts how often keys were used lately, roughly and in little memory: a
// count-min sketch of four rows (Cormode and Muthukrishnan, 2005) whose counters are
// halved now and then, so that the past fades (the aging of TinyLFU, Einziger et al.,
// 2017). A count is never too small, but for the fading.
type sketch struct {
	rows  [4][]uint8
	shift int
	adds  int64
	limit int64 // of adds until all is halved
}

// sketchMax is the most that a counter says; more tells nothing about what to keep.
const sketchMax = 15

// newSketch returns one for a cache of n groups: it remembers ten times as many uses,
// in so many counters that even if all of those were of different keys few would share
// all four of theirs. It takes 32 to 64 bytes for each group.
func newSketch(n int64) *sketch {
	n = max(n, 64)
	width := int64(1) << bits.Len64(uint64(8*n-1))
	s := &sketch{shift: 64 - bits.TrailingZeros64(uint64(width)), limit: 10 * n}
	for i := range s.rows {
		s.rows[i] = make([]uint8, width)
	}
	return s
}

// at returns the place of a key in row i.
func (s *sketch) at(k Key, i int) *uint8 {
	seeds := [4]uint64{0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0xd6e8feb86659fd93}
	h := (k.Space*0xbf58476d1ce4e5b9 ^ (uint64(k.SCO)<<32 | uint64(k.Group))) * seeds[i]
	h ^= h >> 29
	return &s.rows[i][h*seeds[(i+1)%4]>>s.shift]
}

// add counts n uses of a key.
func (s *sketch) add(k Key, n int) {
	if n <= 0 {
		return
	}
	for i := range s.rows {
		c := s.at(k, i)
		*c = uint8(min(int(*c)+n, sketchMax))
	}
	if s.adds += int64(n); s.adds >= s.limit {
		s.adds /= 2
		for i := range s.rows {
			for j := range s.rows[i] {
				s.rows[i][j] /= 2
			}
		}
	}
}

// count returns how often a key was used, at most sketchMax.
func (s *sketch) count(k Key) uint8 {
	n := *s.at(k, 0)
	for i := 1; i < len(s.rows); i++ {
		n = min(n, *s.at(k, i))
	}
	return n
}
