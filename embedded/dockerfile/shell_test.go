package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestCommandsOfAShellLine(t *testing.T) {
	env := &variables{}
	env.put("V", "1 2")
	env.put("Q", "x y")
	for text, want := range map[string][][]string{
		`pip install "a==$V"`:              {{"pip", "install", "a==1 2"}},
		`pip install $V '$V' && echo "$Q"`: {{"pip", "install", "1", "2", "$V"}, {"echo", "x y"}},
		"pip install a # a comment":        {{"pip", "install", "a"}},
		`pip install b[extra] *.whl`:       {{"pip", "install", "b[extra]", "*.whl"}},
		`pip install ${N:-a}`:              {{"pip", "install", "a"}},
	} {
		found, refused := commands(text, env)
		if refused != "" || !reflect.DeepEqual(found, want) {
			t.Errorf("%s: %q, refused %q; want %q", text, found, refused, want)
		}
	}
}

func TestWhatIsMoreThanSimpleCommandsIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"pip install a; rm b":   "goes on after a failure",
		"pip install a || true": "joined by ||",
		"pip install a | cat":   "joined by |",
		"pip install a>=1":      "reads > as a redirection",
		"pip install $(cat a)":  "output of a command",
		"A=1 pip install a":     "sets a variable",
		"! pip install a":       "negates",
		"pip install a &":       "does not wait",
		"(pip install a)":       "more than a simple command",
		"pip install 'a":        "without closing quote",
	} {
		if _, refused := commands(text, &variables{}); !strings.Contains(refused, want) {
			t.Errorf("%s: refused with %q, want %q", text, refused, want)
		}
	}
}
