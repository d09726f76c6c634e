package sockets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec is what `shim init` makes of itself.
type Spec struct {
	Argv   []string        `json:"argv"`
	Env    []string        `json:"env"`
	Dir    string          `json:"dir"`
	Rootfs json.RawMessage `json:"rootfs,omitempty"` // for EnterRootfs; nil means the host's file system as it is
	Plain  bool            `json:"plain,omitempty"`  // no filter: the program uses the host's network
}

// EnterRootfs is called in the new process, before the filter, when a Spec has a Rootfs.
var EnterRootfs = func(json.RawMessage) error { return errors.New("this program has no rootfs support") }

// StartError says why a program did not start, with the exit code a shell would give.
type StartError struct {
	Code    int    `json:"code"` // 126 not executable, 127 not found, 128 anything before
	Message string `json:"message"`
}

func (e *StartError) Error() string { return e.Message }

// Start makes cmd a re-execution of this program as `init`, which becomes spec's program under the supervisor's filter.
// cmd's files and SysProcAttr are kept; Path, Args, Env and Dir are replaced. Start returns when the program has been
// executed, or with a *StartError after its process has ended.
func (s *Supervisor) Start(cmd *exec.Cmd, spec Spec) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "init"), os.NewFile(uintptr(pair[1]), "init")
	defer ours.Close()
	cmd.Path = "/proc/self/exe"
	cmd.Args = []string{"shim", "init", strconv.Itoa(3 + len(cmd.ExtraFiles))}
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.Dir = ""
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return &StartError{128, err.Error()}
	}
	if err := s.follow(ours, cmd.Process.Pid, spec); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	return nil
}

// follow sends the spec, takes the listener, and waits for the exec, at which the child's end closes.
func (s *Supervisor) follow(conn *os.File, pid int, spec Spec) error {
	if err := json.NewEncoder(conn).Encode(spec); err != nil {
		return &StartError{128, "init: " + err.Error()}
	}
	replies := bufio.NewReader(conn)
	for {
		line, err := replies.ReadString('\n')
		if err != nil {
			return nil // closed by exec
		}
		number, ok := strings.CutPrefix(strings.TrimSpace(line), "listener ")
		if !ok {
			failure := &StartError{Code: 128, Message: line}
			_ = json.Unmarshal([]byte(line), failure)
			return failure
		}
		fd, _ := strconv.Atoi(number)
		handle, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return &StartError{128, "pidfd_open: " + err.Error()}
		}
		listener, err := unix.PidfdGetfd(handle, fd, 0)
		unix.Close(handle)
		if err != nil {
			return &StartError{128, "pidfd_getfd: " + err.Error()}
		}
		unix.CloseOnExec(listener)
		go s.serve(listener)
		if _, err := conn.WriteString("go\n"); err != nil {
			return &StartError{128, "init: " + err.Error()}
		}
	}
}

// Init is the main function of `shim init FD`: it becomes the program that the parent names.
func Init(args []string) {
	runtime.LockOSThread()
	fd, _ := strconv.Atoi(args[0])
	conn := os.NewFile(uintptr(fd), "init")
	unix.CloseOnExec(fd)
	failure := become(conn)
	line, _ := json.Marshal(failure)
	_, _ = conn.Write(append(line, '\n'))
	os.Exit(failure.Code)
}

func become(conn *os.File) *StartError {
	stream := bufio.NewReader(conn)
	var spec Spec
	line, err := stream.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &spec)
	}
	if err != nil {
		return &StartError{128, "init: " + err.Error()}
	}
	if spec.Rootfs != nil {
		if err := EnterRootfs(spec.Rootfs); err != nil {
			return &StartError{128, err.Error()}
		}
	}
	if spec.Dir != "" {
		if err := os.Chdir(spec.Dir); err != nil {
			return &StartError{128, fmt.Sprintf("working directory %s: %v", spec.Dir, err)}
		}
	}
	path, failure := find(spec)
	if failure != nil {
		return failure
	}
	if !spec.Plain {
		if failure := handOver(conn, stream); failure != nil {
			return failure
		}
	}
	err = unix.Exec(path, spec.Argv, spec.Env)
	return execError(spec.Argv[0], err)
}

// handOver installs the filter and waits until the parent has its listener.
func handOver(conn io.Writer, stream *bufio.Reader) *StartError {
	listener, err := install()
	if err != nil {
		return &StartError{128, err.Error()}
	}
	if _, err := fmt.Fprintf(conn, "listener %d\n", listener); err != nil {
		return &StartError{128, "init: " + err.Error()}
	}
	if _, err := stream.ReadString('\n'); err != nil {
		return &StartError{128, "init: the supervisor went away"}
	}
	unix.Close(listener)
	return nil
}

// find looks the program up in the PATH of its own environment, as execvp does.
func find(spec Spec) (string, *StartError) {
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return "", &StartError{127, "no command specified"}
	}
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, entry := range spec.Env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			search = value
		}
	}
	var denied *StartError
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			continue
		}
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
		denied = execError(name, unix.EACCES)
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{127, fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func execError(name string, err error) *StartError {
	code := 126
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		code = 127
	}
	return &StartError{code, fmt.Sprintf("exec: %q: %v", name, err)}
}
