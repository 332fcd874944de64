package remote

import (
	"crypto/rand"
	"net"

	"github.com/openvstorage/ovgate/internal/wire"
)

// Protocol of the connections, for peers that tests play.
var Protocol = protocol

// Types of frames.
const (
	TypeHello, TypeChallenge, TypeProof, TypeWelcome = typeHello, typeChallenge, typeProof, typeWelcome
	TypeInfo, TypeRead, TypeApply, TypeGet           = typeInfo, typeRead, typeApply, typeGet
	TypeReply, TypeFailure                           = typeReply, typeFailure
)

// Introduce is a client's side of a Plain handshake; limits are those of replies.
func Introduce(raw net.Conn, key []byte) (*wire.Conn, error) {
	w := wire.NewConn(raw, protocol, handshakeLimits)
	h := handshake{w: w, key: key, t: transcript{mode: modePlain}}
	_, err := h.introduce(rand.Reader)
	w.SetLimits(replyLimits)
	return w, err
}

// Greet is a server's side of a Plain handshake; limits are those of requests.
func Greet(raw net.Conn, key []byte, id string) (*wire.Conn, error) {
	w := wire.NewConn(raw, protocol, handshakeLimits)
	h := handshake{w: w, key: key, t: transcript{mode: modePlain}}
	if err := h.greet(rand.Reader); err != nil {
		return nil, err
	}
	w.SetLimits(requestLimits)
	return w, h.welcome(id)
}
