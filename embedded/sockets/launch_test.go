package sockets

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func startError(t *testing.T, spec Spec) *StartError {
	t.Helper()
	var failure *StartError
	cmd := exec.Command("true")
	err := pod(7).Start(cmd, spec)
	if err != nil && !errors.As(err, &failure) {
		t.Errorf("%T %v", err, err)
	}
	if err != nil && cmd.ProcessState == nil {
		t.Error("the failed process was not waited for")
	}
	if err == nil {
		_ = cmd.Wait()
	}
	return failure
}

func TestFailuresToStartAreTold(t *testing.T) {
	need(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec Spec
		code int
		word string
	}{
		{Spec{Argv: []string{"no-such-program"}}, 127, "no-such-program"},
		{Spec{Argv: []string{"/no/such"}}, 127, "/no/such"},
		{Spec{Argv: []string{script}}, 127, script},
		{Spec{Argv: []string{"/etc/hostname"}}, 126, "/etc/hostname"},
		{Spec{Argv: []string{"/"}}, 126, "permission"},
		{Spec{}, 127, "no command"},
		{Spec{Argv: []string{"true"}, Dir: "/no/such"}, 128, "/no/such"},
		{Spec{Argv: []string{"true"}, Rootfs: json.RawMessage(`"fail"`)}, 128, "rootfs says no"},
		{Spec{Argv: []string{"true"}, Env: []string{"PATH=/no/such"}}, 127, "true"},
	} {
		failure := startError(t, c.spec)
		if failure == nil || failure.Code != c.code || !strings.Contains(failure.Message, c.word) {
			t.Errorf("%+v: %+v", c.spec, failure)
		}
	}
}

func TestProgramIsFoundWhereTheContainerHasIt(t *testing.T) {
	need(t)
	dir := t.TempDir()
	for _, name := range []string{"own-program", "bin/other"} {
		_ = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho $0 $(pwd)\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	where, _ := filepath.EvalSymlinks(dir)
	for _, spec := range []Spec{
		{Argv: []string{"./own-program"}, Dir: dir},
		{Argv: []string{"own-program"}, Dir: dir, Env: []string{"PATH=" + dir}},
		{Argv: []string{"other"}, Dir: dir, Env: []string{"PATH=bin"}}, // relative, as a shell has it
		{Argv: []string{"own-program"}, Rootfs: json.RawMessage(`{"chdir":"` + dir + `"}`), Env: []string{"PATH=."}},
	} {
		spec.Env = append(spec.Env, "X=1")
		if got := outputOf(t, pod(7), spec); !strings.HasSuffix(got, " "+where+"\n") {
			t.Errorf("%+v: %s", spec, got)
		}
	}
}

func TestArgumentsAndSignalsReachTheProgram(t *testing.T) {
	need(t, "python3")
	signal.Ignore(syscall.SIGHUP) // as daemons do
	defer signal.Reset(syscall.SIGHUP)
	program := "import os, signal, sys; print(os.fsencode(sys.argv[1]), os.environb[b'X'], signal.getsignal(signal.SIGHUP).name)"
	spec := Spec{Argv: []string{"python3", "-c", program, "\xff\x01é"}, Env: append(os.Environ(), "X=\xfe\n")}
	if got := outputOf(t, pod(7), spec); got != `b'\xff\x01\xc3\xa9' b'\xfe\n' SIG_DFL`+"\n" {
		t.Error(got)
	}
}

func TestParentDeathSignalIsKept(t *testing.T) {
	need(t, "python3")
	cmd := exec.Command("true")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGUSR2}
	program := "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
	if err := pod(7).Start(cmd, Spec{Argv: []string{"python3", "-c", program}, Env: os.Environ()}); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if out.String() != "12\n" {
		t.Error(out.String())
	}
}

func TestSecondFilterIsRefusedWithAReason(t *testing.T) {
	need(t)
	got := output(t, pod(7), "/proc/self/exe", "nested")
	if !strings.Contains(got, "already under a socket filter") {
		t.Error(got)
	}
}
