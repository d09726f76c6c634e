package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// output is what a program prints, given its input.
func output(t *testing.T, run func([]string) error, input string, args ...string) (string, error) {
	t.Helper()
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(in, []byte(input), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	oldIn, oldOut := os.Stdin, os.Stdout
	os.Stdin, os.Stdout = reader, writer
	failed := run(args)
	os.Stdin, os.Stdout = oldIn, oldOut
	reader.Close()
	writer.Close()
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), failed
}

func TestNetcatSendsItsInputAndPrintsTheAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		asked, _ := io.ReadAll(conn)
		_, _ = conn.Write([]byte("you said " + string(asked)))
		conn.Close()
	}()
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	got, err := output(t, netcat, "hostName\n", "-t", "-w", "2", host, port)
	if got != "you said hostName\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	listener.Close()
	if _, err := output(t, netcat, "", "-w", "2", host, port); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
}

func TestSiteServesItsFilesUnderTheirOwnNames(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "index.html"), []byte("welcome"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(site(folder))
	defer server.Close()
	for path, want := range map[string]string{"/": "welcome", "/index.html": "welcome", "/none": "404 page not found\n"} {
		answer, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(body) != want {
			t.Errorf("%s: %q", path, body)
		}
	}
}

func TestStressHoldsWhatItIsTold(t *testing.T) {
	if err := stress([]string{"-m", "1", "--vm-bytes", "4M", "--vm-hang", "0", "-t", "0"}); err != nil {
		t.Error(err)
	}
	if err := stress([]string{"--vm-bytes", "muchM"}); err == nil {
		t.Error("a size that is no number was taken")
	}
}
