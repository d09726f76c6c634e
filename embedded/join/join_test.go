package join

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	good := []string{"--server", "127.0.0.1:6443", "--discovery-token-ca-cert-hash", "sha256:ab", "--bootstrap-kubeconfig", "b"}
	o, err := ParseFlags(good, strings.NewReader("abcdef.0123456789abcdef\n"), os.Stderr)
	if err != nil || o.token != "abcdef.0123456789abcdef" || o.Server != "127.0.0.1:6443" {
		t.Fatalf("parsed %+v, %v", o, err)
	}
	for want, missing := range map[string][]string{"--server": good[2:], "--bootstrap-kubeconfig": good[:4], "--discovery-token-ca-cert-hash": append(good[:2:2], good[4:]...)} {
		if _, err := ParseFlags(missing, strings.NewReader("a.b\n"), os.Stderr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v does not name %s", missing, err, want)
		}
	}
	if _, err := ParseFlags(good, strings.NewReader("\n"), os.Stderr); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("without a token: %v", err)
	}
}

func TestWhatCannotBeTrustedIsNotWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bootstrap.kubeconfig")
	o := &Options{Server: "127.0.0.1:1", CACertHash: "sha256:ab", Timeout: 50 * time.Millisecond, Kubeconfig: file, token: "abcdef.0123456789abcdef"}
	err := Discover(o)
	if err == nil || !strings.Contains(err.Error(), "cluster-info") {
		t.Errorf("error %v does not name what could not be fetched", err)
	}
	if strings.Contains(err.Error(), "0123456789abcdef") {
		t.Errorf("error %v has the secret in it", err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s was written", file)
	}
}
