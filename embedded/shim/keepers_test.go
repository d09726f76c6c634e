package shim

import (
	"encoding/json"
	"testing"

	"labkit.dev/embedded/sockets"
)

// A program may have ended, and its keeper been waited for, before anybody has asked the keeper whether it runs.
func TestAProgramThatEndsAtOnceHasRun(t *testing.T) {
	k, err := newKept(&container{}, false)
	if err != nil {
		t.Fatal(err)
	}
	code := 3
	for _, said := range []sockets.Kept{{Pid: 12345, Started: 6}, {Code: &code}} {
		if err := json.NewEncoder(k.theirs).Encode(said); err != nil {
			t.Fatal(err)
		}
	}
	over := false
	k.endsWith(func(ended) { over = true })(ended{})
	main, err := k.begun(identity{}, nil)
	if err != nil || main.Pid != 12345 || !over {
		t.Fatalf("%v, %v, told of its end: %v", main, err, over)
	}
	if got, known := k.code(); !known || got != code {
		t.Errorf("exit code %d, known: %v", got, known)
	}
	if len(k.c.keepers) != 0 {
		t.Error("a keeper that has ended is still known")
	}
}

func TestAKeeperThatEndsSilentlyIsAnError(t *testing.T) {
	k, err := newKept(&container{}, false)
	if err != nil {
		t.Fatal(err)
	}
	k.endsWith(func(ended) {})(ended{})
	if _, err := k.begun(identity{}, nil); err == nil {
		t.Error("its program counts as begun")
	}
	if _, known := k.code(); known {
		t.Error("its exit code is known")
	}
}
