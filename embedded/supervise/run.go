package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Variable is the environment variable in which components find the state directory of their supervisor.
const Variable = "LABKIT_SUPERVISOR"

const runLimit = 30 * time.Second

// runOnce runs a short program outside the socket filter and waits for it; what it leaves in the background is on its own.
// Components need it to start pods: a process under a filter cannot give its children another one (seccomp(2), EBUSY).
func runOnce(argv []string) error {
	if len(argv) == 0 {
		return errors.New("run: no program")
	}
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(output)))
	}
	return nil
}

// RunOnce asks the supervisor of the cluster in dir to run a short program outside the socket filter.
func RunOnce(dir string, argv []string) error {
	line, err := json.Marshal(Request{Op: "run", Argv: argv})
	if err != nil {
		return err
	}
	raw, err := Call(dir, line)
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	var response Response
	if err := json.Unmarshal(raw, &response); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	if response.Error != "" {
		return errors.New(response.Error)
	}
	return nil
}

// announce puts the state directory into our environment, which components inherit.
func announce(dir string) error {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return os.Setenv(Variable, absolute)
}
