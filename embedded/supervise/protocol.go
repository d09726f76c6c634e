// Package supervise keeps the components of a cluster running: it starts them under the host socket policy, restarts them
// with a back-off, writes their logs, and takes orders on a socket in the cluster's state directory.
package supervise

import (
	"slices"
	"time"
)

// Component is one program to keep running.
type Component struct {
	Name   string   `json:"name"`
	Argv   []string `json:"argv"`
	Env    []string `json:"env,omitempty"` // added to the supervisor's own
	Dir    string   `json:"dir,omitempty"`
	Policy string   `json:"policy,omitempty"` // "host" (default) or "none"
	Log    string   `json:"log"`
}

func (c Component) equal(d Component) bool {
	return slices.Equal(c.Argv, d.Argv) && slices.Equal(c.Env, d.Env) && c.Dir == d.Dir && c.Policy == d.Policy && c.Log == d.Log
}

// Request is one line that a client sends.
type Request struct {
	Op         string      `json:"op"` // apply, start, stop, signal, remove, run, status, shutdown
	Name       string      `json:"name,omitempty"`
	Components []Component `json:"components,omitempty"`
	Argv       []string    `json:"argv,omitempty"`   // run: a short program, outside the socket filter
	Signal     string      `json:"signal,omitempty"` // TERM, KILL, STOP, CONT, …
	GraceS     float64     `json:"grace_s,omitempty"`
	Order      []string    `json:"order,omitempty"` // shutdown: these first, in this order
}

// Response is the line that answers it.
type Response struct {
	Error      string   `json:"error,omitempty"`
	Slot       int      `json:"slot"`
	Pid        int      `json:"pid"`
	Components []Status `json:"components,omitempty"`
}

// States of a component.
const (
	Running = "running"
	BackOff = "backoff" // ended by itself; is started again after a pause
	Failed  = "failed"  // could not be started; is tried again after a pause
	Stopped = "stopped" // on request
)

// Status is what is known of a component.
type Status struct {
	Name      string    `json:"name"`
	Pid       int       `json:"pid"`
	State     string    `json:"state"`
	Restarts  int       `json:"restarts"`
	StartedAt time.Time `json:"started_at"`
	LastExit  *Exit     `json:"last_exit,omitempty"`
}

// Exit is how a component's process ended.
type Exit struct {
	Code   int       `json:"code"`
	Signal string    `json:"signal,omitempty"`
	Error  string    `json:"error,omitempty"` // it could not be started
	At     time.Time `json:"at"`
}
