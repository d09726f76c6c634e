// Command dockerfile reads a Dockerfile and a build context with BuildKit's own packages, and prints as JSON what it
// found: stages, instructions with expanded values, the commands of each RUN, the files of each COPY and ADD.
//
// What cannot be read is an "error" in the JSON, with its line; the exit status tells only whether there is JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// request is what stdin asks for.
type request struct {
	File    string            `json:"file"`    // the Dockerfile
	Context string            `json:"context"` // the build context, "" where nobody asks for files
	Args    map[string]string `json:"args"`    // build arguments
	Env     []string          `json:"env"`     // NAME=value of the base image
	Limit   int               `json:"limit"`   // a context may have so many files
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail(fmt.Errorf("reading the request: %w", err))
	}
	answer, err := read(asked)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "dockerfile: %v\n", err)
	os.Exit(1)
}
