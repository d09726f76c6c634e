package supervise

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"

	"labkit.dev/embedded/sockets"
)

const logLimit = 20 << 20 // bytes; one older file is kept

// starter starts processes from one thread that lives as long as the supervisor: the kernel sends a parent-death signal
// when the starting thread ends, not only when its process does.
type starter struct {
	jobs chan startJob
}

type startJob struct {
	cmd  *exec.Cmd
	spec sockets.Spec
	done chan error
}

func newStarter() *starter {
	s := &starter{jobs: make(chan startJob)}
	supervisor := sockets.New(sockets.Policy{Kind: sockets.Host})
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job.done <- supervisor.Start(job.cmd, job.spec)
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd, spec sockets.Spec) error {
	job := startJob{cmd, spec, make(chan error, 1)}
	s.jobs <- job
	return <-job.done
}

// openLog opens a component's log for appending; one that has grown too large becomes the older file.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		_ = os.Rename(path, path+".1")
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// rotate moves the content of a running component's log to the older file when it has grown too large. The component goes on
// writing to the same file, which it has open for appending. On a full disk the last lines are kept alone, and the rest makes room.
func rotate(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= logLimit {
		return err
	}
	older := path + ".1"
	if err := os.Remove(older); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	failed := copyFile(path, older)
	if failed == nil {
		return os.Truncate(path, 0)
	}
	_ = os.Remove(older)
	kept, err := tail(path)
	if err != nil {
		return errors.Join(failed, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return errors.Join(failed, err)
	}
	return os.WriteFile(older, kept, 0o600)
}

func copyFile(source, target string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// tailSize is how much of a log is kept, in bytes, when there is no room for more.
const tailSize = 256 << 10

// tail reads the last lines of a file.
func tail(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(-tailSize, io.SeekEnd); err != nil {
		return nil, err
	}
	kept, err := io.ReadAll(file)
	_, lines, _ := bytes.Cut(kept, []byte("\n"))
	return lines, err
}
