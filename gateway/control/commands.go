package control

import (
	"fmt"
	"net"
	"strings"

	"github.com/openvstorage/ovgate/iscsi"
)

// Commands are what to run on an initiator; one command a line.
type Commands struct {
	Libiscsi string // URL, also for qemu
	Iscsiadm string // Linux, open-iscsi
	ESXi     string // ESXi shell
	Windows  string // PowerShell
}

// makeCommands writes the commands for a target. Names, secrets and addresses
// hold only letters, digits and ".:-[]", so nothing needs quoting but "[", which
// shells take for a pattern.
func makeCommands(iqn string, lun int, portals []iscsi.Portal, user, secret string) Commands {
	if len(portals) == 0 {
		return Commands{}
	}
	var c Commands
	c.Libiscsi = fmt.Sprintf("iscsi://%s%%%s@%s/%s/%d", user, secret, portals[0].Address, iqn, lun)
	var linux, windows []string
	esxi := []string{
		"esxcli iscsi software set --enabled=true",
		"HBA=$(esxcli iscsi adapter list | awk '/iscsi_vmk/{print $1; exit}')",
	}
	windows = append(windows, "Set-Service -Name MSiSCSI -StartupType Automatic", "Start-Service -Name MSiSCSI")
	for _, p := range portals {
		linux = append(linux, linuxCommands(iqn, p.Address, user, secret)...)
		esxi = append(esxi, esxiCommands(iqn, p.Address, user, secret)...)
		windows = append(windows, windowsCommands(iqn, p.Address, user, secret)...)
	}
	esxi = append(esxi, `esxcli storage core adapter rescan --adapter="$HBA"`)
	c.Iscsiadm, c.ESXi, c.Windows = strings.Join(linux, "\n"), strings.Join(esxi, "\n"), strings.Join(windows, "\n")
	return c
}

func linuxCommands(iqn, portal, user, secret string) []string {
	node := fmt.Sprintf("iscsiadm -m node -T %s -p '%s'", iqn, portal)
	out := []string{node + " -o new"}
	for _, kv := range [][2]string{{"authmethod", "CHAP"}, {"username", user}, {"password", secret}} {
		out = append(out, fmt.Sprintf("%s -o update -n node.session.auth.%s -v %s", node, kv[0], kv[1]))
	}
	return append(out, node+" --login")
}

func esxiCommands(iqn, portal, user, secret string) []string {
	return []string{
		fmt.Sprintf(`esxcli iscsi adapter discovery statictarget add --adapter="$HBA" --address='%s' --name=%s`, portal, iqn),
		fmt.Sprintf(`esxcli iscsi adapter target portal auth chap set --adapter="$HBA" --address='%s' --name=%s --direction=uni --level=required --authname=%s --secret=%s`, portal, iqn, user, secret),
	}
}

func windowsCommands(iqn, portal, user, secret string) []string {
	host, port, err := net.SplitHostPort(portal)
	if err != nil {
		host, port = portal, "3260"
	}
	where := fmt.Sprintf("-TargetPortalAddress %s -TargetPortalPortNumber %s", host, port)
	return []string{
		"New-IscsiTargetPortal " + where,
		fmt.Sprintf("Connect-IscsiTarget -NodeAddress %s %s -IsPersistent $true -AuthenticationType ONEWAYCHAP -ChapUsername %s -ChapSecret %s", iqn, where, user, secret),
	}
}
