package supervise

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRotationOnAFullDisk has a limit for files instead, which the older log cannot exceed.
func TestRotationOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	line := []byte("a line of a component's log\n")
	if err := os.WriteFile(path, bytes.Repeat(line, logLimit/len(line)+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".1", []byte("older\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	var unlimited unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	full := unlimited
	full.Cur = 1 << 20
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	err := rotate(path)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(path)
	if err != nil || info.Size() != 0 {
		t.Errorf("the log still has %d bytes: %v", info.Size(), err)
	}
	if kept, _ := os.ReadFile(path + ".1"); !bytes.HasPrefix(kept, line) || len(kept) < 100*len(line) {
		t.Errorf("of the last lines %d bytes are kept: %.40q", len(kept), kept)
	}
}
