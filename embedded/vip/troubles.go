package vip

import (
	"log/slog"
	"time"
)

// troubles logs what cannot be listened on once, and once more when it can be, and says when to try again.
type troubles struct {
	log   *slog.Logger
	told  map[Listen]string
	pause time.Duration
}

// next takes over what failed now and returns the pause until the next attempt, which gets longer while nothing changes; 0 for none.
func (t *troubles) next(failed map[Listen]error) time.Duration {
	told, changed := map[Listen]string{}, len(failed) != len(t.told)
	for at, err := range failed {
		told[at] = err.Error()
		if told[at] != t.told[at] {
			changed = true
			t.log.Error("cannot listen", "address", at.Address, "network", at.Network, "error", err)
		}
	}
	for at := range t.told {
		if _, still := told[at]; !still {
			t.log.Info("no trouble any more", "address", at.Address, "network", at.Network)
		}
	}
	t.told = told
	switch {
	case len(failed) == 0:
		t.pause = 0
	case changed:
		t.pause = syncRetry
	default:
		t.pause = min(2*t.pause, syncRetryMost)
	}
	return t.pause
}
