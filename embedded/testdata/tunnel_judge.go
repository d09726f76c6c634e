//go:build ignore

// How Go's own library judges what cloudflared leaves to it: URLs, ports in hostnames, names in lookups, regular expressions.
// It wrote tests/unit/data/tunnel_go.jsonl.gz: go run -C embedded testdata/tunnel_judge.go < questions > answers
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"net"
	"net/url"
	"os"
	"regexp"

	"golang.org/x/net/idna"
)

type question struct {
	Kind string `json:"kind"`
	In   string `json:"in"`
}

type answer struct {
	question
	OK   bool     `json:"ok"`
	Out  []string `json:"out,omitempty"`
	Hits []bool   `json:"hits,omitempty"`
}

var paths = []string{"", "/", "/api/1", "/API/x", "/a.png", "/v12/x", "/ä/ö", "/a\nb", "healthz", "/x y", "/aaa"}

func judge(q question) answer {
	a := answer{question: q}
	var err error
	switch q.Kind {
	case "url":
		var u *url.URL
		if u, err = url.Parse(q.In); err == nil {
			a.Out = []string{u.Scheme, u.Hostname(), u.Path}
		}
	case "split":
		var host, port string
		if host, port, err = net.SplitHostPort(q.In); err == nil {
			a.Out = []string{host, port}
		}
	case "idna":
		var name string
		if name, err = idna.Lookup.ToASCII(q.In); err == nil {
			a.Out = []string{name}
		}
	case "re":
		var re *regexp.Regexp
		if re, err = regexp.Compile(q.In); err == nil {
			for _, path := range paths {
				a.Hits = append(a.Hits, re.MatchString(path))
			}
		}
	}
	a.OK = err == nil
	return a
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(judge(q)); err != nil {
			log.Fatal(err)
		}
	}
}
