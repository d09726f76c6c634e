package shim

import (
	"os/exec"
	"testing"
	"time"
)

func TestAProcessThatOnlyWaitsHasUsedTime(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	time.Sleep(50 * time.Millisecond)
	p, ok := readProcess(cmd.Process.Pid)
	if !ok || p.cpu <= 0 {
		t.Errorf("CPU time %v, found: %v; expected some microseconds", p.cpu, ok)
	}
	if p.cpu > time.Second {
		t.Errorf("CPU time %v of a program that waits", p.cpu)
	}
}

func TestTheClockAgreesWithTheTicks(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		exact, err := clock(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if exact > 300*time.Millisecond {
			p, _ := readProcess(cmd.Process.Pid)
			if p.cpu < exact {
				t.Errorf("%v after %v", p.cpu, exact)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("a busy loop has not used 0.3 s within 10 s")
}
