package sockets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is the program that `shim init` becomes. It is looked up in the PATH of Env and relative to Dir, as the process sees them
// after EnterRootfs.
type Spec struct {
	Argv   []string        `json:"argv"`
	Env    []string        `json:"env"`
	Dir    string          `json:"dir"`
	Rootfs json.RawMessage `json:"rootfs,omitempty"` // for EnterRootfs; nil means the host's file system as it is
	Plain  bool            `json:"plain,omitempty"`  // no filter: the program uses the host's network
	Keep   *Keep           `json:"keep,omitempty"`   // a keeper for the program; nil for none
	// OOMScore is how the kernel is to rate the program when memory runs out; one below the starter's is only root's to give.
	OOMScore *int `json:"oom_score,omitempty"`
	// Processes bounds the processes and threads of the user in the program's user namespace (RLIMIT_NPROC); 0 is no bound.
	Processes uint64 `json:"processes,omitempty"`
	// Prepare is called with the new process before anything is done in it.
	Prepare func(pid int) error `json:"-"`
}

// StartError says why a program did not start, with the exit code a shell would give.
type StartError struct {
	Code    int    `json:"code"` // 126 not executable, 127 not found, 128 anything before
	Message string `json:"message"`
}

func (e *StartError) Error() string { return e.Message }

const (
	initName   = "shim-init"
	startLimit = time.Minute // for the file system, the filter and the exec
)

// wireSpec is a Spec on its way to the new process. Arguments and variables may be any bytes.
type wireSpec struct {
	Spec
	Argv        [][]byte `json:"argv"`
	Env         [][]byte `json:"env"`
	Resolv      string   `json:"resolv,omitempty"`       // file to show at /etc/resolv.conf
	KeepSignals bool     `json:"keep_signals,omitempty"` // what our parent ignores, the program ignores
}

func (w wireSpec) spec() Spec {
	w.Spec.Argv, w.Spec.Env = stringsOf(w.Argv), stringsOf(w.Env)
	return w.Spec
}

func bytesOf(texts []string) [][]byte {
	out := make([][]byte, len(texts))
	for i, t := range texts {
		out[i] = []byte(t)
	}
	return out
}

func stringsOf(texts [][]byte) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = string(t)
	}
	return out
}

// Start makes cmd a re-execution of this program as `init`, which becomes spec's program under the supervisor's filter.
// cmd's files and SysProcAttr are kept; Path, Args, Env and Dir are replaced. Start returns when the program has been
// executed, or with a *StartError after its process has ended.
//
// A parent-death signal is sent when the thread that calls Start ends: callers that want one call from a thread that lives as
// long as the program should (runtime.LockOSThread).
func (s *Supervisor) Start(cmd *exec.Cmd, spec Spec) error { return s.start(cmd, wireSpec{Spec: spec}) }

func (s *Supervisor) start(cmd *exec.Cmd, spec wireSpec) error {
	if err := s.policy.check(); err != nil && !spec.Plain {
		return &StartError{128, err.Error()}
	}
	ours, err := launch(cmd, spec.Keep)
	if err != nil {
		return &StartError{128, err.Error()}
	}
	defer ours.Close()
	if spec.Prepare != nil {
		err = spec.Prepare(cmd.Process.Pid)
	}
	if err == nil {
		err = converse(ours, cmd.Process.Pid, spec, func(listener int) error {
			go s.serve(listener)
			return nil
		})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		var failure *StartError
		if !errors.As(err, &failure) {
			failure = &StartError{128, "init: " + err.Error()}
		}
		return failure
	}
	return nil
}

// launch starts this program again, as the one that becomes another. Our end of the conversation with it is returned.
func launch(cmd *exec.Cmd, keep *Keep) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	_ = unix.SetNonblock(pair[0], true) // so that its reads can have a deadline
	ours, theirs := os.NewFile(uintptr(pair[0]), "init"), os.NewFile(uintptr(pair[1]), "init")
	cmd.Path = "/proc/self/exe"
	cmd.Args = []string{initName, "init", strconv.Itoa(3 + len(cmd.ExtraFiles))}
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	if keep != nil {
		cmd.Env = append(cmd.Env, keep.Env...)
	}
	cmd.Dir = ""
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// converse sends the spec, hands over the listener, and waits for the exec, at which the child's end closes.
func converse(conn *os.File, pid int, spec wireSpec, handOver func(listener int) error) error {
	spec.Argv, spec.Env = bytesOf(spec.Spec.Argv), bytesOf(spec.Spec.Env)
	_ = conn.SetDeadline(time.Now().Add(startLimit))
	if err := json.NewEncoder(conn).Encode(spec); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	replies := bufio.NewReader(conn)
	for {
		line, err := replies.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // closed by exec
		case err != nil:
			return fmt.Errorf("init: %w", err)
		}
		number, ok := strings.CutPrefix(strings.TrimSpace(line), "listener ")
		if !ok {
			failure := &StartError{Code: 128, Message: line}
			_ = json.Unmarshal([]byte(line), failure)
			return failure
		}
		listener, err := take(pid, number)
		if err != nil {
			return err
		}
		if err := handOver(listener); err != nil {
			return err
		}
		if _, err := conn.WriteString("go\n"); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
}

// take duplicates the child's descriptor into this process. The child cannot send it: sending is under the filter already.
func take(pid int, number string) (int, error) {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return -1, fmt.Errorf("init: %w", err)
	}
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(handle)
	listener, err := unix.PidfdGetfd(handle, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd: %w", err)
	}
	return listener, nil
}
