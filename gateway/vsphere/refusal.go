package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// refusedFor is how long it is told that a host's login was refused: hosts try again within
// seconds, and one that got in since is not refused any more.
const refusedFor = 5 * time.Minute

// refusals are the newest logins of hosts that this node refused, by iSCSI name. There are only
// those of hosts that were admitted to targets of datastores.
type refusals struct {
	mu   sync.Mutex
	list map[string]refusal
}

type refusal struct {
	at  time.Time
	why string
}

// LoginRefused hears of a login that this node refused. Who asks names itself: only hosts of ours
// are kept.
func (m *Manager) LoginRefused(initiator, reason string) {
	name := strings.ToLower(initiator)
	if !m.host(name) {
		return
	}
	m.refusals.mu.Lock()
	defer m.refusals.mu.Unlock()
	if m.refusals.list == nil {
		m.refusals.list = map[string]refusal{}
	}
	m.refusals.list[name] = refusal{m.clock.Now(), reason}
}

// host tells whether a cluster's target admits an initiator.
func (m *Manager) host(name string) bool {
	for _, c := range m.model.Centers() {
		for _, cl := range c.Clusters {
			t, err := m.ctl.FindTarget(targetName(c, cl.ID))
			if err != nil {
				continue
			}
			if g := t.Access.Group(hostGroup); g != nil && slices.Contains(g.Initiators, name) {
				return true
			}
		}
	}
	return false
}

// refusedLogin tells why this node refused the newest login of a host, if that was not long ago.
func (m *Manager) refusedLogin(initiator string) string {
	m.refusals.mu.Lock()
	defer m.refusals.mu.Unlock()
	r, ok := m.refusals.list[strings.ToLower(initiator)]
	if !ok || m.clock.Now().Sub(r.at) > refusedFor {
		return ""
	}
	why := r.why
	if _, plain, ok := strings.Cut(why, "iscsi: "); ok {
		why = plain // without status and package
	}
	return fmt.Sprintf("its login was refused at %s: %s", r.at.UTC().Format(time.RFC3339), why)
}
