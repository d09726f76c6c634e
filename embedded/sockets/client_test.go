package sockets

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client runs `shim run` for slot 7 in a process of its own, as RunClient owns its process.
func client(env []string, argv ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command("/proc/self/exe", append([]string{"run-client"}, argv...)...)
	var out bytes.Buffer
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
	time.Sleep(500 * time.Millisecond)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if got := exitCode(cmd.Wait()); got != 5 || !strings.Contains(out.String(), "got it") {
		t.Error(got, out)
	}
}

func TestClientReachesTheClusterByName(t *testing.T) {
	need(t, "python3", "getent")
	server := "127.103.0.10:10053" // cluster DNS of slot 7
	nameServerAt(t, server, ".svc.cluster.local.", "127.103.250.78")
	short := []string{"getent", "ahostsv4", "web.shop"}
	for name, env := range map[string][]string{"own resolv.conf": nil, "variables": {"LABKIT_NO_USERNS=1"}} {
		cmd, out := client(env, short...)
		if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "127.103.250.78") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if MountsSupported() == nil {
		cmd, out := client(nil, "cat", resolvConf)
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "nameserver 127.103.0.10\n") || !strings.Contains(out.String(), "svc.cluster.local") {
			t.Error(err, out)
		}
		before, _ := os.ReadFile(resolvConf)
		if strings.Contains(string(before), "127.103.0.10") {
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
