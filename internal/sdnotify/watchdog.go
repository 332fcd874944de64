package sdnotify

import (
	"context"
	"os"
	"strconv"
	"time"
)

// pings are how many of them fall into the time after which systemd gives a service up.
const pings = 3

// Watchdog pings systemd's watchdog until ctx ends, where it asked for that
// (WatchdogSec=, sd_watchdog_enabled(3)). Before each ping it calls look, which
// returns once the service was found to work: while look does not return there are
// no pings, and systemd ends the service, with its stacks in the log, and starts it
// again. look may use nothing that others can keep busy or away, such as a
// listener, a backend or a registry: a restart mends none of these.
func Watchdog(ctx context.Context, look func()) {
	limit := watchdogTime()
	if limit == 0 {
		return
	}
	every := time.NewTicker(limit / pings)
	defer every.Stop()
	looked := make(chan struct{}, 1)
	for {
		go func() {
			look()
			looked <- struct{}{}
		}()
		select {
		case <-looked:
		case <-ctx.Done(): // what hangs does not keep a stop waiting
			return
		}
		Send("WATCHDOG=1")
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchdogTime returns after how long without a ping systemd gives this process up;
// 0: it does not look.
func watchdogTime() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < pings || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // another process of the service is meant
	}
	return time.Duration(usec) * time.Microsecond
}
