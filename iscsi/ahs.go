package iscsi

// Additional header segments (RFC 7143 section 11.2.2):
//
//	 0          2      3          4
//	+----------+------+----------+---------------------+
//	| length   | type | reserved | specific, padded    |
//	+----------+------+----------+---------------------+
//	 length: bytes after the type
const (
	ahsExtendedCDB = 1 // CDB bytes beyond 16
	ahsReadLength  = 2 // expected length of the data-in of a bidirectional command
	maxAHS         = 255 * 4
)

// takeAHS reads the additional header segments of a command. It returns false
// for what no initiator sends: other types, wrong lengths, one type twice, or the
// length of a transfer that the flags do not announce.
func (t *task) takeAHS(b []byte) bool {
	seen := [3]bool{}
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		n, kind := int(be.Uint16(b)), b[2]
		end := 3 + n + pad(3+n)
		if n < 2 || end > len(b) || kind == 0 || kind > ahsReadLength || seen[kind] {
			return false
		}
		seen[kind] = true
		switch kind {
		case ahsExtendedCDB:
			t.longCDB = true
		case ahsReadLength:
			if n != 5 || !t.read || !t.write {
				return false
			}
			t.readLength = be.Uint32(b[4:])
		}
		b = b[end:]
	}
	return true
}
