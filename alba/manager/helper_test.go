package manager_test

import "github.com/openvstorage/ovgate/alba/fragment"

// index describes a fragment of 64 bytes: of a chunk of one.
var index = func() fragment.Index {
	_, x, err := fragment.Pack(nil, fragment.ID{}, make([]byte, 64), fragment.None, fragment.Piece64K, nil)
	if err != nil {
		panic(err)
	}
	return x
}()
