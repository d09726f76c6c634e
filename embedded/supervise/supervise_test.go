package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labkit.dev/embedded/sockets"
)

func TestMain(m *testing.M) {
	if sockets.Dispatch(os.Args) {
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "supervise" {
		if err := Run(os.Args[2], testSlot+1); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const testSlot = 77 // no cluster's

func serve(t *testing.T) string {
	t.Helper()
	if err := sockets.Supported(); err != nil {
		t.Skip("this sandbox has no seccomp user notification: ", err)
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than a socket's name can be
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(dir, testSlot) }()
	t.Cleanup(func() {
		_, _ = Call(dir, []byte(`{"op":"shutdown"}`))
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("does not shut down")
		}
	})
	return dir
}

func ask(t *testing.T, dir string, q Request) Response {
	t.Helper()
	line, _ := json.Marshal(q)
	var response Response
	deadline := time.Now().Add(time.Minute)
	for {
		raw, err := Call(dir, line)
		if err == nil {
			if err := json.Unmarshal(raw, &response); err != nil {
				t.Fatal(err)
			}
			return response
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func waitFor(t *testing.T, dir string, what string, ok func(Status) bool) Status {
	t.Helper()
	var last Response
	for range 200 {
		last = ask(t, dir, Request{Op: "status"})
		if len(last.Components) == 1 && ok(last.Components[0]) {
			return last.Components[0]
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("not seen: %s (%+v)", what, last)
	return Status{}
}

func component(dir string, argv ...string) Component {
	return Component{Name: "c", Argv: argv, Log: filepath.Join(dir, "c.log")}
}

func running(s Status) bool { return s.State == Running }

func TestKilledComponentIsRestartedAndCounted(t *testing.T) {
	dir := serve(t)
	r := ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sleep", "60")}})
	first := r.Components[0] // the answer comes when the process is there
	if !running(first) || first.Pid == 0 {
		t.Errorf("%+v", first)
	}
	_ = syscall.Kill(first.Pid, syscall.SIGKILL)
	second := waitFor(t, dir, "restarted", func(s Status) bool { return running(s) && s.Pid != first.Pid })
	if second.Restarts != 1 || second.LastExit == nil || second.LastExit.Signal != "SIGKILL" {
		t.Errorf("%+v", second)
	}
}

func TestStopStartSignalRemove(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sleep", "60")}})
	waitFor(t, dir, "running", running)
	if r := ask(t, dir, Request{Op: "signal", Name: "c", Signal: "STOP"}); r.Error != "" {
		t.Error(r.Error)
	}
	if r := ask(t, dir, Request{Op: "stop", Name: "c"}); r.Components[0].State != Stopped {
		t.Errorf("%+v", r)
	}
	if r := ask(t, dir, Request{Op: "signal", Name: "c", Signal: "CONT"}); r.Error != "" {
		t.Error(r.Error)
	}
	ask(t, dir, Request{Op: "start", Name: "c"})
	waitFor(t, dir, "running again", running)
	if r := ask(t, dir, Request{Op: "remove", Name: "c"}); len(r.Components) != 0 {
		t.Errorf("%+v", r)
	}
	for _, wrong := range []Request{{Op: "start", Name: "nobody"}, {Op: "dance"}, {Op: "apply", Components: []Component{{Name: "x"}}}} {
		if ask(t, dir, wrong).Error == "" {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

func TestProgramThatIgnoresTheSignalIsKilledAfterItsGrace(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")}})
	waitFor(t, dir, "running", running)
	begin := time.Now()
	r := ask(t, dir, Request{Op: "stop", Name: "c", GraceS: 0.5})
	if took := time.Since(begin); r.Components[0].State != Stopped || took > 5*time.Second {
		t.Errorf("%+v after %v", r, took)
	}
}

func TestProgramThatCannotStartBacksOffAndSaysWhy(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "no-such-program")}})
	s := waitFor(t, dir, "two attempts", func(s Status) bool { return s.Restarts >= 2 && s.State == Failed })
	if s.LastExit == nil || s.LastExit.Code != 127 || !strings.Contains(s.LastExit.Error, "no-such-program") {
		t.Errorf("%+v", s)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "c.log"))
	if !strings.Contains(string(log), "no-such-program") {
		t.Errorf("log: %s", log)
	}
}

func TestSlotIsHeldOnce(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "status"})
	if err := Run(t.TempDir(), testSlot); !errors.Is(err, ErrSlotBusy) {
		t.Error(err)
	}
}

func TestLongLogIsRotatedWhileTheComponentWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	chunk := []byte(strings.Repeat("x", 1<<20))
	for range logLimit>>20 + 1 {
		_, _ = log.Write(chunk)
	}
	if err := rotate(path); err != nil {
		t.Fatal(err)
	}
	_, _ = log.WriteString("after\n")
	now, _ := os.ReadFile(path)
	old, _ := os.Stat(path + ".1")
	if string(now) != "after\n" || old.Size() <= logLimit {
		t.Errorf("%q, older %d bytes", now, old.Size())
	}
}

func TestRunStartsProgramsOutsideTheFilter(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "status"})
	out := filepath.Join(t.TempDir(), "out")
	if err := RunOnce(dir, []string{"sh", "-c", "echo $" + Variable + ` > "$1"`, "sh", out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil || strings.TrimSpace(string(text)) != dir {
		t.Errorf("%q, %v", text, err)
	}
	err = RunOnce(dir, []string{"sh", "-c", "echo no luck >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "no luck") || !strings.Contains(err.Error(), "3") {
		t.Errorf("%v", err)
	}
}

// daemon starts a supervisor as a process of its own.
func daemon(t *testing.T) (dir string, cmd *exec.Cmd) {
	t.Helper()
	if err := sockets.Supported(); err != nil {
		t.Skip("this sandbox has no seccomp user notification: ", err)
	}
	dir = t.TempDir()
	cmd = exec.Command("/proc/self/exe", "supervise", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return dir, cmd
}

// gone waits until a process has ended, whether somebody has waited for it or not.
func gone(pid int) bool {
	for range 100 {
		if command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); len(command) == 0 {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func TestComponentsDieWithTheirSupervisorAndCanBeResumed(t *testing.T) {
	dir, cmd := daemon(t)
	plain := component(dir, "sleep", "60")
	plain.Name, plain.Policy = "d", "none"
	r := ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sleep", "60"), plain}})
	for range 100 {
		if r = ask(t, dir, Request{Op: "status"}); running(r.Components[0]) && running(r.Components[1]) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // the thread that started them must live on
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, s := range r.Components {
		if !gone(s.Pid) {
			t.Errorf("%s survived", s.Name)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(dir, testSlot+1) }() // the same place and slot
	if r := ask(t, dir, Request{Op: "status"}); r.Slot != testSlot+1 {
		t.Errorf("%+v", r)
	}
	ask(t, dir, Request{Op: "shutdown"})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTerminationStopsTheLastStartedFirst(t *testing.T) {
	dir, cmd := daemon(t)
	trace := filepath.Join(dir, "trace")
	var components []Component
	for _, name := range []string{"a", "b", "c"} {
		c := component(dir, "sh", "-c", `trap 'sleep 0.1; echo "$1" >> "$2"; exit 0' TERM; echo up; while :; do sleep 0.02; done`, "sh", name, trace)
		c.Name, c.Log = name, filepath.Join(dir, name)
		components = append(components, c)
	}
	ask(t, dir, Request{Op: "apply", Components: components})
	for _, c := range components {
		for range 100 {
			if log, _ := os.ReadFile(c.Log); len(log) > 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(trace); string(text) != "c\nb\na\n" {
		t.Errorf("%q", text)
	}
}

func TestShutdownFollowsTheGivenOrderAndStartsNothingMore(t *testing.T) {
	dir, cmd := daemon(t)
	trace := filepath.Join(dir, "trace")
	script := func(name string) Component {
		c := component(dir, "sh", "-c", `trap 'sleep 0.3; echo "$1" >> "$2"; exit 0' TERM; while :; do sleep 0.02; done`, "sh", name, trace)
		c.Name = name
		return c
	}
	ask(t, dir, Request{Op: "apply", Components: []Component{script("a"), script("b")}})
	time.Sleep(300 * time.Millisecond) // for the traps
	answered := make(chan Response, 1)
	go func() { answered <- ask(t, dir, Request{Op: "shutdown", Order: []string{"a"}}) }()
	time.Sleep(100 * time.Millisecond)
	if r := ask(t, dir, Request{Op: "apply", Components: []Component{script("late")}}); !strings.Contains(r.Error, "shutting down") {
		t.Errorf("%+v", r)
	}
	if r := <-answered; r.Error != "" || r.Components[0].State != Stopped {
		t.Errorf("%+v", r)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(trace); string(text) != "a\nb\n" {
		t.Errorf("%q", text)
	}
}

func TestOnlyAChangedComponentIsRestarted(t *testing.T) {
	dir := serve(t)
	c := component(dir, "sleep", "60")
	ask(t, dir, Request{Op: "apply", Components: []Component{c}})
	first := waitFor(t, dir, "running", running)
	ask(t, dir, Request{Op: "apply", Components: []Component{c}})
	if same := waitFor(t, dir, "running", running); same.Pid != first.Pid {
		t.Error("restarted without need")
	}
	c.Env = []string{"X=1"}
	ask(t, dir, Request{Op: "apply", Components: []Component{c}})
	changed := waitFor(t, dir, "running", running)
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", changed.Pid))
	if changed.Pid == first.Pid || !strings.Contains(string(env), "\x00X=1\x00") {
		t.Errorf("%+v %q", changed, env)
	}
}

func TestOneSupervisorPerDirectory(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "status"})
	if err := Run(dir, testSlot+2); err == nil || !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
}

func TestFrozenComponentCanBeStopped(t *testing.T) {
	dir := serve(t)
	ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sleep", "60")}})
	s := waitFor(t, dir, "running", running)
	ask(t, dir, Request{Op: "signal", Name: "c", Signal: "STOP"})
	begin := time.Now()
	ask(t, dir, Request{Op: "stop", Name: "c"})
	if !gone(s.Pid) || time.Since(begin) > 3*time.Second {
		t.Error("took ", time.Since(begin))
	}
}
