package main

import (
	"errors"
	"fmt"
)

func runNode(string, []string) error {
	return errors.Join(fmt.Errorf("not built yet: waits for embedded/runtime"))
}
