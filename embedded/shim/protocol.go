// Package shim runs the containers of one pod as processes, in a small daemon of its own that outlives the kubelet, as
// containerd's shims do. It starts them, writes their logs, reaps them, measures them and kills them as groups.
//
// The daemon listens on shim.sock in the pod's directory. A connection carries one request: a byte with file descriptors
// (SCM_RIGHTS), a line of JSON, and one or more lines of answer.
package shim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/sockets"
)

// Pod is what a shim is told when it starts: the file pod.json of the pod's directory.
type Pod struct {
	ID       string         `json:"id"`
	Hostname string         `json:"hostname,omitempty"`
	Policy   sockets.Policy `json:"policy"`
	Links    bool           `json:"links,omitempty"` // do not use mount namespaces even where they are allowed
	Pids     bool           `json:"pids,omitempty"`  // process namespaces work here, for containers that have mounts
	Users    bool           `json:"users,omitempty"` // so do user namespaces that show a process another user
	// Processes bounds the processes and threads of the pod; 0 is no bound.
	Processes uint64 `json:"processes,omitempty"`
}

// State is what a shim tells when it has started: the file shim.json of the pod's directory.
type State struct {
	Pid     int    `json:"pid"`
	Started uint64 `json:"started_ticks"`    // start time of the process with this number; see identity
	Boot    string `json:"boot"`             // boot id of the kernel
	Mounts  bool   `json:"mounts"`           // containers have mount namespaces of their own
	Limits  bool   `json:"limits,omitempty"` // a process's limit of processes is one for the pod, see limitsWork
}

// Container is a container to start.
type Container struct {
	ID          string       `json:"id"`
	Argv        []string     `json:"argv"`
	Env         []string     `json:"env"`
	Dir         string       `json:"dir"`
	Rootfs      *rootfs.Plan `json:"rootfs,omitempty"`
	User        *User        `json:"user,omitempty"`
	Tmpfs       []Tmpfs      `json:"tmpfs,omitempty"`
	Log         string       `json:"log,omitempty"`
	Stdin       bool         `json:"stdin,omitempty"`
	StdinOnce   bool         `json:"stdin_once,omitempty"`
	TTY         bool         `json:"tty,omitempty"`
	MemoryLimit uint64       `json:"memory_limit,omitempty"` // bytes; 0 is none
	Pids        string       `json:"pids,omitempty"`         // whose process namespace: own (default), pod, node, or a container's id
	OOMScore    *int         `json:"oom_score,omitempty"`    // oom_score_adj, as far as the user may set it
}

// User is who a container's processes are in their own eyes. In the machine's they are whoever runs the node.
type User struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Reasons of a container's end.
const (
	Completed  = "Completed"
	Failed     = "Error"
	OOMKilled  = "OOMKilled"
	StartError = "StartError"
	Unknown    = "ContainerStatusUnknown" // the shim was killed and did not see the end
)

// Status is a container's state: the file containers/ID/status.json of the pod's directory.
type Status struct {
	ID         string   `json:"id"`
	Running    bool     `json:"running"`
	Pid        int      `json:"pid"`
	Started    uint64   `json:"started_ticks,omitempty"` // start time of the process with this number; see identity
	Keeper     identity `json:"keeper,omitzero"`         // the keeper of its processes; none where it has a process namespace
	StartedAt  int64    `json:"started_at"`              // nanoseconds since 1970
	FinishedAt int64    `json:"finished_at,omitempty"`
	ExitCode   int      `json:"exit_code"`
	Reason     string   `json:"reason,omitempty"`
	Message    string   `json:"message,omitempty"`
}

// Stats is what a container's processes use.
type Stats struct {
	CPUNanos  uint64 `json:"cpu_nanos"` // since its start, ended processes included; never decreases
	Memory    uint64 `json:"memory"`    // bytes that only these processes hold
	Processes uint64 `json:"processes"`
}

// Request is what a client asks.
type Request struct {
	Op        string     `json:"op"` // start, stop, remove, exec, attach, stats, watch, reopen, update, shutdown
	ID        string     `json:"id,omitempty"`
	Container *Container `json:"container,omitempty"` // start
	Argv      []string   `json:"argv,omitempty"`      // exec
	TTY       bool       `json:"tty,omitempty"`       // exec: the one descriptor is a terminal
	Streams   []string   `json:"streams,omitempty"`   // exec, attach: what the descriptors are: stdin, stdout, stderr
	Signal    int        `json:"signal,omitempty"`    // stop
	GraceMS   int64      `json:"grace_ms,omitempty"`  // stop
	Memory    uint64     `json:"memory,omitempty"`    // update: bytes
}

// Response is one line of answer.
type Response struct {
	Error    string           `json:"error,omitempty"`
	Code     int              `json:"code,omitempty"` // of the error: an exit code as a shell gives it
	Started  bool             `json:"started,omitempty"`
	Exit     *int             `json:"exit,omitempty"`
	Statuses []Status         `json:"statuses,omitempty"`
	Stats    map[string]Stats `json:"stats,omitempty"`
}

// Size is a terminal's size; lines of it may follow an attach request.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// conn is a connection with lines of JSON.
type conn struct {
	*net.UnixConn
	reader *bufio.Reader
}

func newConn(c *net.UnixConn) *conn { return &conn{c, bufio.NewReader(c)} }

func (c *conn) send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.Write(append(line, '\n'))
	return err
}

func (c *conn) receive(v any) error {
	line, err := c.reader.ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(line, v)
}

// sendFiles passes descriptors; every request begins with it, be it with none.
func (c *conn) sendFiles(files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix([]byte{0}, rights, nil)
	return err
}

const maxFiles = 3

func (c *conn) receiveFiles() ([]*os.File, error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, length, _, _, err := c.ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(rights[:length])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

const socketName = "shim.sock"

// inDirectory calls do with a short name for a file in dir: a socket's path may not exceed 107 bytes, and dir's may.
func inDirectory(dir, file string, do func(name string) error) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer handle.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", handle.Fd(), file))
}

// sameUser tells whether the process at the other end is ours.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	_ = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(peer.Uid) == os.Getuid()
	})
	return same
}

// writeJSON replaces a file whole or not at all.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFile(path, text)
}

// WriteFile replaces a file whole or not at all, also when the machine loses its power meanwhile.
func WriteFile(path string, text []byte) error {
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// StatusFile is where the status of a container is kept.
func StatusFile(dir, id string) string { return filepath.Join(dir, "containers", id, "status.json") }

// ReadStatus reads the status of a container from the pod's directory; not ok when it was never started.
func ReadStatus(dir, id string) (s Status, ok bool) {
	return s, readJSON(StatusFile(dir, id), &s) == nil
}

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(id[:max(0, len(id)-1)])
}

func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
