package supervise

import (
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
// writing to the same file, which it has open for appending.
func rotate(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= logLimit {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}
