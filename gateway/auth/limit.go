package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Sign-in attempts: loginBurst at once, then one per loginEvery, counted per
// user name and per address. Ten in a row forgive typing errors; 700 a day are
// no use against a 10-character password.
const (
	loginBurst = 10
	loginEvery = 2 * time.Minute
	// limiterMax bounds the remembered keys; when it is reached the ones that
	// have recovered go, and if none has, every new key is refused.
	limiterMax = 10_000
)

// limiter is a set of token buckets. A failed attempt costs a token, a
// successful one gives it back.
type limiter struct {
	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	level float64 // tokens spent
	at    time.Time
}

// addrKey is the key of an address. A host has a whole IPv6 network of 64 bits to
// come from.
func addrKey(addr string) string {
	if a, err := netip.ParseAddr(addr); err == nil && a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			addr = p.String()
		}
	}
	return "addr/" + addr
}

func newLimiter() *limiter { return &limiter{buckets: map[string]bucket{}} }

// take spends a token of every key, or none and returns how long to wait.
func (l *limiter) take(now time.Time, keys ...string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buckets)+len(keys) > limiterMax {
		l.sweep(now)
		if len(l.buckets)+len(keys) > limiterMax {
			return loginEvery
		}
	}
	for _, k := range keys {
		if lv := l.buckets[k].levelAt(now); lv > loginBurst-1 {
			return time.Duration((lv - loginBurst + 1) * float64(loginEvery))
		}
	}
	for _, k := range keys {
		l.buckets[k] = bucket{l.buckets[k].levelAt(now) + 1, now}
	}
	return 0
}

// giveBack returns the token of each key.
func (l *limiter) giveBack(now time.Time, keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		l.buckets[k] = bucket{max(0, l.buckets[k].levelAt(now)-1), now}
	}
}

func (l *limiter) sweep(now time.Time) {
	for k, b := range l.buckets {
		if b.levelAt(now) == 0 {
			delete(l.buckets, k)
		}
	}
}

func (b bucket) levelAt(now time.Time) float64 {
	return max(0, b.level-float64(now.Sub(b.at))/float64(loginEvery))
}
