package sockets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keep puts a keeper between the program and whoever starts it, where the program cannot have a process namespace. The keeper
// is the program's parent and adopts every orphan below it (PR_SET_CHILD_SUBREAPER), so that all that the program leaves is
// found as its child, whatever it does to its session and its environment.
//
// The keeper takes orders on the descriptor Control, a socket: a byte is a signal for the program. At the end of the orders,
// which comes at the latest when whoever gave them dies, it kills all of its processes and ends. On the same socket it tells
// the program's process, then its exit code. Its own exit code is the program's.
type Keep struct {
	Attr    *syscall.SysProcAttr `json:"attr"` // the program's; the keeper has cmd's
	Control int                  `json:"control"`
	Env     []string             `json:"env,omitempty"`   // the keeper's own
	Last    bool                 `json:"last,omitempty"`  // when the program ends, the keeper kills what is left of it
	First   bool                 `json:"first,omitempty"` // signals reach the program as they reach the first process of a namespace
}

// KillGroup is the order to kill the program's process group.
const KillGroup = 0xff

const (
	keeperName = "shim-keeper"
	keepLimit  = 10 * time.Second // for killing; a process in an uninterruptible wait can resist it
)

// IsKeeper tells whether a process says that it is a keeper. Any program can say so.
func IsKeeper(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(name)) == keeperName
}

// Kept is what a keeper tells: first of the program's process, then of its end.
type Kept struct {
	Pid     int    `json:"pid,omitempty"`
	Started uint64 `json:"started,omitempty"` // see StartTime
	Code    *int   `json:"code,omitempty"`
}

type keeper struct {
	wire    wireSpec
	control *os.File
	main    int
	code    int
	ended   bool
}

// keep is what a process becomes that is told to keep another: it never returns without a failure.
func keep(conn *os.File, stream *bufio.Reader, wire wireSpec) *StartError {
	_ = os.WriteFile("/proc/self/comm", []byte(keeperName), 0)
	unix.CloseOnExec(wire.Keep.Control)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return &StartError{128, "keeper: " + err.Error()}
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	wire.Spec = wire.spec()
	k := &keeper{wire: wire, control: os.NewFile(uintptr(wire.Keep.Control), "control")}
	if failure := k.start(conn, stream); failure != nil {
		return failure
	}
	conn.Close() // which tells that the program runs
	letGoOfStreams()
	os.Exit(k.serve(children))
	return nil
}

// start starts the program as a child, and passes the listener of its filter on.
func (k *keeper) start(conn *os.File, stream *bufio.Reader) *StartError {
	wire := k.wire
	cmd := &exec.Cmd{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: wire.Keep.Attr}
	wire.Keep = nil
	ours, err := launch(cmd, nil)
	if err != nil {
		return &StartError{128, err.Error()}
	}
	defer ours.Close()
	k.main = cmd.Process.Pid
	err = converse(ours, k.main, wire, func(listener int) error {
		defer unix.Close(listener)
		if _, err := fmt.Fprintf(conn, "listener %d\n", listener); err != nil {
			return err
		}
		_, err := stream.ReadString('\n')
		return err
	})
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		var failure *StartError
		if !errors.As(err, &failure) {
			failure = &StartError{128, "keeper: " + err.Error()}
		}
		return failure
	}
	started, _ := StartTime(k.main)
	k.tell(Kept{Pid: k.main, Started: started})
	_ = cmd.Process.Release()
	return nil
}

func (k *keeper) tell(what Kept) { _ = json.NewEncoder(k.control).Encode(what) }

// letGoOfStreams closes the program's streams on the keeper's side, or their readers would wait for the keeper's end.
func letGoOfStreams() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer null.Close()
	for fd := range 3 {
		_ = unix.Dup3(int(null.Fd()), fd, 0)
	}
}

// serve does one thing after the other, so that no child is waited for between the decision to send a signal and its sending.
func (k *keeper) serve(children <-chan os.Signal) int {
	orders := make(chan byte)
	go func() {
		defer close(orders)
		for in := bufio.NewReader(k.control); ; {
			order, err := in.ReadByte()
			if err != nil {
				return
			}
			orders <- order
		}
	}()
	for {
		if none := k.reap(); none || k.ended && k.wire.Keep.Last {
			return k.endAll()
		}
		select {
		case <-children:
		case order, open := <-orders:
			if !open {
				return k.endAll()
			}
			k.obey(order)
		}
	}
}

// reap waits for what has ended; true when there are no children any more.
func (k *keeper) reap() bool {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return true
		case pid == 0:
			return false
		case pid == k.main:
			k.ended, k.code = true, status.ExitStatus()
			if status.Signaled() {
				k.code = 128 + int(status.Signal())
			}
			k.tell(Kept{Code: &k.code})
		}
	}
}

// obey sends a signal to the program, which was not waited for yet.
func (k *keeper) obey(order byte) {
	if k.ended {
		return
	}
	if order == KillGroup {
		_ = unix.Kill(-k.main, unix.SIGKILL)
		return
	}
	sig := syscall.Signal(order)
	if !k.wire.Keep.First || sig == unix.SIGKILL || sig == unix.SIGSTOP || catches(k.main, sig) {
		_ = unix.Kill(k.main, sig)
	}
	_ = unix.Kill(k.main, unix.SIGCONT)
}

// catches tells whether a process has a handler for a signal, has blocked it to take it up, or waits for signals. The kernel keeps
// others from the first process of a namespace.
func catches(pid int, sig syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	var heeded uint64
	for _, name := range []string{"\nSigCgt:\t", "\nSigBlk:\t"} {
		_, rest, _ := strings.Cut(string(status), name)
		line, _, _ := strings.Cut(rest, "\n")
		mask, _ := strconv.ParseUint(line, 16, 64)
		heeded |= mask
	}
	call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid)) // while it waits, they are not shown as blocked
	number, _, _ := strings.Cut(string(call), " ")
	return heeded&(1<<(uint(sig)-1)) != 0 || number == strconv.Itoa(unix.SYS_RT_SIGTIMEDWAIT)
}

// endAll kills children, and what comes in their place, until there are none or the time is up. They are its own until it
// waits for them, so that no other process can get the signal.
func (k *keeper) endAll() int {
	for deadline := time.Now().Add(keepLimit); !k.reap() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, pid := range Children(os.Getpid()) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return k.code
}

// Children lists the children of a process. Where the kernel does not list them, all processes are looked at.
func Children(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(field)
			out = append(out, child)
		}
	}
	if len(lists) > 0 {
		return out
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		child, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if fields, err := statFields(child); err == nil && fields[1] == strconv.Itoa(pid) {
			out = append(out, child)
		}
	}
	return slices.Clip(out)
}

// StartTime is when a process was started, in ticks since the kernel was: field 22 of /proc/PID/stat. With the process's number
// it names one process for ever; the number alone is given to others later.
func StartTime(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// statFields are those of /proc/PID/stat from the state (field 3) on.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	at := strings.LastIndexByte(string(text), ')')
	if fields := strings.Fields(string(text[at+1:])); at > 0 && len(fields) >= 22 {
		return fields, nil
	}
	return nil, fmt.Errorf("/proc/%d/stat: %w", pid, io.ErrUnexpectedEOF)
}
