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

// makeCommands writes the commands for a target. Names and addresses hold only
// letters, digits and ".:-[]"; of those, "[" needs quoting in a shell. Secrets and
// CHAP names may be anything printable. Without a user there is no CHAP.
func makeCommands(iqn string, lun int, portals []iscsi.Portal, creds Credentials) Commands {
	if len(portals) == 0 {
		return Commands{}
	}
	var c Commands
	login := ""
	if creds.User != "" {
		login = urlPart(creds.User) + "%" + urlPart(creds.Secret) + "@"
	}
	c.Libiscsi = fmt.Sprintf("iscsi://%s%s/%s/%d", login, portals[0].Address, iqn, lun)
	if creds.MutualUser != "" {
		c.Libiscsi += "?target_user=" + urlPart(creds.MutualUser) + "&target_password=" + urlPart(creds.MutualSecret)
	}
	var linux, windows []string
	esxi := []string{
		"esxcli iscsi software set --enabled=true",
		"HBA=$(esxcli iscsi adapter list | awk '/iscsi_vmk/{print $1; exit}')",
	}
	windows = append(windows, "Set-Service -Name MSiSCSI -StartupType Automatic", "Start-Service -Name MSiSCSI")
	if creds.MutualUser != "" {
		windows = append(windows, "Set-IscsiChapSecret -ChapSecret "+powershell(creds.MutualSecret))
	}
	for _, p := range portals {
		linux = append(linux, linuxCommands(iqn, p.Address, creds)...)
		esxi = append(esxi, esxiCommands(iqn, p.Address, creds)...)
		windows = append(windows, windowsCommands(iqn, p.Address, creds)...)
	}
	esxi = append(esxi, `esxcli storage core adapter rescan --adapter="$HBA"`)
	c.Iscsiadm, c.ESXi, c.Windows = strings.Join(linux, "\n"), strings.Join(esxi, "\n"), strings.Join(windows, "\n")
	return c
}

// plain holds what no shell and no URL changes.
const plain = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:-"

// shell quotes a word for a POSIX shell where it needs that.
func shell(s string) string {
	if strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// powershell quotes a word for PowerShell where it needs that.
func powershell(s string) string {
	if strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// urlPart escapes what has a meaning in a URL.
func urlPart(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(plain, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02x", s[i])
		}
	}
	return b.String()
}

func linuxCommands(iqn, portal string, creds Credentials) []string {
	node := fmt.Sprintf("iscsiadm -m node -T %s -p '%s'", iqn, portal)
	out := []string{node + " -o new"}
	var set [][2]string
	if creds.User != "" {
		set = [][2]string{{"authmethod", "CHAP"}, {"username", creds.User}, {"password", creds.Secret}}
	}
	if creds.MutualUser != "" {
		set = append(set, [2]string{"username_in", creds.MutualUser}, [2]string{"password_in", creds.MutualSecret})
	}
	for _, kv := range set {
		out = append(out, fmt.Sprintf("%s -o update -n node.session.auth.%s -v %s", node, kv[0], shell(kv[1])))
	}
	return append(out, node+" --login")
}

func esxiCommands(iqn, portal string, creds Credentials) []string {
	at := fmt.Sprintf(`--adapter="$HBA" --address='%s' --name=%s`, portal, iqn)
	out := []string{"esxcli iscsi adapter discovery statictarget add " + at}
	auth := func(direction, user, secret string) {
		if user != "" {
			out = append(out, fmt.Sprintf("esxcli iscsi adapter target portal auth chap set %s --direction=%s --level=required --authname=%s --secret=%s", at, direction, shell(user), shell(secret)))
		}
	}
	auth("uni", creds.User, creds.Secret)
	auth("mutual", creds.MutualUser, creds.MutualSecret)
	return out
}

func windowsCommands(iqn, portal string, creds Credentials) []string {
	host, port, err := net.SplitHostPort(portal)
	if err != nil {
		host, port = portal, "3260"
	}
	where := fmt.Sprintf("-TargetPortalAddress %s -TargetPortalPortNumber %s", host, port)
	connect := fmt.Sprintf("Connect-IscsiTarget -NodeAddress %s %s -IsPersistent $true", iqn, where)
	if creds.User != "" {
		method := "ONEWAYCHAP"
		if creds.MutualUser != "" {
			method = "MUTUALCHAP"
		}
		connect += fmt.Sprintf(" -AuthenticationType %s -ChapUsername %s -ChapSecret %s", method, powershell(creds.User), powershell(creds.Secret))
	}
	return []string{"New-IscsiTargetPortal " + where, connect}
}
