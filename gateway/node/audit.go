package node

import (
	"fmt"
	"os"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/audit"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// Bounds of the audit log in the configuration.
const (
	minAuditBytes = 32 << 20
	maxAuditBytes = 64 << 30
	minAuditAge   = 24 * time.Hour
	maxAuditAge   = 20 * 365 * 24 * time.Hour
)

// openAudit opens the audit log. A node whose log cannot be written serves, and says so in
// its health.
func (n *node) openAudit() error {
	if err := os.MkdirAll(n.dir.file(auditDir), 0o700); err != nil {
		return unwritable(n.dir.path, err)
	}
	fs, err := blockfs.OS(n.dir.file(auditDir))
	if err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	n.audit = audit.Open(audit.Options{FS: fs, Log: n.log, MaxBytes: n.cfg.AuditBytes, MaxAge: n.cfg.AuditAge})
	n.onClose(n.audit.Close)
	return nil
}
