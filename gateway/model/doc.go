// Package model keeps the control plane's records on internal/kv: vPools, vDisks
// with their iSCSI target, shared targets, remote stores, users, tokens, browser sessions and the identity of
// the cluster. gateway/control and gateway/auth are its callers; nothing else
// writes below "model/".
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
//	model/user/NAME                   User
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
// It does not watch: one process owns a store on a single node. It holds no
// policy: what may follow what is decided in gateway/control.
package model
