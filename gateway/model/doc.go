// Package model keeps the control plane's records on internal/kv: vPools, vDisks
// with their iSCSI target, shared targets, remote stores, OpenStack clouds, vCenters and
// datastores, nodes,
// users and their groups, OAuth2 clients, tokens, browser sessions and the identity of the cluster. gateway/control and
// gateway/auth are its callers; nothing else writes below "model/".
//
// # Layout
//
//	model/cluster                     Cluster
//	model/vpool/ID                    VPool      model/index/vpool/NAME        -> ID
//	model/vdisk/ID                    VDisk      model/index/vdisk/VPOOL/NAME  -> ID
//	                                             model/index/iqn/IQN           -> ID
//	                                             model/index/lun/TARGET/NUMBER -> ID
//	model/target/ID                   SharedTarget
//	                                             model/index/target/NAME       -> ID
//	                                             model/index/iqn/IQN           -> ID
//	model/backend/ID                  Remote     model/index/backend/NAME      -> ID
//	model/cloud/ID                    Cloud      model/index/cloud/NAME        -> ID
//	model/center/ID                   Center     model/index/center/NAME       -> ID
//	model/datastore/ID                Datastore  model/index/datastore/NAME    -> ID
//	model/node/ID                     Node       model/index/node/NAME         -> ID
//	model/schedule/OF                 Schedule   of "cluster", "vpool/ID" or "vdisk/ID"
//	model/runs/VDISK                  Runs
//	model/alerting/all                Alerting
//	model/thresholds/all              Thresholds
//	model/oidc/all                    OIDC
//	model/snapshotgroup/ID            SnapshotGroup
//	model/user/NAME                   User       model/index/external/HASH     -> NAME
//	model/usergroup/ID                UserGroup  model/index/usergroup/NAME    -> ID
//	model/client/ID                   Client
//	model/family/ID                   Family
//	model/token/ID                    Token      model/index/token/HASH        -> ID
//	model/session/HASH                Session
//	model/setup                       Setup
//	model/idempotency/HASH            Idempotency
//
// Every value is a JSON object with a "format" number. A record of a newer
// format than this code knows stops the start: the remedy is to upgrade ovgate.
// Older ones are read, and written in the newest format when they change.
//
// # Invariants
//
//	M1  A record and its index keys change in one transaction, so a name or an
//	    IQN belongs to at most one record, also after a crash.
//	M2  Every change compares the record's revision; a lost race is ErrConflict
//	    and changes nothing.
//	M3  Memory holds what was stored, never what was tried: rows are replaced
//	    after the transaction returned, and read back when its outcome is unknown.
//	M4  A vDisk is inserted in a transaction that compares its vPool's revision,
//	    and a vPool is marked "deleting" before it goes, so none is left without
//	    its vPool.
//	M5  Values handed out are copies.
//	M6  Of a shared target, a number belongs to one vDisk at most.
//	M7  A remote store stays while a vPool uses it.
//
//	M8  Memory follows what other nodes store (Follow): it never goes back to an
//	    older revision of a record, and reads of it may be old. Whoever decides
//	    from it is safe by M2.
//	M9  A node is deleted only after it was marked, which the creation of a vDisk for it,
//	    and giving it one, compare, and the registry was seen without one of its vDisks.
//
// It holds no policy: what may follow what is decided in gateway/control.
package model
