package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// answer is what stdout gets.
type answer struct {
	Stages []*stage `json:"stages"`
	Error  *problem `json:"error,omitempty"`
}

// problem is what is wrong with a Dockerfile.
type problem struct {
	Line    int    `json:"line"` // 0 where it is about the whole file
	Message string `json:"message"`
}

type stage struct {
	Line         int            `json:"line"`
	Name         string         `json:"name"`
	Base         string         `json:"base"`
	Platform     string         `json:"platform"`
	Instructions []*instruction `json:"instructions"`
}

// instruction has values in those fields that its kind has.
type instruction struct {
	Name     string      `json:"name"`
	Line     int         `json:"line"`
	Text     string      `json:"text"`               // as it is written
	Pairs    [][2]string `json:"pairs,omitempty"`    // ENV, LABEL
	Words    []string    `json:"words,omitempty"`    // WORKDIR, USER, EXPOSE; the exec form of CMD, ENTRYPOINT, RUN
	Shell    bool        `json:"shell,omitempty"`    // CMD, ENTRYPOINT, RUN: the one word is for a shell
	Commands [][]string  `json:"commands,omitempty"` // RUN: simple commands between &&
	Refused  string      `json:"refused,omitempty"`  // RUN: why it is more than that
	Flags    []string    `json:"flags,omitempty"`    // RUN, COPY, ADD: which ones are given
	Heredoc  bool        `json:"heredoc,omitempty"`  // RUN, COPY, ADD
	Env      [][2]string `json:"env,omitempty"`      // RUN: ARG and ENV that it sees
	Copy     *files      `json:"copy,omitempty"`     // COPY, ADD
	Error    string      `json:"error,omitempty"`    // it cannot be read; nothing follows it
}

// reader goes through a Dockerfile as BuildKit's dockerfile2llb does, of which the parts that expand are not exported.
type reader struct {
	request
	lex    *shell.Lex
	global *variables
	stage  *variables // ARG and ENV of the current stage
	out    answer
	tree   *tree
}

func read(asked request) (*answer, error) {
	text, err := os.ReadFile(asked.File)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return &answer{Error: explained(err)}, nil
	}
	r := &reader{request: asked, lex: shell.NewLex(parsed.EscapeToken), global: platform(asked.Args)}
	for _, node := range parsed.AST.Children {
		if !r.take(node) {
			break
		}
	}
	return &r.out, nil
}

// platform is what BuildKit predefines; a stage gets it by a bare ARG.
func platform(overrides map[string]string) *variables {
	set := &variables{}
	for _, side := range []string{"BUILD", "TARGET"} {
		set.put(side+"PLATFORM", runtime.GOOS+"/"+runtime.GOARCH)
		set.put(side+"OS", runtime.GOOS)
		set.put(side+"ARCH", runtime.GOARCH)
		set.put(side+"VARIANT", "")
	}
	for name := range set.values {
		if value, ok := overrides[name]; ok {
			set.put(name, value)
		}
	}
	return set
}

// take reads one instruction, and tells whether the next may follow.
func (r *reader) take(node *parser.Node) bool {
	parsed, err := instructions.ParseInstruction(node)
	if err == nil {
		switch c := parsed.(type) {
		case *instructions.Stage:
			err = r.from(c)
			if err == nil {
				return true
			}
		case *instructions.ArgCommand:
			if len(r.out.Stages) == 0 {
				err = r.argument(c, r.global, nil)
			} else {
				err = r.argument(c, r.stage, r.global)
			}
			if err == nil {
				return true
			}
		case instructions.Command:
			if len(r.out.Stages) == 0 {
				r.out.Error = &problem{node.StartLine, strings.ToUpper(node.Value) + " before FROM"}
				return false
			}
			found, wrong := r.instruction(c, node)
			r.add(found)
			if wrong != nil {
				found.Error = message(wrong)
			}
			return wrong == nil
		}
	}
	if len(r.out.Stages) == 0 || isFrom(node) {
		r.out.Error = &problem{node.StartLine, strings.ToUpper(node.Value) + ": " + message(err)}
	} else {
		r.add(&instruction{Name: strings.ToUpper(node.Value), Line: node.StartLine, Text: node.Original, Error: message(err)})
	}
	return false
}

func isFrom(node *parser.Node) bool { return strings.EqualFold(node.Value, "from") }

func (r *reader) add(found *instruction) {
	last := r.out.Stages[len(r.out.Stages)-1]
	last.Instructions = append(last.Instructions, found)
}

func (r *reader) from(c *instructions.Stage) error {
	base, err := r.lex.ProcessWordWithMatches(c.BaseName, r.global)
	if err != nil {
		return err
	}
	if base.Result == "" {
		return fmt.Errorf("the name of the base image (%s) should not be blank", c.BaseName)
	}
	forPlatform, err := r.lex.ProcessWordWithMatches(c.Platform, r.global)
	if err != nil {
		return err
	}
	found := &stage{Line: line(c.Location), Name: c.Name, Base: base.Result, Platform: forPlatform.Result}
	r.out.Stages = append(r.out.Stages, found)
	r.stage = &variables{}
	for _, pair := range r.Env {
		name, value, _ := strings.Cut(pair, "=")
		r.stage.put(name, value)
	}
	return nil
}

// argument is ARG: a build argument first, then its default, then (in a stage) what was set before FROM.
func (r *reader) argument(c *instructions.ArgCommand, into, global *variables) error {
	for _, arg := range c.Args {
		value, given := r.Args[arg.Key]
		switch {
		case given:
		case arg.Value != nil:
			expanded, err := r.lex.ProcessWordWithMatches(*arg.Value, into)
			if err != nil {
				return err
			}
			value = expanded.Result
		case global == nil:
			continue
		default:
			inherited, ok := global.Get(arg.Key)
			if !ok {
				continue
			}
			value = inherited
		}
		into.put(arg.Key, value)
	}
	return nil
}

func (r *reader) expand(word string) (string, error) {
	expanded, err := r.lex.ProcessWordWithMatches(word, r.stage)
	return expanded.Result, err
}

// instruction reads any other; what it returns beside an error is what was read before.
func (r *reader) instruction(c instructions.Command, node *parser.Node) (*instruction, error) {
	found := &instruction{Name: strings.ToUpper(c.Name()), Line: node.StartLine, Text: node.Original}
	if expands, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := expands.Expand(r.expand); err != nil {
			return found, err
		}
	}
	switch c := c.(type) {
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			r.stage.put(pair.Key, pair.Value)
			found.Pairs = append(found.Pairs, [2]string{pair.Key, pair.Value})
		}
	case *instructions.LabelCommand:
		for _, pair := range c.Labels {
			found.Pairs = append(found.Pairs, [2]string{pair.Key, pair.Value})
		}
	case *instructions.WorkdirCommand:
		found.Words = []string{c.Path}
	case *instructions.UserCommand:
		found.Words = []string{c.User}
	case *instructions.ExposeCommand:
		return found, r.expose(c, found)
	case *instructions.CmdCommand:
		found.Words, found.Shell = c.CmdLine, c.PrependShell
	case *instructions.EntrypointCommand:
		found.Words, found.Shell = c.CmdLine, c.PrependShell
	case *instructions.RunCommand:
		r.run(c, found)
	case *instructions.CopyCommand:
		found.Flags, found.Heredoc = given(node), len(c.SourceContents) > 0
		found.Copy = &files{From: c.From, Chmod: c.Chmod, Dest: c.DestPath}
		return found, r.files(c.SourcePaths, found.Copy)
	}
	return found, nil
}

func (r *reader) expose(c *instructions.ExposeCommand, found *instruction) error {
	var words []string
	for _, port := range c.Ports {
		expanded, err := r.lex.ProcessWords(port, r.stage)
		if err != nil {
			return err
		}
		words = append(words, expanded...)
	}
	ports, _, err := nat.ParsePortSpecs(words)
	for port := range ports {
		found.Words = append(found.Words, string(port))
	}
	slices.Sort(found.Words)
	return err
}

func (r *reader) run(c *instructions.RunCommand, found *instruction) {
	found.Words, found.Shell, found.Heredoc = c.CmdLine, c.PrependShell, len(c.Files) > 0
	for _, flag := range c.FlagsUsed {
		found.Flags = append(found.Flags, strings.TrimPrefix(flag, "--"))
	}
	found.Env = r.stage.pairs()
	switch {
	case found.Heredoc:
	case c.PrependShell:
		found.Commands, found.Refused = commands(strings.Join(c.CmdLine, " "), r.stage)
	default:
		found.Commands = [][]string{c.CmdLine}
	}
}

// given are the names of an instruction's flags, without their values.
func given(node *parser.Node) []string {
	var names []string
	for _, flag := range node.Flags {
		name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		names = append(names, name)
	}
	return names
}

// variables are names and values in the order in which they came; shell.EnvGetter.
type variables struct {
	names  []string
	values map[string]string
}

func (v *variables) put(name, value string) {
	if v.values == nil {
		v.values = map[string]string{}
	}
	if _, known := v.values[name]; !known {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

// Get is a variable's value, and whether it is set.
func (v *variables) Get(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

// Keys are the names.
func (v *variables) Keys() []string { return slices.Clone(v.names) }

func (v *variables) pairs() [][2]string {
	found := [][2]string{}
	for _, name := range slices.Sorted(maps.Keys(v.values)) {
		found = append(found, [2]string{name, v.values[name]})
	}
	return found
}

func line(ranges []parser.Range) int {
	if len(ranges) == 0 {
		return 0
	}
	return ranges[0].Start.Line
}

// explained is an error of the parser with the line that it names.
func explained(err error) *problem {
	var located *parser.LocationError
	if errors.As(err, &located) && len(located.Locations) > 0 {
		return &problem{line(located.Locations[0]), message(err)}
	}
	return &problem{Message: message(err)}
}

var prefix = regexp.MustCompile(`^dockerfile parse error on line \d+: `)

func message(err error) string { return prefix.ReplaceAllString(strings.TrimSpace(err.Error()), "") }
