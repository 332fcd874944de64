package observe

// CloudCheck is a registered OpenStack cloud.
type CloudCheck struct {
	Name string
	Err  string   // why it does not answer; empty: it does
	Down []string // backends of this ovgate whose cinder-volume is down, HOST@SECTION
}

// check warns only: volumes that are in use go on without Cinder.
func (c CloudCheck) check(add addCause) {
	object := "openstack cloud " + c.Name
	if c.Err != "" {
		add(Warning, "cloud_away", object, "bring cloud or network back, or correct it; ovgate openstack cloud test "+c.Name+" tells more", "OpenStack cloud %s cannot be asked: %s", c.Name, c.Err)
	}
	for _, host := range c.Down {
		add(Warning, "cloud_backend_down", object, "look at cinder-volume and its log on that host; volumes in use go on", "Cinder of OpenStack cloud %s does not hear of backend %s", c.Name, host)
	}
}
