package control

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// cloudEvery is how often registered clouds are asked about the backends of this ovgate:
// Cinder itself counts a service as down a minute after it was last heard of.
const cloudEvery = time.Minute

// CloudState is what the newest look at a registered cloud found.
type CloudState struct {
	Cloud string   // name
	Err   string   // why it was not told; empty: the cloud answered
	Down  []string // backends of this ovgate, HOST@SECTION, that are enabled and down
}

// CloudStates returns what is known of the registered clouds, by name. One that was not
// asked yet is not among them.
func (c *Controller) CloudStates() []CloudState {
	clouds := c.model.Clouds()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []CloudState
	for _, rec := range clouds {
		if s, ok := c.clouds[rec.ID]; ok {
			s.Cloud = rec.Name
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b CloudState) int { return cmp.Compare(a.Cloud, b.Cloud) })
	return out
}

// watchClouds looks at the clouds now and then, until Stop.
func (c *Controller) watchClouds() { c.every(cloudEvery, cloudEvery, c.lookAtClouds) }

// lookAtClouds asks one after the other, so that a node with many is no burden to them.
func (c *Controller) lookAtClouds() {
	clouds := c.model.Clouds()
	for _, rec := range clouds {
		s, ok := c.lookAtCloud(rec)
		if !ok {
			return // the node stops
		}
		c.mu.Lock()
		switch was := c.clouds[rec.ID].Err; {
		case was == "" && s.Err != "":
			c.log.Warn("OpenStack cloud does not answer", "cloud", rec.Name, "err", s.Err)
			c.tell(event.CloudAway, cloudObject(rec.Name), "reason", s.Err)
		case was != "" && s.Err == "":
			c.tell(event.CloudBack, cloudObject(rec.Name))
		}
		c.clouds[rec.ID] = s
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.clouds {
		if !slices.ContainsFunc(clouds, func(r model.Cloud) bool { return r.ID == id }) {
			delete(c.clouds, id)
		}
	}
}

func (c *Controller) lookAtCloud(rec model.Cloud) (s CloudState, ok bool) {
	backends, err := c.CloudBackends(c.ctx, rec.ID)
	var e *Error
	switch {
	case c.ctx.Err() != nil:
		return s, false
	case errors.As(err, &e):
		s.Err = e.Message
	case err != nil:
		s.Err = err.Error()
	}
	for _, b := range backends {
		if b.Service && b.Enabled && !b.Up {
			s.Down = append(s.Down, b.Host)
		}
	}
	return s, true
}
