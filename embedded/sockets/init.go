package sockets

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// EnterRootfs is called in the new process, before the filter, when a Spec has a Rootfs.
var EnterRootfs = func(json.RawMessage) error { return errors.New("this program has no rootfs support") }

// The parent-death signal and capabilities belong to the first thread, which therefore has to be the one that becomes the program.
func init() {
	if len(os.Args) > 1 && os.Args[0] == initName {
		runtime.LockOSThread()
	}
}

// Init is the main function of `shim init FD`: it becomes the program that the parent names.
func Init(args []string) {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "shim init: only for its own use")
		os.Exit(2)
	}
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
	var wire wireSpec
	line, err := stream.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &wire)
	}
	if err != nil {
		return &StartError{128, "init: " + err.Error()}
	}
	spec := wire.spec()
	if spec.Keep != nil {
		return keep(conn, stream, wire)
	}
	if spec.OOMScore != nil { // a lower one than ours is refused to a plain user, and stays ours
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*spec.OOMScore)), 0)
	}
	if spec.Rootfs != nil {
		if err := EnterRootfs(spec.Rootfs); err != nil {
			return &StartError{128, err.Error()}
		}
	}
	if wire.Resolv != "" {
		if err := enterResolv(wire.Resolv); err != nil {
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
	if !wire.KeepSignals {
		// Signals that are handled get their default behaviour at exec; ignored ones, as our parent's are, would stay ignored.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)
	}
	if !spec.Plain {
		if failure := handOver(conn, stream); failure != nil {
			return failure
		}
	}
	if spec.Processes > 0 { // last, as this program's own threads count
		_ = unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: spec.Processes, Max: spec.Processes})
	}
	return execError(spec.Argv[0], unix.Exec(path, spec.Argv, spec.Env))
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
