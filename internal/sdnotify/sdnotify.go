// Package sdnotify tells systemd the state of a service. `ovgate serve` and
// `ovgate asd` call it when they are ready, while they work, and when they stop.
package sdnotify

import (
	"net"
	"os"
	"strings"
)

// Send tells systemd a state such as "READY=1", when it asked for it
// (sd_notify(3)). A supervisor that cannot be reached is no reason to fail.
func Send(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state)) // nobody to tell
}
