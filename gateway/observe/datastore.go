package observe

// DatastoreCheck is a datastore or an RDM disk at a vCenter whose job does not get on.
type DatastoreCheck struct {
	Name      string
	RDM       bool // it is a disk of a virtual machine
	Job, Step string
	Err       string // of its newest try
	Hint      string // what to do; empty: the job knows no better
}

// check warns only: what is on the datastore goes on.
func (c DatastoreCheck) check(add addCause) {
	what, show := "datastore "+c.Name, "datastore show "+c.Name
	if c.RDM {
		what, show = "rdm "+c.Name, "rdm list"
	}
	hint := "it is tried again by itself; ovgate vsphere " + show + " tells more"
	if c.Hint != "" {
		hint = c.Hint + "; " + hint
	}
	add(Warning, "datastore_job", what, hint, "Job %s of %s does not get on, step %s: %s", c.Job, what, c.Step, c.Err)
}
