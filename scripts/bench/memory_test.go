package main

import (
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

func TestMemoryStore(t *testing.T) {
	backendtest.Run(t, backendtest.Options{New: func(*testing.T) backend.Store { return newMemoryStore() }})
}
