package sockets

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"labkit.dev/embedded/loopback"
)

// client runs `shim run` for slot 7 (or that of TEST_SLOT) in a process of its own, as RunClient owns its process.
func client(env []string, argv ...string) (*exec.Cmd, *lockedBuffer) {
	cmd := exec.Command("/proc/self/exe", append([]string{"run-client"}, argv...)...)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, append(os.Environ(), env...)
	return cmd, &out
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestClientPassesExitCodesOn(t *testing.T) {
	need(t)
	for want, argv := range map[int][]string{
		0: {"true"}, 7: {"sh", "-c", "exit 7"}, 128 + 9: {"sh", "-c", "kill -9 $$"}, 127: {"no-such-program"}, 2: nil,
	} {
		cmd, out := client(nil, argv...)
		if got := exitCode(cmd.Run()); got != want {
			t.Errorf("%v: %d %s", argv, got, out)
		}
	}
}

func TestClientForwardsSignals(t *testing.T) {
	need(t)
	cmd, out := client(nil, "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
	reader, _ := cmd.StdinPipe() // no terminal
	defer reader.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "ready")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if got := exitCode(cmd.Wait()); got != 5 || !strings.Contains(out.String(), "got it") {
		t.Error(got, out)
	}
}

// freeSlot is a slot that no cluster of this machine uses, and the address of its DNS.
func freeSlot(t *testing.T) (slot int, dns string) {
	t.Helper()
	for slot := loopback.Slots - 1; slot >= 0; slot-- {
		dns := loopback.Plan{Slot: slot}.DNS().String()
		if trial, err := net.ListenPacket("udp", dns+":10053"); err == nil {
			trial.Close()
			return slot, dns
		}
	}
	t.Skip("clusters run in all slots")
	return 0, ""
}

func TestClientReachesTheClusterByName(t *testing.T) {
	need(t, "python3", "getent")
	slot, dns := freeSlot(t)
	nameServerAt(t, dns+":10053", ".svc.cluster.local.", "127.103.250.78")
	t.Setenv("TEST_SLOT", strconv.Itoa(slot))
	short := []string{"getent", "ahostsv4", "web.shop"}
	for name, env := range map[string][]string{"own resolv.conf": nil, "variables": {"LABKIT_NO_USERNS=1"}} {
		cmd, out := client(env, short...)
		if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "127.103.250.78") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if MountsSupported() == nil {
		cmd, out := client(nil, "cat", resolvConf)
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "nameserver "+dns+"\n") || !strings.Contains(out.String(), "svc.cluster.local") {
			t.Error(err, out)
		}
		before, _ := os.ReadFile(resolvConf)
		if strings.Contains(string(before), dns) {
			t.Error("the machine's resolv.conf was changed")
		}
	}
	start(t, pod(13), "python3", "-m", "http.server", "80")
	listening(t, "127.19.250.13:10080")
	if installed("curl") {
		cmd, out := client(nil, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://198.19.250.13/")
		if err := cmd.Run(); err != nil || out.String() != "200" {
			t.Error(err, out)
		}
	}
}

func TestClientHasOnlyItsUsersRights(t *testing.T) {
	need(t, "python3")
	if os.Getuid() == 0 {
		t.Skip("root keeps its capabilities")
	}
	cmd, out := client(nil, "sh", "-c", "id -u; grep -E 'Cap(Eff|Prm|Amb)' /proc/self/status")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, out)
	}
	lines := strings.Fields(out.String())
	want := []string{"CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "CapAmb:", "0000000000000000"}
	if lines[0] == "0" || strings.Join(lines[1:], " ") != strings.Join(want, " ") {
		t.Error(out)
	}
}
