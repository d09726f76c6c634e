package main

import (
	"errors"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// commands reads what /bin/sh would run: simple commands between &&, their words expanded by the variables.
//
// The second result tells why it is more than that; then the first is what came before.
func commands(text string, env *variables) ([][]string, string) {
	parsed, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil, err.Error()
	}
	var found [][]string
	if len(parsed.Stmts) == 0 {
		return nil, "there is no command"
	}
	refused := ""
	for _, statement := range parsed.Stmts {
		if refused = chain(statement, env, &found); refused != "" {
			break
		}
	}
	if refused == "" && len(parsed.Stmts) > 1 {
		refused = "the shell goes on after a failure; join commands with &&"
	}
	return found, refused
}

// chain appends the commands of a statement.
func chain(statement *syntax.Stmt, env *variables, found *[][]string) string {
	if statement.Negated || statement.Background || statement.Disown {
		return "the shell negates it or does not wait for it"
	}
	switch command := statement.Cmd.(type) {
	case *syntax.BinaryCmd:
		if len(statement.Redirs) > 0 || command.Op != syntax.AndStmt {
			return fmt.Sprintf("commands joined by %s", command.Op)
		}
		if refused := chain(command.X, env, found); refused != "" {
			return refused
		}
		return chain(command.Y, env, found)
	case *syntax.CallExpr:
		words, err := fields(command, env)
		if err != nil {
			return err.Error()
		}
		*found = append(*found, words)
		if len(statement.Redirs) > 0 {
			return fmt.Sprintf("the shell reads %s as a redirection", statement.Redirs[0].Op)
		}
		return ""
	default:
		return "it is more than a simple command"
	}
}

var errSubstitution = errors.New("the shell substitutes the output of a command")

func fields(command *syntax.CallExpr, env *variables) ([]string, error) {
	if len(command.Assigns) > 0 {
		return nil, errors.New("it sets a variable; use ENV or ARG")
	}
	substitutes := false
	syntax.Walk(command, func(node syntax.Node) bool {
		switch node.(type) {
		case *syntax.CmdSubst, *syntax.ProcSubst:
			substitutes = true
		}
		return true
	})
	if substitutes {
		return nil, errSubstitution
	}
	config := &expand.Config{Env: expand.FuncEnviron(func(name string) string { return env.values[name] })}
	return expand.Fields(config, command.Args...)
}
