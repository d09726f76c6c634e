package supervise

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labkit.dev/embedded/sockets"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		sockets.Init(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "try-bind" {
		sockets.TryBind()
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
	deadline := time.Now().Add(5 * time.Second)
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
	ask(t, dir, Request{Op: "apply", Components: []Component{component(dir, "sleep", "60")}})
	first := waitFor(t, dir, "running", running)
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
	s := waitFor(t, dir, "two attempts", func(s Status) bool { return s.Restarts >= 2 })
	if s.LastExit == nil || !strings.Contains(s.LastExit.Error, "no-such-program") {
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
	out := filepath.Join(t.TempDir(), "out")
	if err := RunOnce(dir, []string{"sh", "-c", "echo $" + Variable + " > " + out}); err != nil {
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
