// Command registry is upstream's registry (github.com/distribution/distribution) with the file system as its only
// storage: those of the clouds are most of what its own main package compiles.
package main

import (
	_ "net/http/pprof"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	registry.RootCmd.Execute() //nolint:errcheck // it prints its errors and exits
}
