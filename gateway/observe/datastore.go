package observe

// DatastoreCheck is a datastore of a vCenter whose job does not get on.
type DatastoreCheck struct {
	Name      string
	Job, Step string
	Err       string // of its newest try
	Hint      string // what to do; empty: the job knows no better
}

// check warns only: what is on the datastore goes on.
func (c DatastoreCheck) check(add addCause) {
	hint := "it is tried again by itself; ovgate vsphere datastore show " + c.Name + " tells more"
	if c.Hint != "" {
		hint = c.Hint + "; " + hint
	}
	add(Warning, "datastore_job", "datastore "+c.Name, hint, "Job %s of datastore %s does not get on, step %s: %s", c.Job, c.Name, c.Step, c.Err)
}
