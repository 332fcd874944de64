package layout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const gib = 1 << 30

// blank is a disk with nothing on it.
func blank(name string, ssd bool, size int64) Disk {
	return Disk{Name: name, Path: "/dev/" + name, Serial: "S-" + name, Size: size * gib, SSD: ssd, Blank: true, Holds: "nothing"}
}

// mounted is a disk with an empty file system to which the node may write.
func mounted(name string, ssd bool, size int64) Disk {
	d := blank(name, ssd, size)
	d.Blank, d.Holds, d.Mount, d.Room, d.Writable = false, "xfs, mounted on /mnt/"+name, "/mnt/"+name, size*gib, true
	return d
}

// rolesOf writes down what a plan says, a word for each disk.
func rolesOf(p Plan) string {
	var out []string
	for _, r := range p.Rows {
		var roles []string
		for _, role := range r.Roles {
			roles = append(roles, string(role))
		}
		out = append(out, fmt.Sprintf("%s=%s:%s", r.Name, strings.Join(roles, "+"), r.State))
	}
	return strings.Join(out, " ")
}

func TestPropose(t *testing.T) {
	system := Disk{Name: "sda", SSD: true, Size: 100 * gib, Holds: "gpt, mounted on /", System: true}
	inUse := func(name string, ssd bool, roles ...Role) Disk {
		d := mounted(name, ssd, 100)
		d.Has = roles
		return d
	}
	alone := Node{User: "ovgate", Nodes: 1}
	for name, c := range map[string]struct {
		node   Node
		disks  []Disk
		choice map[string][]Role
		want   string
		note   string // is in one of the notes
	}{
		"no disk":                          {alone, nil, nil, "", "no device yet"},
		"the system's alone":               {alone, []Disk{system}, nil, "sda=:kept", "no device yet"},
		"one SSD beside it":                {alone, []Disk{system, blank("sdb", true, 100)}, nil, "sda=:kept sdb=write+read:prepare", "no device yet"},
		"one SSD of one of several nodes":  {Node{User: "ovgate", Nodes: 3}, []Disk{blank("sdb", true, 100)}, nil, "sdb=alba:prepare", "keeps nothing twice"},
		"one hard disk":                    {alone, []Disk{blank("sdb", false, 100)}, nil, "sdb=alba:prepare", "keeps nothing twice"},
		"two SSDs hold objects":            {alone, []Disk{blank("sdb", true, 100), blank("sdc", true, 100)}, nil, "sdb=alba:prepare sdc=alba:prepare", "Journals stay in the data directory"},
		"of three SSDs the smallest":       {alone, []Disk{blank("sdb", true, 200), blank("sdc", true, 100), blank("sdd", true, 200)}, nil, "sdb=alba:prepare sdc=write+read:prepare sdd=alba:prepare", ""},
		"SSD before hard disk":             {alone, []Disk{blank("sdb", false, 100), blank("sdc", false, 100), blank("nvme0n1", true, 400)}, nil, "nvme0n1=write+read:prepare sdb=alba:prepare sdc=alba:prepare", ""},
		"two SSDs for journals, not three": {alone, []Disk{blank("sdb", false, 100), blank("sdc", true, 95), blank("sdd", true, 90), blank("sde", true, 80), blank("sdf", true, 70)}, nil, "sdb=alba:prepare sdc=alba:prepare sdd=alba:prepare sde=write+read:prepare sdf=write+read:prepare", ""},
		"journals have their disk": {
			Node{User: "ovgate", Nodes: 1, WriteDisks: []Dir{{"/mnt/sdb/write", gib}}, Devices: 1}, []Disk{inUse("sdb", true, Write, Read), blank("sdc", true, 100), inUse("sdd", false, Alba)}, nil,
			"sdb=write+read:inUse sdc=alba:prepare sdd=alba:inUse", "",
		},
		"what holds something is kept": {
			alone, []Disk{{Name: "sdb", Size: 100 * gib, Holds: "gpt with 3 partitions"}, {Name: "sdc", Size: 100 * gib, Holds: "LVM2_member, part of dm-0"}, {Name: "sdd", Size: 100 * gib, Holds: "xfs"}, {Name: "sde", Size: 100 * gib, Holds: "it does not answer"}}, nil,
			"sdb=:kept sdc=:kept sdd=:kept sde=:kept", "",
		},
		"what is mounted and empty is claimed": {alone, []Disk{mounted("sdb", false, 100), mounted("sdc", false, 100)}, nil, "sdb=alba:ready sdc=alba:ready", ""},
		"too small":                            {alone, []Disk{{Name: "sdb", Size: gib / 2, Blank: true}, {Name: "sdc", Size: 100 * gib, Mount: "/mnt/sdc", Room: gib / 2}}, nil, "sdb=:kept sdc=:kept", ""},
		"chosen": {
			alone, []Disk{blank("sdb", false, 100), blank("sdc", true, 100), mounted("sdd", true, 100)}, map[string][]Role{"sdb": {Write}, "sdc": {}, "sdd": {Alba}},
			"sdb=write:prepare sdc=:unused sdd=alba:ready", "keeps nothing twice",
		},
		"chosen, and in use by now":                {alone, []Disk{inUse("sdb", false, Alba)}, map[string][]Role{"sdb": {Alba}}, "sdb=alba:inUse", ""},
		"journals chosen elsewhere leave the SSDs": {alone, []Disk{blank("sdb", false, 100), blank("sdc", true, 100), blank("sdd", false, 100)}, map[string][]Role{"sdb": {Write}}, "sdb=write:prepare sdc=alba:prepare sdd=alba:prepare", ""},
	} {
		p, err := Propose(c.node, c.disks, c.choice)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := rolesOf(p); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if c.note != "" && !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, c.note) }) {
			t.Errorf("%s: notes %q lack %q", name, p.Notes, c.note)
		}
		for _, r := range p.Rows {
			if r.Reason == "" {
				t.Errorf("%s: disk %s without a reason", name, r.Name)
			}
		}
	}
}

// TestOrder: what is proposed does not depend on the order of the disks, and leaves what it is given as it is.
func TestOrder(t *testing.T) {
	disks := []Disk{blank("sdd", true, 200), blank("sdb", false, 200), blank("sdc", true, 100)}
	first, err := Propose(Node{Nodes: 1}, disks, nil)
	if err != nil || disks[0].Name != "sdd" {
		t.Fatalf("%v, disks %v", err, disks)
	}
	slices.Reverse(disks)
	again, err := Propose(Node{Nodes: 1}, disks, nil)
	if err != nil || rolesOf(first) != rolesOf(again) || first.Commands != again.Commands {
		t.Errorf("%s, then %s: %v", rolesOf(first), rolesOf(again), err)
	}
}

// TestSteps is what there is to do: lines of the configuration keep what is in it, and commands make no file system on what
// has one.
func TestSteps(t *testing.T) {
	sdb, sdc, sdd := blank("sdb", true, 100), mounted("sdc", true, 100), mounted("sdd", false, 100)
	sdb.Link, sdb.Serial = "/dev/disk/by-id/it's", "WD 1/2"
	sdc.Dirs, sdd.Writable = []Role{Read}, false
	p, err := Propose(Node{User: "ovgate", Nodes: 1, ReadCache: []Dir{{"/var/cache", gib}}}, []Disk{sdb, sdc, sdd}, map[string][]Role{"sdb": {Write, Read}, "sdc": {Read}, "sdd": {Alba}})
	if err != nil {
		t.Fatal(err)
	}
	const config = `write_disks:
  - {dir: "/srv/ovgate/WD_1_2/write", bytes: 26306674688}
read_cache:
  - {dir: "/var/cache", bytes: 1073741824}
  - {dir: "/srv/ovgate/WD_1_2/read", bytes: 68396515328}
  - {dir: "/mnt/sdc/read", bytes: 96636764160}
`
	if p.Config != config {
		t.Errorf("configuration:\n%s\nwant:\n%s", p.Config, config)
	}
	const commands = `mkfs.xfs '/dev/disk/by-id/it'\''s' && mkdir -p /srv/ovgate/WD_1_2 && echo '/dev/disk/by-id/it'\''s /srv/ovgate/WD_1_2 xfs noatime,nofail 0 2' >>/etc/fstab && mount /srv/ovgate/WD_1_2 && install -d -o ovgate -m 0700 /srv/ovgate/WD_1_2/write /srv/ovgate/WD_1_2/read
install -d -o ovgate -m 0700 /mnt/sdd/ovgate
`
	if p.Commands != commands {
		t.Errorf("commands:\n%s\nwant:\n%s", p.Commands, commands)
	}
	if got, want := rolesOf(p), "sdb=write+read:prepare sdc=read:configure sdd=alba:prepare"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRefusedChoice(t *testing.T) {
	disks := []Disk{blank("sdb", true, 100), {Name: "sdc", Size: 100 * gib, Holds: "ext4"}, {Name: "sdd", Size: 100 * gib, Blank: true, System: true}, {Name: "sde", Size: gib, Has: []Role{Alba}}}
	plain, err := Propose(Node{Nodes: 1}, disks, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		disk  string
		roles []Role
		want  string
	}{
		{"sdz", []Role{Alba}, "no disk of that name"}, {"sdc", []Role{Alba}, "ext4"}, {"sdd", []Role{Write}, "the machine's system"}, {"sde", nil, "in use"},
	} {
		p, err := Propose(Node{Nodes: 1}, disks, map[string][]Role{c.disk: c.roles})
		if err != nil || len(p.Refused) != 1 || !errors.Is(p.Refused[0], ErrChoice) || !strings.Contains(p.Refused[0].Error(), c.want) || !strings.Contains(p.Notes[0], c.want) {
			t.Errorf("%s for %v: %v, refused %v, notes %q, want it to say %q", c.disk, c.roles, err, p.Refused, p.Notes, c.want)
		}
		if rolesOf(p) != rolesOf(plain) {
			t.Errorf("%s for %v: %s, want %s", c.disk, c.roles, rolesOf(p), rolesOf(plain))
		}
	}
	for _, roles := range [][]Role{{Write, Alba}, {DB}, {Read, Write}, {"fast"}} {
		if _, err := Propose(Node{Nodes: 1}, disks, map[string][]Role{"sdb": roles}); !errors.Is(err, ErrChoice) || !strings.Contains(err.Error(), "use write, read") {
			t.Errorf("%v: %v", roles, err)
		}
	}
}
