package control

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkName refuses a bad name of a vPool or vDisk. One in the form of a UUID
// is bad because names and ids are accepted in the same places.
func checkName(kind, name string) *Error {
	if _, err := volume.ParseID(name); err == nil {
		return invalid("name", kind+" "+name, "choose another name", "the name has the form of an id")
	}
	if !namePattern.MatchString(name) {
		return invalid("name", kind+" "+clip(name), "use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", "the name %q is not valid", clip(name))
	}
	return nil
}

// clip keeps an unchecked name from filling an error message.
func clip(s string) string {
	const enough = 80
	if len(s) > enough {
		return s[:enough] + "..."
	}
	return s
}

// Bounds of labels, as in openapi.yaml.
const (
	maxLabels     = 64
	maxLabelName  = 63
	maxLabelValue = 256
)

func checkLabels(object string, labels map[string]string) *Error {
	if len(labels) > maxLabels {
		return invalid("labels", object, fmt.Sprintf("keep at most %d", maxLabels), "%d labels are too many", len(labels))
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabelName || len(v) > maxLabelValue {
			return invalid("labels", object, fmt.Sprintf("names have 1 to %d bytes, values at most %d", maxLabelName, maxLabelValue), "label %q is too long or has no name", clip(k))
		}
	}
	return nil
}

// iqnPrefix is the naming authority: the project's domain, from a month in
// which it was ours (RFC 7143 section 4.2.7.4).
const iqnPrefix = "iqn.2026-11.io.ovgate:"

// makeIQN names a vDisk's target after its vPool and name; suffix (may be empty)
// makes it unique when two names become the same.
func makeIQN(vpool, vdisk, suffix string) string {
	s := iqnPrefix + iqnPart(vpool) + "-" + iqnPart(vdisk)
	if suffix != "" {
		s += "-" + suffix
	}
	return s
}

// iqnPart keeps what RFC 3722 allows in an iSCSI name.
func iqnPart(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' {
			return '-'
		}
		return r
	}, strings.ToLower(s))
}

// NAA is how hosts name the LUN of a vDisk: "naa." and 32 hexadecimal digits. The same for
// its whole life, on every portal.
func NAA(vdisk string) (string, error) {
	id, err := volume.ParseID(vdisk)
	if err != nil {
		return "", err
	}
	naa := makeNAA(id)
	return "naa." + hex.EncodeToString(naa[:]), nil
}

// makeNAA derives the NAA type 6 designator (SPC-4 7.8.6.6.5) from the vDisk id:
// type 6, a locally administered company id (02-6F-76), and the last 100 bits
// of the UUID, random but for two.
func makeNAA(id volume.ID) [16]byte {
	h := hex.EncodeToString(id[:])
	var naa [16]byte
	// 1 + 6 + 25 hexadecimal digits; both operands are fixed-length hex.
	if _, err := hex.Decode(naa[:], []byte("6026f76"+h[7:])); err != nil {
		panic("control: NAA designator: " + err.Error())
	}
	return naa
}
