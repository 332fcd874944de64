package model

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkPage is the first page of 10,000 vDisks.
func BenchmarkPage(b *testing.B) {
	rows := make([]VDisk, 10_000)
	for i := range rows {
		n := rand.IntN(1 << 30)
		rows[i] = VDisk{ID: fmt.Sprintf("%032x", n), Name: fmt.Sprintf("web-%08d", n)}
	}
	for b.Loop() {
		if got, _, err := Page(rows, func(v VDisk) Keys { return Keys{Text: v.Name, ID: v.ID} }, "name", false, "", 100); err != nil || len(got) != 100 {
			b.Fatal(err)
		}
	}
}
