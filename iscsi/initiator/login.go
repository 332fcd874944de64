package initiator

import (
	"context"
	"crypto/md5" // RFC 7143 CHAP
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

var be = binary.BigEndian

const (
	bhsLen   = 48
	finalBit = 0x80
	noTag    = 0xffffffff
)

// Options say where to log in, as whom, and with which wishes. Zero values mean
// the defaults named.
type Options struct {
	Address   string // host:port
	Initiator string // "" is DefaultInitiator
	Target    string // "" with Discover
	ISID      [6]byte
	TSIH, CID uint16
	CmdSN     uint32 // of the first command; also the first ExpStatSN

	CHAPUser, CHAPSecret     string
	MutualUser, MutualSecret string // what the target must prove, if MutualUser is set
	CHAPAlgorithms           string // "" is "8,7,5": SHA3-256, SHA-256, MD5

	HeaderDigest, DataDigest bool // insist on CRC32C

	MaxRecvDataSegmentLength int  // 0 is 256 KiB
	MaxBurstLength           int  // 0 is 1 MiB
	FirstBurstLength         int  // 0 is 256 KiB
	NoImmediateData          bool // ImmediateData=No
	Unsolicited              bool // ask for InitialR2T=No
	// Keys are further keys for the operational stage; they replace ours.
	Keys map[string]string

	// DialFunc replaces net.Dialer.DialContext.
	DialFunc func(ctx context.Context, network, address string) (net.Conn, error)
	// Rand is where challenges come from; nil is crypto/rand.
	Rand io.Reader
}

// DefaultInitiator is the initiator name when Options has none.
const DefaultInitiator = "iqn.2026-01.org.openvstorage:initiator"

// LoginError is a login that the target refused, or sent to another Address.
type LoginError struct {
	Status  uint16 // class and detail, RFC 7143 section 11.13.5
	Address string
}

// Error names the status.
func (e *LoginError) Error() string {
	return fmt.Sprintf("initiator: login refused with status %04x", e.Status)
}

// Negotiated are the values of a session.
type Negotiated struct {
	HeaderDigest, DataDigest  bool
	MaxRecvTarget             int
	MaxBurst, FirstBurst      int
	InitialR2T, ImmediateData bool
}

type loginState struct {
	o         *Options
	c         net.Conn
	sn        uint32
	statSN    uint32
	tsih      uint16
	keys      map[string]string
	neg       Negotiated
	discovery bool
	maxSN     uint32
}

// request sends one login request and returns the status-checked answer's keys.
func (l *loginState) request(flags byte, kv [][2]string) (byte, map[string]string, error) {
	var text []byte
	for _, p := range kv {
		text = append(append(append(append(text, p[0]...), '='), p[1]...), 0)
	}
	b := make([]byte, bhsLen, bhsLen+len(text)+3)
	b[0], b[1] = 0x43, flags
	putLen(b, len(text))
	copy(b[8:], l.o.ISID[:])
	be.PutUint16(b[14:], l.tsih)
	be.PutUint16(b[20:], l.o.CID)
	be.PutUint32(b[24:], l.sn)
	be.PutUint32(b[28:], l.statSN)
	b = append(b, text...)
	b = append(b, make([]byte, -len(text)&3)...)
	if _, err := l.c.Write(b); err != nil {
		return 0, nil, err
	}
	var h [bhsLen]byte
	if _, err := io.ReadFull(l.c, h[:]); err != nil {
		return 0, nil, err
	}
	if h[0] != 0x23 {
		return 0, nil, fmt.Errorf("initiator: PDU %#02x in answer to a login request", h[0])
	}
	n := getLen(h[:])
	data := make([]byte, n+(-n&3))
	if _, err := io.ReadFull(l.c, data); err != nil {
		return 0, nil, err
	}
	if st := be.Uint16(h[36:]); st != 0 {
		e := &LoginError{Status: st}
		for _, s := range strings.Split(string(data[:n]), "\x00") {
			if a, ok := strings.CutPrefix(s, "TargetAddress="); ok {
				e.Address = a
			}
		}
		return 0, nil, e
	}
	l.statSN, l.maxSN = be.Uint32(h[24:])+1, be.Uint32(h[32:])
	l.tsih = be.Uint16(h[14:])
	if h[1]&0x40 != 0 {
		return 0, nil, errors.New("initiator: login answer in several PDUs")
	}
	answer := map[string]string{}
	for _, s := range strings.Split(string(data[:n]), "\x00") {
		if k, v, ok := strings.Cut(s, "="); ok {
			answer[k] = v
		}
	}
	return h[1], answer, nil
}

// run goes through the security and operational stages.
func (l *loginState) run() error {
	first := [][2]string{{"InitiatorName", l.o.Initiator}}
	if l.discovery {
		first = append(first, [2]string{"SessionType", "Discovery"})
	} else {
		first = append(first, [2]string{"SessionType", "Normal"}, [2]string{"TargetName", l.o.Target})
	}
	if l.o.CHAPUser == "" {
		_, a, err := l.request(0x81, append(first, [2]string{"AuthMethod", "None"}))
		if err != nil {
			return err
		}
		if a["AuthMethod"] != "None" {
			return fmt.Errorf("initiator: AuthMethod=%q", a["AuthMethod"])
		}
	} else if err := l.chap(first); err != nil {
		return err
	}
	return l.operational()
}

func (l *loginState) chap(first [][2]string) error {
	o := l.o
	_, a, err := l.request(0x00, append(first, [2]string{"AuthMethod", "CHAP"}))
	if err != nil {
		return err
	}
	if a["AuthMethod"] != "CHAP" {
		return fmt.Errorf("initiator: AuthMethod=%q", a["AuthMethod"])
	}
	_, a, err = l.request(0x00, [][2]string{{"CHAP_A", o.CHAPAlgorithms}})
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(a["CHAP_I"], 10, 8)
	if err != nil {
		return fmt.Errorf("initiator: CHAP_I: %w", err)
	}
	challenge, err := hex.DecodeString(strings.TrimPrefix(a["CHAP_C"], "0x"))
	if err != nil {
		return fmt.Errorf("initiator: CHAP_C: %w", err)
	}
	sum := chapSum(a["CHAP_A"], byte(id), o.CHAPSecret, challenge)
	kv := [][2]string{{"CHAP_N", o.CHAPUser}, {"CHAP_R", "0x" + hex.EncodeToString(sum)}}
	var mine [16]byte
	if o.MutualUser != "" {
		if _, err := io.ReadFull(o.Rand, mine[:]); err != nil {
			return err
		}
		kv = append(kv, [2]string{"CHAP_I", "77"}, [2]string{"CHAP_C", "0x" + hex.EncodeToString(mine[:])})
	}
	algorithm := a["CHAP_A"]
	_, a, err = l.request(0x81, kv)
	if err != nil || o.MutualUser == "" {
		return err
	}
	got, err := hex.DecodeString(strings.TrimPrefix(a["CHAP_R"], "0x"))
	want := chapSum(algorithm, 77, o.MutualSecret, mine[:])
	if err != nil || a["CHAP_N"] != o.MutualUser || subtle.ConstantTimeCompare(got, want) != 1 {
		return errors.New("initiator: the target did not prove its identity")
	}
	return nil
}

func chapSum(algorithm string, id byte, secret string, challenge []byte) []byte {
	b := append(append([]byte{id}, secret...), challenge...)
	switch algorithm {
	case "7":
		s := sha256.Sum256(b)
		return s[:]
	case "8":
		s := sha3.Sum256(b)
		return s[:]
	}
	s := md5.Sum(b)
	return s[:]
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

func digestWish(b bool) string {
	if b {
		return "CRC32C"
	}
	return "None"
}

func (l *loginState) operational() error {
	o := l.o
	kv := [][2]string{
		{"HeaderDigest", digestWish(o.HeaderDigest)},
		{"DataDigest", digestWish(o.DataDigest)},
		{"MaxRecvDataSegmentLength", strconv.Itoa(o.MaxRecvDataSegmentLength)},
		{"DefaultTime2Wait", "2"}, {"DefaultTime2Retain", "0"}, {"ErrorRecoveryLevel", "0"},
	}
	if !l.discovery {
		kv = append(kv, [][2]string{
			{"MaxBurstLength", strconv.Itoa(o.MaxBurstLength)},
			{"FirstBurstLength", strconv.Itoa(o.FirstBurstLength)},
			{"InitialR2T", yesNo(!o.Unsolicited)},
			{"ImmediateData", yesNo(!o.NoImmediateData)},
			{"MaxOutstandingR2T", "1"}, {"MaxConnections", "1"},
			{"DataPDUInOrder", "Yes"}, {"DataSequenceInOrder", "Yes"},
		}...)
	}
	for k, v := range o.Keys {
		replaced := false
		for i := range kv {
			if kv[i][0] == k {
				kv[i][1], replaced = v, true
			}
		}
		if !replaced {
			kv = append(kv, [2]string{k, v})
		}
	}
	flags, a, err := l.request(0x87, kv)
	if err != nil {
		return err
	}
	if flags&0x83 != 0x83 {
		return errors.New("initiator: the target does not enter full feature phase")
	}
	l.keys = a
	return l.adopt(a)
}

func (l *loginState) adopt(a map[string]string) error {
	n := Negotiated{MaxRecvTarget: 8192, MaxBurst: 262144, FirstBurst: 65536, InitialR2T: true, ImmediateData: true}
	num := func(k string, v *int) error {
		s, ok := a[k]
		if !ok || s == "Irrelevant" {
			return nil
		}
		x, err := strconv.Atoi(s)
		if err != nil || x < 512 {
			return fmt.Errorf("initiator: %s=%q", k, s)
		}
		*v = x
		return nil
	}
	n.HeaderDigest, n.DataDigest = a["HeaderDigest"] == "CRC32C", a["DataDigest"] == "CRC32C"
	n.InitialR2T, n.ImmediateData = a["InitialR2T"] != "No", a["ImmediateData"] != "No"
	l.neg = n
	return errors.Join(num("MaxRecvDataSegmentLength", &l.neg.MaxRecvTarget),
		num("MaxBurstLength", &l.neg.MaxBurst), num("FirstBurstLength", &l.neg.FirstBurst))
}

func (o *Options) defaults() error {
	if o.Initiator == "" {
		o.Initiator = DefaultInitiator
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.CmdSN == 0 {
		o.CmdSN = 1
	}
	if o.CHAPAlgorithms == "" {
		o.CHAPAlgorithms = "8,7,5"
	}
	if o.ISID == ([6]byte{}) {
		if _, err := io.ReadFull(o.Rand, o.ISID[1:]); err != nil {
			return err
		}
		o.ISID[0] = 0x80 // random format
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxRecvDataSegmentLength, 256<<10)
	def(&o.MaxBurstLength, 1<<20)
	def(&o.FirstBurstLength, 256<<10)
	if o.DialFunc == nil {
		var d net.Dialer
		o.DialFunc = d.DialContext
	}
	return nil
}

// connect dials and logs in; ctx bounds both.
func connect(ctx context.Context, o Options, discovery bool) (*loginState, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	c, err := o.DialFunc(ctx, "tcp", o.Address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	l := &loginState{o: &o, c: c, sn: o.CmdSN, statSN: o.CmdSN, tsih: o.TSIH, discovery: discovery}
	err = l.run()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("initiator: login to %s at %s: %w", o.Target, o.Address, err)
	}
	return l, nil
}

// Target is what discovery finds.
type Target struct {
	Name      string
	Addresses []string // "host:port,group"
}

// Discover asks for all targets in a discovery session.
func Discover(ctx context.Context, o Options) ([]Target, error) {
	l, err := connect(ctx, o, true)
	if err != nil {
		return nil, err
	}
	s := newSession(l)
	defer s.Close()
	text, err := s.Text(ctx, "SendTargets=All\x00")
	if err != nil {
		return nil, err
	}
	var out []Target
	for _, f := range strings.Split(text, "\x00") {
		k, v, _ := strings.Cut(f, "=")
		switch {
		case k == "TargetName":
			out = append(out, Target{Name: v})
		case k == "TargetAddress" && len(out) > 0:
			t := &out[len(out)-1]
			t.Addresses = append(t.Addresses, v)
		}
	}
	return out, s.Logout(ctx)
}

func putLen(h []byte, n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }
func getLen(h []byte) int    { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
