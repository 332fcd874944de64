package observe

import "time"

// About says what a code of a cause stands for. README.md has the same as a table, which a
// test compares.
type About struct {
	Code  string
	Level Level // the worst that it comes with
	// Means is what is wrong, Remedy what to do; a cause says both with its object.
	Means, Remedy string
	// Within is the longest time from the fault until health tells it, as long as the node
	// itself works.
	Within time.Duration
}

// Times that causes take.
const (
	atOnce  = 2 * time.Second  // it is looked at with each look at health
	atUsage = 10 * time.Second // with each look at a backend's space, or a device
	aMinute = time.Minute
	aWhile  = 3 * time.Minute
)

// Catalogue is every code that health has, by name.
func Catalogue() []About {
	return []About{
		{"alba", Bad, "The object store's records cannot be read.", "Bring the registry back; the log says more.", atUsage},
		{"alba_filling", Warning, "The devices of the object store are 85 % full.", "Add devices, or delete vDisks.", aMinute},
		{"alba_full", Bad, "The devices of the object store are 95 % full.", "Add devices, or delete vDisks.", aMinute},
		{"alba_incomplete", Warning, "Objects have had fewer fragments than they should for an hour longer than auto_repair waits.", "See that enough devices work, in enough places, and have space.", 2 * time.Hour},
		{"alba_lost", Bad, "Objects cannot be read with the devices that work.", "Bring devices back.", aWhile},
		{"alba_node", Warning, "What is stored by default does not outlive a node.", "Claim devices on more nodes.", aMinute},
		{"alba_safety", Bad, "The loss of another device could lose objects.", "Bring devices back, or add some.", aWhile},
		{"alert_channel", Warning, "Alerts are not delivered to a channel.", "Test the channel, which tells what is wrong.", aMinute},
		{"audit_log", Warning, "Changes are not recorded in the audit log; they wait in memory.", "Free space on the data directory's disk, or check that disk.", atUsage},
		{"authority", Warning, "The cluster's certificate authority ends in less than 180 days.", "Plan its replacement.", atOnce},
		{"backend_away", Bad, "The backend of a vPool does not answer; writes go to the journal.", "Bring the backend back.", atUsage},
		{"backend_denied", Bad, "The store of a vPool refuses what ovgate has to do: write, read, list or delete.", "Let the backend's user do that at the store.", aMinute},
		{"backend_filling", Warning, "The backend of a vPool is 85 % full.", "Add space, or delete vDisks.", atUsage},
		{"backend_full", Bad, "The backend of a vPool is 95 % full.", "Add space, or delete vDisks.", atUsage},
		{"backend_slow", Warning, "Requests to the store of a vPool take 2 s or more on average.", "Look at the store and the network to it.", 2 * time.Minute},
		{"backend_store", Bad, "The store of a vPool failed so often that it is left alone for a while.", "Bring the store or the network back.", aMinute},
		{"certificate", Bad, "The server certificate ends in less than 30 days, 7 as an error.", "See that the node can write to tls in its data directory: it is renewed by itself.", atOnce},
		{"clock", Warning, "The wall clock jumped by a minute or more.", "Check the time service of the machine.", atOnce},
		{"clock_skew", Warning, "The clock of another node is 2 s or more apart from this one's.", "Check the time service of both machines.", aMinute},
		{"cloud_away", Warning, "A registered OpenStack cloud cannot be asked.", "Bring cloud or network back, or correct the registration.", 2 * time.Minute},
		{"cloud_backend_down", Warning, "Cinder does not hear of a backend of this ovgate.", "Look at cinder-volume on that host.", 2 * time.Minute},
		{"data_dir_filling", Warning, "The data directory's disk is 85 % full.", "Add space, or delete vDisks.", atOnce},
		{"data_dir_full", Bad, "The data directory's disk is 95 % full.", "Add space, or delete vDisks.", atOnce},
		{"data_dir_inodes", Warning, "The data directory's file system has 90 % of its inodes in use.", "Delete other programs' files there, or make a file system with more.", atUsage},
		{"datastore_job", Warning, "A job of a datastore of a vCenter does not get on.", "Its error names the host or virtual machine; `ovgate vsphere datastore show` tells more.", aMinute},
		{"disk_errors", Bad, "The kernel met errors of a file system that the node uses (ext4).", "Look at the kernel's log and SMART, replace the disk or check the file system.", atUsage},
		{"disk_read_only", Bad, "A file system that the node uses takes no writes.", "Look up why, check it, mount it again for writing.", atUsage},
		{"dtl_catchup", Warning, "The DTL of a vDisk catches up: its newest writes are on one node only.", "Wait.", atOnce},
		{"dtl_degraded", Warning, "The DTL of a vDisk is degraded: its newest writes are on one node only.", "Bring the other node back, or name another one.", aMinute},
		{"dtl_off", Warning, "The DTL of a vDisk is off although another node could mirror it.", "Switch it on.", atOnce},
		{"event_log", Warning, "Events are not recorded in their history; they wait in memory.", "Free space on the data directory's disk, or check that disk.", atUsage},
		{"job_failed", Warning, "The newest run of a scheduled job of a vDisk failed.", "Mend what it says, and run it.", atOnce},
		{"journal_filling", Warning, "The journal of a vDisk is 70 % full; its writes are slowed down.", "See that the backend takes data.", atOnce},
		{"journal_pool", Bad, "The journal cannot grow.", "Free space on the data directory's disk.", atOnce},
		{"map_not_written", Warning, "Pages of a vDisk's map cannot be written to the data directory.", "Make room there.", aMinute},
		{"metadata_restored", Warning, "Deletes of a vPool are off: the metadata were restored, and it was not compared with its backend yet.", "Wait; `ovgate metadata status` tells what is in the way.", aMinute},
		{"metrics_history", Warning, "The history of performance is not written; after a quarter of an hour it has gaps.", "Free space on the data directory's disk, or check that disk.", 6 * time.Minute},
		{"more", Bad, "There are more causes than are shown.", "Mend those that are shown.", atOnce},
		{"node_certificate", Bad, "The node's certificate for other nodes was not renewed.", "Look up why in the node's log, then restart ovgate.", atOnce},
		{"node_dead", Warning, "A node of the cluster does not answer.", "Bring it back, or remove it.", aMinute},
		{"open_files", Warning, "80 % of the files that the process may have open are open.", "Raise the limit, restart ovgate.", atUsage},
		{"osd", Warning, "A device of the object store does not work.", "Bring it back, or purge it.", aMinute},
		{"osd_disk", Warning, "The disk of a device says that it fails (SMART).", "Replace it.", aWhile},
		{"osd_full", Warning, "A device of the object store is full.", "Add devices, or delete vDisks.", aMinute},
		{"osd_hot", Warning, "The disk of a device has 60 degrees Celsius or more.", "See to its cooling.", aWhile},
		{"read_cache", Warning, "A directory of the read cache is not used.", "Check that disk.", atOnce},
		{"registry_alarm", Bad, "etcd has raised an alarm; with NOSPACE nothing can be changed.", "Compact and defragment it, or raise its quota, then disarm the alarm.", aMinute},
		{"registry_away", Bad, "The registry does not answer; what is shown may be old.", "Bring etcd back, or the network to it.", aMinute},
		{"registry_filling", Warning, "The database of a member of etcd has 75 % of the size at which it takes no change.", "Compact and defragment it, or raise its quota.", aMinute},
		{"registry_member", Warning, "A member of etcd does not answer.", "Bring it back, or replace it.", aMinute},
		{"session_lost", Warning, "An initiator stopped answering; its session was dropped within the last hour, and it has not come back.", "Look after that host and the network to it.", aMinute},
		{"session_unused", Warning, "An initiator has been signed in for ten minutes and sees no LUN.", "Give it a LUN, or log out at the host.", 11 * time.Minute},
		{"site_certificate", Bad, "The site's certificate for API and UI ends in less than 30 days, or what is in its files is not used.", "Put a new certificate and its key into the files that tls in the configuration names.", aWhile},
		{"snapshot_late", Warning, "A vDisk lacks its last three automatic snapshots.", "Look at its schedule, which tells why.", 4 * time.Hour},
		{"space_forecast", Bad, "A place is full within 7 days, or 1 as an error, if it goes on filling as in the last day.", "Add space before that.", 6 * time.Hour},
		{"syslog", Warning, "Events are not sent to the syslog server.", "Bring the server or the network to it back, or correct events.syslog in the configuration.", aMinute},
		{ThresholdCode, Bad, "A metric of some objects is above or below a threshold (`ovgate alert threshold`), for longer than that says.", "The cause names the objects, and what to look at.", atUsage},
		{"transfer_idle", Warning, "An import or export has moved nothing for an hour, and its client keeps it from ending.", "Let its client go on, or end it.", 61 * time.Minute},
		{"vdisk_closed", Bad, "A vDisk was closed by an error.", "See the node's log.", atOnce},
		{"vdisk_corrupt", Bad, "The state of a vDisk is damaged; it is offline.", "The reason names the place.", atOnce},
		{"vdisk_damaged", Bad, "Verification found damaged objects of a vDisk.", "Bring the objects back, or write the ranges anew.", atOnce},
		{"vdisk_degraded", Warning, "A vDisk writes to its journal only: the backend is away.", "Bring the backend back.", aMinute},
		{"vdisk_deleting", Warning, "The space of a deleted vDisk is not given back yet.", "Bring the backend back.", aMinute},
		{"vdisk_failed", Bad, "A vDisk takes no writes after a failure of its journal.", "Check that disk, then restart ovgate.", atOnce},
		{"vdisk_fenced", Bad, "A vDisk is served by something else, in a newer epoch.", "Stop the other opening, then restart ovgate here.", aMinute},
		{"vdisk_lost_tail", Bad, "Acknowledged writes of a vDisk are missing; it is offline.", "Bring back the journal, or accept the loss.", atOnce},
		{"vdisk_opening", Warning, "A vDisk is not open yet.", "It is tried again by itself; its reason tells why.", atOnce},
		{"vdisk_stalled", Bad, "A vDisk waits: its journal is full and the backend takes no data.", "Bring the backend back.", atOnce},
		{"vdisk_suspended", Bad, "A vDisk waits for the registry: the node may not serve it for now.", "Bring the registry back, or the network to it.", aMinute},
		{"vdisk_unknown", Warning, "The backend of a vPool has vDisks that the registry does not know.", "Recover the vPool, or leave them.", 2 * time.Hour},
		{"vdisk_waiting", Bad, "A vDisk is served by nobody.", "Start its node, or do without its newest writes.", aMinute},
		{"version_apart", Warning, "Nodes of the cluster run other versions.", "Upgrade those that are behind.", aMinute},
		{"vpool_deleting", Warning, "The delete of a vPool waits for its backend.", "Bring the backend back.", aMinute},
		{"vpool_offline", Bad, "A vPool is not attached, its vDisks are not open.", "Bring the backend back.", atUsage},
		{"write_disk", Bad, "A WRITE disk is not used.", "Replace or mount it, or give it up.", atOnce},
	}
}
