package event

// Code names a kind of event.
type Code string

// Codes, as Catalogue tells of them.
const (
	AlertFailed          Code = "alert.failed"
	AlertSent            Code = "alert.sent"
	BackendAway          Code = "backend.away"
	BackendBack          Code = "backend.back"
	BackendChanged       Code = "backend.changed"
	BackendForgotten     Code = "backend.forgotten"
	BackendRegistered    Code = "backend.registered"
	CenterChanged        Code = "center.changed"
	CenterForgotten      Code = "center.forgotten"
	CenterRegistered     Code = "center.registered"
	CertificateRenewed   Code = "certificate.renewed"
	ClockJumped          Code = "clock.jumped"
	CloudAway            Code = "cloud.away"
	CloudBack            Code = "cloud.back"
	CloudChanged         Code = "cloud.changed"
	CloudForgotten       Code = "cloud.forgotten"
	CloudRegistered      Code = "cloud.registered"
	DatastoreDone        Code = "datastore.done"
	DatastoreFailed      Code = "datastore.failed"
	DatastoreRemoved     Code = "datastore.removed"
	DTLDegraded          Code = "dtl.degraded"
	DTLSynced            Code = "dtl.synced"
	EventsLost           Code = "events.lost"
	HealthCleared        Code = "health.cleared"
	HealthError          Code = "health.error"
	HealthWarning        Code = "health.warning"
	LeaseBack            Code = "lease.back"
	LeaseLost            Code = "lease.lost"
	NodeAlive            Code = "node.alive"
	NodeAway             Code = "node.away"
	NodeDrained          Code = "node.drained"
	NodeJoined           Code = "node.joined"
	NodeLeft             Code = "node.left"
	NodeRemoved          Code = "node.removed"
	NodeStarted          Code = "node.started"
	NodeStopping         Code = "node.stopping"
	NodeUndrained        Code = "node.undrained"
	OSDBack              Code = "osd.back"
	OSDClaimed           Code = "osd.claimed"
	OSDDamaged           Code = "osd.damaged"
	OSDEmptied           Code = "osd.emptied"
	OSDEmptying          Code = "osd.emptying"
	OSDFailed            Code = "osd.failed"
	OSDIncomplete        Code = "osd.incomplete"
	OSDPurged            Code = "osd.purged"
	OSDUnused            Code = "osd.unused"
	RegistryAway         Code = "registry.away"
	RegistryBack         Code = "registry.back"
	ScheduleFailed       Code = "schedule.failed"
	ScrubDone            Code = "scrub.done"
	ScrubFailed          Code = "scrub.failed"
	SessionClosed        Code = "session.closed"
	SessionOpened        Code = "session.opened"
	SessionRefused       Code = "session.refused"
	SignInRefused        Code = "signin.refused"
	SnapshotCreated      Code = "snapshot.created"
	SnapshotDeleted      Code = "snapshot.deleted"
	StoreError           Code = "store.error"
	StoreKeyRotated      Code = "store.key_rotated"
	StoreObjectLost      Code = "store.object_lost"
	StoreOlder           Code = "store.older"
	StoreRecovered       Code = "store.recovered"
	TargetCreated        Code = "target.created"
	TargetDeleted        Code = "target.deleted"
	VDiskCloned          Code = "vdisk.cloned"
	VDiskCreated         Code = "vdisk.created"
	VDiskDamaged         Code = "vdisk.damaged"
	VDiskDegraded        Code = "vdisk.degraded"
	VDiskDeleted         Code = "vdisk.deleted"
	VDiskFailed          Code = "vdisk.failed"
	VDiskFenced          Code = "vdisk.fenced"
	VDiskFlattened       Code = "vdisk.flattened"
	VDiskFrozen          Code = "vdisk.frozen"
	VDiskHandedOver      Code = "vdisk.handed_over"
	VDiskHandoverFailed  Code = "vdisk.handover_failed"
	VDiskImported        Code = "vdisk.imported"
	VDiskJournalReplaced Code = "vdisk.journal_replaced"
	VDiskLossAccepted    Code = "vdisk.loss_accepted"
	VDiskLostTail        Code = "vdisk.lost_tail"
	VDiskMoveFailed      Code = "vdisk.move_failed"
	VDiskMoved           Code = "vdisk.moved"
	VDiskOnline          Code = "vdisk.online"
	VDiskPublished       Code = "vdisk.published"
	VDiskRenamed         Code = "vdisk.renamed"
	VDiskResized         Code = "vdisk.resized"
	VDiskRestored        Code = "vdisk.restored"
	VDiskRolledBack      Code = "vdisk.rolled_back"
	VDiskStalled         Code = "vdisk.stalled"
	VDiskStolen          Code = "vdisk.stolen"
	VDiskTakenOver       Code = "vdisk.taken_over"
	VDiskThawed          Code = "vdisk.thawed"
	VDiskTrashed         Code = "vdisk.trashed"
	VDiskUnpublished     Code = "vdisk.unpublished"
	VDiskVerified        Code = "vdisk.verified"
	VDiskVerifyFailed    Code = "vdisk.verify_failed"
	VPoolCreated         Code = "vpool.created"
	VPoolDeleted         Code = "vpool.deleted"
	VPoolOffline         Code = "vpool.offline"
	VPoolOnline          Code = "vpool.online"
	VPoolRecovered       Code = "vpool.recovered"
	VPoolRenamed         Code = "vpool.renamed"
)

// Severity is how much an event matters.
type Severity string

// Severities, the least first.
const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Severities are all of them, the least first.
var severities = []Severity{Info, Warning, Error}

// About says what a code stands for.
type About struct {
	Code     Code
	Severity Severity
	// Kind is what its objects are, as their names begin: "vdisk" of "vdisk demo"; empty: any.
	Kind string
	// Text is the sentence, with fields in braces; the object goes before it.
	Text string
	// Remedy is what to do; empty: nothing.
	Remedy string
}

// Catalogue is every code, sorted. README.md has the same as a table.
func Catalogue() []About {
	return []About{
		{AlertFailed, Warning, "alert channel", "A message was not delivered: {reason}", "See `ovgate alert channel test`; it is tried again by itself."},
		{AlertSent, Info, "alert channel", "Told: {subject}", ""},
		{BackendAway, Error, "vpool", "The backend does not answer: {reason}", "Bring the backend back; writes go to the journal until it is full."},
		{BackendBack, Info, "vpool", "The backend answers again", ""},
		{BackendChanged, Info, "backend", "Registration changed", ""},
		{BackendForgotten, Info, "backend", "Registration forgotten", ""},
		{BackendRegistered, Info, "backend", "Registered: {kind}", ""},
		{CenterChanged, Info, "vsphere center", "Registration changed", ""},
		{CenterForgotten, Info, "vsphere center", "Registration forgotten", ""},
		{CenterRegistered, Info, "vsphere center", "Registered: {url}", ""},
		{CertificateRenewed, Info, "node", "The certificate for {what} was renewed, it ends {ends}", ""},
		{ClockJumped, Warning, "node", "The clock jumped by {by}: no automatic snapshots are deleted for a day", "Check the time service of the machine."},
		{CloudAway, Warning, "openstack cloud", "It does not answer: {reason}", "Bring cloud or network back, or correct the registration."},
		{CloudBack, Info, "openstack cloud", "It answers again", ""},
		{CloudChanged, Info, "openstack cloud", "Registration changed", ""},
		{CloudForgotten, Info, "openstack cloud", "Registration forgotten", ""},
		{CloudRegistered, Info, "openstack cloud", "Registered: {url}", ""},
		{DatastoreDone, Info, "datastore", "Job {job} done, after {took}", ""},
		{DatastoreFailed, Warning, "datastore", "Job {job} is tried again at step {step}: {reason}", "Look at the datastore, which tells what to do."},
		{DatastoreRemoved, Info, "datastore", "Removed", ""},
		{DTLDegraded, Warning, "vdisk", "Its journal has no copy on another node: {reason}", "Bring the other node back, or name another one."},
		{DTLSynced, Info, "vdisk", "The copy of its journal is complete, on node {node}", ""},
		{EventsLost, Warning, "node", "{count} events could not be written", "Free space on the data directory's disk, or check that disk."},
		{HealthCleared, Info, "", "Over: {text}", ""},
		{HealthError, Error, "", "{text}", "{hint}"},
		{HealthWarning, Warning, "", "{text}", "{hint}"},
		{LeaseBack, Info, "node", "The node may serve", ""},
		{LeaseLost, Error, "node", "The node may not serve: its lease is not renewed; operations wait", "Bring the registry back, or the network to it."},
		{NodeAlive, Info, "node", "It answers", ""},
		{NodeAway, Warning, "node", "It does not answer", "Bring it back; others take its vDisks over."},
		{NodeDrained, Info, "node", "Its vDisks go to other nodes", ""},
		{NodeJoined, Info, "node", "It joins the cluster", ""},
		{NodeLeft, Info, "node", "It said that it stops", ""},
		{NodeRemoved, Info, "node", "It is no member of the cluster any more", ""},
		{NodeStarted, Info, "node", "ovgate {version} serves", ""},
		{NodeStopping, Info, "node", "ovgate stops", ""},
		{NodeUndrained, Info, "node", "It takes vDisks again", ""},
		{OSDBack, Info, "osd", "{message}", ""},
		{OSDClaimed, Info, "osd", "{message}", ""},
		{OSDDamaged, Warning, "osd", "{message}", "Look at the disk's SMART; replace it if this goes on."},
		{OSDEmptied, Info, "osd", "{message}", ""},
		{OSDEmptying, Info, "osd", "{message}", ""},
		{OSDFailed, Error, "osd", "{message}", "Bring the device back, or purge it and claim another one."},
		{OSDIncomplete, Warning, "osd", "{message}", ""},
		{OSDPurged, Warning, "osd", "{message}", ""},
		{OSDUnused, Error, "osd", "{message}", "Mend what it says; the next start tries it again."},
		{RegistryAway, Error, "registry", "It does not answer, what is shown may be old: {reason}", "Bring etcd back, or the network to it."},
		{RegistryBack, Info, "registry", "It answers again", ""},
		{ScheduleFailed, Warning, "vdisk", "Scheduled job {job} failed: {reason}", "Mend what it says; it is tried again at its next time."},
		{ScrubDone, Info, "vdisk", "Scrubbed: {written} bytes written anew, {deleted} objects deleted", ""},
		{ScrubFailed, Warning, "vdisk", "The scrub failed: {reason}", "Repeat it."},
		{SessionClosed, Info, "target", "{initiator} signed out", ""},
		{SessionOpened, Info, "target", "{initiator} signed in from {address}", ""},
		{SessionRefused, Warning, "target", "{initiator} from {address} was refused: {reason}", "Compare the initiator's name and CHAP secret with the target's groups."},
		{SignInRefused, Warning, "node", "A sign-in from {address} was refused", ""},
		{SnapshotCreated, Info, "vdisk", "Snapshot {snapshot} made", ""},
		{SnapshotDeleted, Info, "vdisk", "Snapshot {snapshot} deleted", ""},
		{StoreError, Error, "object store", "{message}", "Look at `ovgate alba status`."},
		{StoreKeyRotated, Info, "object store", "{message}", ""},
		{StoreObjectLost, Error, "object store", "{message}", "Bring devices back."},
		{StoreOlder, Error, "object store", "{message}", "Restart nothing and delete nothing until the newer registry is back."},
		{StoreRecovered, Warning, "object store", "{message}", ""},
		{TargetCreated, Info, "target", "Made as {name}", ""},
		{TargetDeleted, Info, "target", "Deleted", ""},
		{VDiskCloned, Info, "vdisk", "Made as a clone, {bytes} bytes", ""},
		{VDiskCreated, Info, "vdisk", "Made, {bytes} bytes", ""},
		{VDiskDamaged, Error, "vdisk", "Verification found {objects} damaged objects on the backend", "Bring the objects back, or write the ranges anew."},
		{VDiskDegraded, Warning, "vdisk", "The backend is away: it writes to its journal only", "Bring the backend back."},
		{VDiskDeleted, Info, "vdisk", "Deleted", ""},
		{VDiskFailed, Error, "vdisk", "It takes no writes after a failure of its journal", "Check that disk, then restart ovgate."},
		{VDiskFenced, Error, "vdisk", "It is served by another opening; it is withdrawn here", "Stop the other opening, then restart ovgate here."},
		{VDiskFlattened, Info, "vdisk", "It shares nothing with its template or parent any more", ""},
		{VDiskFrozen, Info, "vdisk", "It is a template now", ""},
		{VDiskHandedOver, Info, "vdisk", "Handed over to node {node}, operations waited {waited}", ""},
		{VDiskHandoverFailed, Warning, "vdisk", "Its hand-over was given up: {reason}", "Mend what it says, and move it again."},
		{VDiskImported, Info, "vdisk", "Imported, {bytes} bytes", ""},
		{VDiskJournalReplaced, Warning, "vdisk", "It goes on with a journal on another WRITE disk: {reason}", "Replace the WRITE disk."},
		{VDiskLossAccepted, Warning, "vdisk", "The loss of acknowledged writes was accepted", ""},
		{VDiskLostTail, Error, "vdisk", "Acknowledged writes are missing, it is offline: {reason}", "Bring back the journal, or accept the loss."},
		{VDiskMoveFailed, Warning, "vdisk", "Its move was given up: {reason}", "Mend what it says, and move it again."},
		{VDiskMoved, Info, "vdisk", "Moved to vPool {vpool}", ""},
		{VDiskOnline, Info, "vdisk", "It takes writes to its backend again", ""},
		{VDiskPublished, Info, "vdisk", "Published as LUN {lun} of {target}", ""},
		{VDiskRenamed, Info, "vdisk", "Renamed from {before}", ""},
		{VDiskResized, Info, "vdisk", "Grown to {bytes} bytes", ""},
		{VDiskRestored, Info, "vdisk", "Taken out of the trash", ""},
		{VDiskRolledBack, Info, "vdisk", "Rolled back to {time}", ""},
		{VDiskStalled, Error, "vdisk", "It waits: its journal is full and the backend takes no data", "Bring the backend back."},
		{VDiskStolen, Warning, "vdisk", "Taken from node {node}, which does not run", ""},
		{VDiskTakenOver, Warning, "vdisk", "Taken over from node {node}, which is gone", ""},
		{VDiskThawed, Info, "vdisk", "It is no template any more", ""},
		{VDiskTrashed, Info, "vdisk", "In the trash", ""},
		{VDiskUnpublished, Info, "vdisk", "Not published any more as LUN {lun} of {target}", ""},
		{VDiskVerified, Info, "vdisk", "Verified: {bytes} bytes, all as they were written", ""},
		{VDiskVerifyFailed, Warning, "vdisk", "The verification was cut off: {reason}", "Repeat it."},
		{VPoolCreated, Info, "vpool", "Made on a backend of kind {kind}", ""},
		{VPoolDeleted, Info, "vpool", "Deleted", ""},
		{VPoolOffline, Error, "vpool", "It is not attached, its vDisks are not open: {reason}", "Bring the backend back."},
		{VPoolOnline, Info, "vpool", "It is attached again", ""},
		{VPoolRecovered, Info, "vpool", "Recovered from its backend, {vdisks} vDisks", ""},
		{VPoolRenamed, Info, "vpool", "Renamed from {before}", ""},
	}
}
