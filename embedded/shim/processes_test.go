package shim

import (
	"os/exec"
	"testing"
	"time"
)

// started is the pid of a process that ends with the test.
func started(t *testing.T, name string, args ...string) int {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestAProcessThatOnlyWaitsHasUsedTime(t *testing.T) {
	pid := started(t, "sleep", "60")
	time.Sleep(50 * time.Millisecond)
	p, ok := readProcess(pid)
	if !ok || p.cpu <= 0 {
		t.Errorf("CPU time %v, found: %v; expected some microseconds", p.cpu, ok)
	}
	if p.cpu > time.Second {
		t.Errorf("CPU time %v of a program that waits", p.cpu)
	}
}

func TestTheClockAgreesWithTheTicks(t *testing.T) {
	pid := started(t, "sh", "-c", "while :; do :; done")
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		exact, err := clock(pid)
		if err != nil {
			t.Fatal(err)
		}
		if exact > 300*time.Millisecond {
			p, _ := readProcess(pid)
			if p.cpu < exact {
				t.Errorf("%v after %v", p.cpu, exact)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("a busy loop has not used 0.3 s within 10 s")
}
