package iscsi

import (
	"crypto/md5" // RFC 7143 section 12.1.3 makes CHAP with MD5 mandatory
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// CHAP algorithms (IANA PPP authentication algorithms), weakest first. SHA-1, 6,
// is left out: who has it has MD5 as well, and it proves no more.
const (
	chapMD5     = 5
	chapSHA256  = 7
	chapSHA3256 = 8
)

// challengeLen is the length of our challenges: the longest digest.
const challengeLen = sha256.Size

// maxChallenge bounds the initiator's challenge (RFC 7143 section 12.1.3).
const maxChallenge = 1024

// errAuth says no more, so that a peer cannot learn which part was wrong (I8).
var errAuth = errors.New("iscsi: authentication failed")

// chap is the target's side of one CHAP exchange: CHAP_A, then CHAP_I and
// CHAP_C, then the initiator's CHAP_N and CHAP_R, and with CHAP_I and CHAP_C of
// its own the target's CHAP_N and CHAP_R.
type chap struct {
	auths     []*Auth // of which the initiator proves one
	rnd       io.Reader
	algorithm int
	id        [1]byte
	challenge [challengeLen]byte
	done      bool
	proved    bool // what the initiator asked the target to prove
}

// step handles the CHAP keys of one login request. It adds the answer's keys.
func (c *chap) step(keys map[string]string, w *textWriter) error {
	switch {
	case c.algorithm == 0:
		return c.offer(keys["CHAP_A"], w)
	case !c.done:
		return c.verify(keys, w)
	}
	return errAuth
}

// offer chooses an algorithm and sends the challenge.
func (c *chap) offer(list string, w *textWriter) error {
	if len(list) > maxKey {
		return errAuth
	}
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err == nil && (n == chapMD5 || n == chapSHA256 || n == chapSHA3256) && n > c.algorithm {
			c.algorithm = n
		}
	}
	if c.algorithm == 0 {
		return fmt.Errorf("%w: no common CHAP algorithm in %q", errAuth, list)
	}
	if _, err := io.ReadFull(c.rnd, c.id[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.rnd, c.challenge[:]); err != nil {
		return err
	}
	w.add("CHAP_A", strconv.Itoa(c.algorithm))
	w.add("CHAP_I", strconv.Itoa(int(c.id[0])))
	w.add("CHAP_C", "0x"+hex.EncodeToString(c.challenge[:]))
	return nil
}

// verify checks the initiator's proof and gives ours if it asked.
func (c *chap) verify(keys map[string]string, w *textWriter) error {
	got, err := decodeBinary(keys["CHAP_R"], challengeLen)
	var auth *Auth
	for _, a := range c.auths {
		want := chapResponse(c.algorithm, c.id[0], a.Secret, c.challenge[:])
		ok := subtle.ConstantTimeCompare(got, want)
		ok &= subtle.ConstantTimeCompare([]byte(keys["CHAP_N"]), []byte(a.User))
		if ok == 1 {
			auth = a
		}
	}
	if err != nil || auth == nil {
		return errAuth
	}
	c.done = true
	idText, mutual := keys["CHAP_I"]
	if !mutual {
		return nil
	}
	if auth.MutualUser == "" {
		return fmt.Errorf("%w: the initiator asks for mutual CHAP, which the target has no secret for", errAuth)
	}
	id, err := strconv.ParseUint(idText, 0, 8)
	if err != nil {
		return errAuth
	}
	challenge, err := decodeBinary(keys["CHAP_C"], maxChallenge)
	if err != nil || len(challenge) == 0 {
		return errAuth
	}
	if subtle.ConstantTimeCompare(challenge, c.challenge[:]) == 1 {
		return fmt.Errorf("%w: the initiator sent our own challenge back", errAuth)
	}
	c.proved = true
	w.add("CHAP_N", auth.MutualUser)
	w.add("CHAP_R", "0x"+hex.EncodeToString(chapResponse(c.algorithm, byte(id), auth.MutualSecret, challenge)))
	return nil
}

// chapResponse computes H(id | secret | challenge) (RFC 1994 section 4.1).
func chapResponse(algorithm int, id byte, secret string, challenge []byte) []byte {
	b := make([]byte, 0, 1+len(secret)+len(challenge))
	b = append(b, id)
	b = append(b, secret...)
	b = append(b, challenge...)
	switch algorithm {
	case chapSHA256:
		s := sha256.Sum256(b)
		return s[:]
	case chapSHA3256:
		s := sha3.Sum256(b)
		return s[:]
	}
	s := md5.Sum(b)
	return s[:]
}

// decodeBinary decodes a 0x or 0b (base64) binary value of at most n bytes.
func decodeBinary(s string, n int) ([]byte, error) {
	if len(s) > 2+2*n || len(s) < 2 {
		return nil, errText
	}
	body := s[2:]
	var b []byte
	var err error
	switch s[:2] {
	case "0x", "0X":
		if len(body)%2 == 1 {
			body = "0" + body
		}
		b, err = hex.DecodeString(body)
	case "0b", "0B":
		b, err = base64.StdEncoding.DecodeString(body)
	default:
		err = errText
	}
	if err != nil || len(b) > n {
		return nil, errText
	}
	return b, nil
}
