package preset

import "github.com/openvstorage/ovgate/alba/fragment"

// Compression is fragment.Compression by its name in records and messages.
type Compression struct{ fragment.Compression }

// MarshalText implements encoding.TextMarshaler.
func (c Compression) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Compression) UnmarshalText(b []byte) (err error) {
	c.Compression, err = fragment.ParseCompression(string(b))
	return err
}
