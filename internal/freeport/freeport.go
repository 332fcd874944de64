// Package freeport finds ports for the servers of tests, drills and benches that are started
// more than once on one address.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
)

// Ports are below those that Linux gives to connections and to listeners that ask for any
// (32768 and above, unless configured): while a server is stopped, nothing takes its port by
// chance. The peers of scripts/peers have those from 20,000.
const lowest, highest = 10_000, 19_999

// Address returns HOST:PORT of the loopback interface where nobody listens.
func Address() (string, error) {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(highest-lowest+1))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return address, l.Close()
	}
	return "", fmt.Errorf("no port from %d to %d is free", lowest, highest)
}
