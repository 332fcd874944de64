package observe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Level is how bad something is.
type Level string

// Levels.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Bad     Level = "error"
)

// Thresholds of the checks.
const (
	// journalWarn is where the engine begins to throttle, in percent of the quota.
	journalWarn = 70
	// spaceWarn and spaceBad are percent of a backend in use.
	spaceWarn, spaceBad = 85, 95
	// certWarn and certBad are the time left to a certificate.
	certWarn, certBad = 30 * 24 * time.Hour, 7 * 24 * time.Hour
	// clockWarn is a jump of the wall clock against the monotonic one that
	// makes time stamps of commits doubtful (rule E6).
	clockWarn = 60 * time.Second
	// MoreCauses is the code of the cause that counts those that are not shown.
	MoreCauses = "more"
	// maxCauses bounds what is reported; the rest is counted in a last cause.
	maxCauses = 50
)

// Cause is one thing that is wrong, as people read it.
type Cause struct {
	State  Level
	Code   string
	Text   string
	Object string // "vdisk demo"; empty: the node
	Hint   string
}

// Health is the state of the node: causes, the worst first.
type Health struct{ Causes []Cause }

// State is the worst level of the causes.
func (h Health) State() Level {
	s := OK
	for _, c := range h.Causes {
		if c.State == Bad {
			return Bad
		}
		s = Warning
	}
	return s
}

// Key changes when what is to be told changes.
func (h Health) Key() string {
	var b strings.Builder
	for _, c := range h.Causes {
		fmt.Fprintf(&b, "%s|%s|%s|%s\n", c.State, c.Code, c.Object, c.Text)
	}
	return b.String()
}

// DiskCheck is what is looked at of a vDisk.
type DiskCheck struct {
	Name          string
	State         volume.State
	Reason        string
	Open          bool
	Journal       int64 // bytes in use
	JournalQuota  int64
	BackendErrors uint64
	Damaged       int64  // objects on the backend, by the newest verification
	MapErr        string // why map pages are not written to the data directory
	// FailedJobs are those whose newest run failed.
	FailedJobs []FailedJob
	DTL        volume.DTLStats
	// Mirrorable: there is another node that takes copies of journals.
	Mirrorable bool
	// SnapshotLate is when it last had an automatic snapshot, if three of its schedule are
	// missing since; else zero.
	SnapshotLate time.Time
}

// FailedJob is a scheduled job of a vDisk whose newest run failed.
type FailedJob struct {
	Name, Why string
	At        time.Time
}

// PoolCheck is what is looked at of a vPool.
type PoolCheck struct {
	Name        string
	Attached    bool
	Deleting    bool
	Err         string
	Total, Free int64 // bytes of the backend; 0: unknown
	// DeletesOff: since the metadata were restored from a backup that was made then, for the
	// reason that is said (rule E7).
	DeletesOff bool
	BackupMade time.Time
	DeletesWhy string
	// Strangers are ids of vDisks on the backend that nobody knows.
	Strangers []string
}

// CertificateCheck is what is looked at of the site's certificate for API and UI.
type CertificateCheck struct {
	File string
	Used bool          // one is shown
	Left time.Duration // to its end
	Err  string        // why what is in the files now is not used
}

// Checks are everything that health is made of.
type Checks struct {
	Pools      []PoolCheck
	Disks      []DiskCheck   // of others nothing is wrong
	Journal    error         // why the node's journal cannot grow
	WriteDisks []error       // why WRITE disks are not used
	ReadCaches []error       // why directories of the read cache are not used
	CertLeft   time.Duration // to the end of the server certificate
	HasCert    bool
	CertErr    string            // why it cannot be renewed
	SiteCert   *CertificateCheck // nil: the configuration names none
	ClockJump  time.Duration     // of the wall clock since the last look
	LocalTotal int64             // of the data directory's disk
	LocalFree  int64
	Alba       *Alba    // nil: there is no object store
	Cluster    *Cluster // nil: the node is in none
	Registry   []RegistryMember
	Remotes    []RemoteCheck
	Clouds     []CloudCheck
	Datastores []DatastoreCheck // whose job does not get on
	Sessions   SessionsCheck
	Transfers  []TransferCheck
	Thresholds []ThresholdCheck // that are passed
	Audit      error            // why changes are not in the audit log yet
	Events     error            // why events are not in their history yet
	Syslog     *SyslogCheck     // nil: events are sent, or to no server
	History    error            // why the history of performance is not on the disk
	Machine    Machine
	// RegistryErr is why records of the registry are not followed; empty: they are.
	RegistryErr string
	// Full are the times until places are full (Forecast).
	Full map[Place]time.Duration
	// AlertChannels are those that do not take what they are told.
	AlertChannels []AlertChannelCheck
}

// SyslogCheck is a syslog server that events are not sent to.
type SyslogCheck struct {
	Server string // as the configuration names it
	Err    error
	Lost   int // events that found no room while they wait
}

// AlertChannelCheck is a channel that alerts are not delivered to.
type AlertChannelCheck struct {
	Name  string
	Since time.Time
	Err   error
}

// Evaluate names what is wrong.
func (c Checks) Evaluate() Health {
	var h Health
	add := func(s Level, code, object, hint, format string, a ...any) {
		h.Causes = append(h.Causes, Cause{s, code, fmt.Sprintf(format, a...), object, hint})
	}
	for _, p := range c.Pools {
		p.check(add)
	}
	for _, d := range c.Disks {
		d.check(add)
	}
	if c.Journal != nil {
		add(Bad, "journal_pool", "", "free space on the disk of the data directory", "The journal cannot grow: %v", c.Journal)
	}
	for _, err := range c.WriteDisks {
		add(Bad, "write_disk", "", "replace or mount that disk and restart ovgate, or give it up with lost_write_disks; vDisks whose writes are all on the backend go on without it", "A WRITE disk is not used: %v", err)
	}
	for _, err := range c.ReadCaches {
		add(Warning, "read_cache", "", "check that disk; reads go to the backend meanwhile", "Not used: %v", err)
	}
	if c.Alba != nil {
		c.Alba.check(add)
	}
	for _, r := range c.Remotes {
		r.check(add)
	}
	for _, x := range c.Clouds {
		x.check(add)
	}
	for _, x := range c.Datastores {
		x.check(add)
	}
	c.Sessions.check(add)
	for _, x := range c.Transfers {
		x.check(add)
	}
	for _, x := range c.Thresholds {
		x.check(add)
	}
	if c.Cluster != nil {
		c.Cluster.check(add)
	}
	checkRegistry(c.Registry, add)
	if why := cmp.Or(c.RegistryErr, NoneAnswers(c.Registry)); why != "" {
		add(Bad, "registry_away", "registry", "bring the registry (etcd) back, or the network to it; nothing can be changed until then", "The registry does not answer, what is shown may be old: %s", why)
	}
	c.Machine.check(add)
	checkForecast(c.Full, add)
	for _, a := range c.AlertChannels {
		add(Warning, "alert_channel", "alert channel "+a.Name, "ovgate alert channel test "+a.Name+" tells what is wrong; it is tried again by itself",
			"Alerts are not delivered to channel %s since %s: %v", a.Name, a.Since.UTC().Format(time.RFC3339), a.Err)
	}
	if c.Audit != nil {
		add(Warning, "audit_log", "", "free space on the disk of the data directory, or check that disk; what waits is written by itself", "Changes are not recorded in the audit log: %v", c.Audit)
	}
	if c.Events != nil {
		add(Warning, "event_log", "", "free space on the disk of the data directory, or check that disk; what waits is written by itself, nothing else suffers", "Events are not recorded: %v", c.Events)
	}
	if s := c.Syslog; s != nil {
		text := fmt.Sprintf("Events are not sent to %s: %v", s.Server, s.Err)
		if s.Lost > 0 {
			text += fmt.Sprintf("; %s were lost", plural(s.Lost, "event"))
		}
		add(Warning, "syslog", "", "bring the syslog server or the network to it back, or correct events.syslog in the configuration; it is tried again by itself", "%s", text)
	}
	if c.History != nil {
		add(Warning, "metrics_history", "", "free space on the disk of the data directory, or check that disk; it is tried again by itself, nothing else suffers", "The history of performance is not written: %v", c.History)
	}
	space(c.LocalTotal, c.LocalFree, "data_dir", "", "The data directory's disk", add)
	if c.HasCert && (c.CertLeft < certWarn || c.CertErr != "") {
		level, text := certificateEnds(c.CertLeft, "The server certificate")
		if c.CertErr != "" {
			text += ", and cannot be renewed: " + c.CertErr
		}
		add(level, "certificate", "", "see that the node can write to tls in its data directory; it is tried again every minute", "%s", text)
	}
	if s := c.SiteCert; s != nil && (!s.Used || s.Left < certWarn || s.Err != "") {
		level, text := Bad, "No certificate of the site is shown"
		if s.Used {
			level, text = certificateEnds(s.Left, "The site's certificate for API and UI")
		}
		if s.Err != "" {
			text += ", and what is in its files now is not used: " + s.Err
		}
		add(level, "site_certificate", s.File, "put a new certificate and its key into the files that tls in the configuration names; they are read within a minute", "%s", text)
	}
	if c.ClockJump.Abs() >= clockWarn {
		add(Warning, "clock", "", "check the time service of this machine", "The clock jumped by %s", c.ClockJump.Round(time.Second))
	}
	slices.SortStableFunc(h.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.State.rank(), a.State.rank()), cmp.Compare(a.Object, b.Object))
	})
	if n := len(h.Causes); n > maxCauses {
		h.Causes = h.Causes[:maxCauses]
		add(h.State(), "more", "", "", "%d more causes", n-maxCauses)
	}
	return h
}

// plural says how many there are of something.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func (l Level) rank() int {
	return map[Level]int{Warning: 1, Bad: 2}[l]
}

type addCause func(s Level, code, object, hint, format string, a ...any)

func (p PoolCheck) check(add addCause) {
	object := "vpool " + p.Name
	switch {
	case p.Deleting && p.Err != "":
		add(Warning, "vpool_deleting", object, "bring the backend back; the delete goes on by itself", "The delete of vPool %s waits: %s", p.Name, p.Err)
		return
	case p.Deleting:
		return
	case !p.Attached:
		add(Bad, "vpool_offline", object, "bring the backend back; it is tried again by itself", "vPool %s is offline: %s", p.Name, p.Err)
	case p.Err != "":
		add(Bad, "backend_away", object, "bring the backend back; writes go to the journal until it is full", "The backend of vPool %s does not answer: %s", p.Name, p.Err)
	}
	if p.DeletesOff {
		add(Warning, "metadata_restored", object, "wait until its vDisks were compared with the backend, which is tried again by itself; ovgate metadata status tells what is in the way, ovgate metadata accept does without it",
			"The metadata were restored from a backup of %s, and vPool %s deletes nothing until it was compared with its backend: %s", p.BackupMade.UTC().Format(time.RFC3339), p.Name, p.DeletesWhy)
	}
	if n := len(p.Strangers); n > 0 {
		add(Warning, "vdisk_unknown", object, "bring them back with ovgate vpool recover, with the vPool's backend, and delete those that are not wanted; what is no whole vDisk any more only takes space",
			"The backend of vPool %s has %s that the registry does not know: %s", p.Name, plural(n, "vDisk"), some(p.Strangers))
	}
	space(p.Total, p.Free, "backend", object, "The backend of vPool "+p.Name, add)
}

// some names the first of many.
func some(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// space judges how full a disk is.
func space(total, free int64, code, object, what string, add addCause) {
	if total <= 0 {
		return
	}
	used := 100 - int(float64(free)/float64(total)*100)
	switch {
	case used >= spaceBad:
		add(Bad, code+"_full", object, "add space, or delete vDisks", "%s is %d %% full", what, used)
	case used >= spaceWarn:
		add(Warning, code+"_filling", object, "add space, or delete vDisks", "%s is %d %% full", what, used)
	}
}

// stateChecks says what each state of a vDisk means to people.
var stateChecks = map[volume.State]struct {
	level      Level
	text, hint string // NAME in a hint stands for the vDisk's
}{
	volume.StateStalled:  {Bad, "waits: its journal is full and the backend takes no data", "bring the backend back; the vDisk continues by itself"},
	"waiting":            {Bad, "is served by nobody", "start its node, or do without its newest writes: ovgate vdisk steal NAME --accept-loss"},
	"suspended":          {Bad, "waits", "bring the registry (etcd) back, or the network to it; the vDisk continues by itself"},
	volume.StateDegraded: {Warning, "writes to its journal only: the backend is away", "bring the backend back"},
	volume.StateFailed:   {Bad, "takes no writes after a journal failure", "check the disk of the data directory, then restart ovgate"},
	volume.StateLostTail: {Bad, "is offline: acknowledged writes are missing", "bring back the journal of this node, or serve it without what it lost: ovgate vdisk accept-loss NAME"},
	volume.StateCorrupt:  {Bad, "is offline: its state is damaged", "the reason names the place"},
	volume.StateFenced:   {Bad, "is served elsewhere", "stop the other opening, then restart ovgate here"},
	volume.StateClosed:   {Bad, "is closed", "see the node's log"},
	"deleting":           {Warning, "is deleted, its space is not given back yet", "bring the backend back; it is tried again by itself"},
	"opening":            {Warning, "is not open yet", "it is tried again by itself"},
}

// Wrong tells whether something is wrong.
func (d DiskCheck) Wrong() (wrong bool) {
	d.check(func(Level, string, string, string, string, ...any) { wrong = true })
	return wrong
}

func (d DiskCheck) check(add addCause) {
	object := "vdisk " + d.Name
	if d.State == "deleting" && d.Reason == "" {
		return // it goes on
	}
	if s, ok := stateChecks[d.State]; ok {
		text := fmt.Sprintf("vDisk %s %s", d.Name, s.text)
		if d.Reason != "" {
			text += ": " + d.Reason
		}
		add(s.level, "vdisk_"+string(d.State), object, strings.ReplaceAll(s.hint, "NAME", d.Name), "%s", text)
	}
	if d.Damaged > 0 {
		add(Bad, "vdisk_damaged", object, "ovgate vdisk verify --last "+d.Name+" shows what is hit: bring those objects back from a copy, or write the ranges anew, then verify again",
			"%d objects of vDisk %s on its backend are damaged", d.Damaged, d.Name)
	}
	if d.MapErr != "" {
		add(Warning, "map_not_written", object, "make room on the data directory's disk; it is tried again by itself",
			"The map of vDisk %s stays in memory and a restart takes longer: %s", d.Name, d.MapErr)
	}
	if !d.SnapshotLate.IsZero() {
		add(Warning, "snapshot_late", object, "ovgate schedule show --vdisk "+d.Name+" tells why; if it is to have none: ovgate schedule set snapshot --off --vdisk "+d.Name,
			"vDisk %s has had no automatic snapshot since %s", d.Name, d.SnapshotLate.Format(time.RFC3339))
	}
	for _, j := range d.FailedJobs {
		add(Warning, "job_failed", object, "mend what it says; ovgate schedule run "+j.Name+" --vdisk "+d.Name+" tries it now, else it runs at its next time", "The %s job of vDisk %s failed at %s: %s", j.Name, d.Name, j.At.UTC().Format(time.RFC3339), j.Why)
	}
	d.checkDTL(add)
	if d.Open && d.JournalQuota > 0 && d.Journal*100 >= d.JournalQuota*journalWarn && d.State != volume.StateStalled {
		add(Warning, "journal_filling", object, "the backend is slower than the writes; writes are slowed down", "The journal of vDisk %s is %d %% full", d.Name, d.Journal*100/d.JournalQuota)
	}
}

// certificateEnds tells when.
func certificateEnds(left time.Duration, what string) (Level, string) {
	level := Warning
	if left < certBad {
		level = Bad
	}
	if left <= 0 {
		return level, what + " has ended"
	}
	return level, fmt.Sprintf("%s ends in %d days", what, int(left/(24*time.Hour)))
}
