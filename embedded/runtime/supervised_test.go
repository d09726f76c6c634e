package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labkit.dev/embedded/sockets"
	"labkit.dev/embedded/supervise"
)

// TestPodsOfAFilteredNode runs this test program again under the socket filter of a cluster's supervisor, as a kubelet is. Its
// pods must have their own filter all the same.
func TestPodsOfAFilteredNode(t *testing.T) {
	if os.Getenv("LABKIT_TEST_FILTERED") != "" {
		t.Run("node", func(t *testing.T) {
			f := open(t, false)
			if f.Supervisor == "" {
				t.Fatal("the supervisor is not announced")
			}
			id := f.start(sh("python3 -c 'import socket; s = socket.socket(); s.bind((\"0.0.0.0\", 80)); print(s.getsockname())'"))
			f.ended(id)
			if log := f.log(id); !strings.Contains(log, "('127.19.") || !strings.Contains(log, "10080") {
				t.Error(log)
			}
		})
		fmt.Println("finished, failed:", t.Failed())
		time.Sleep(time.Minute) // until it is stopped; a component that ends would be started again
	}
	if err := sockets.Supported(); err != nil {
		t.Skip("this sandbox has no seccomp user notification: ", err)
	}
	dir := t.TempDir()
	shim := exec.Command(shimPath, "supervise", "--dir", dir, "--slot", "83")
	if err := shim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = supervise.Call(dir, []byte(`{"op":"shutdown"}`))
		_ = shim.Wait()
	}()
	log := filepath.Join(dir, "node.log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	request := `{"op":"apply","components":[{"name":"node","log":"` + log + `","argv":["` + self + `","-test.run","TestPodsOfAFilteredNode","-test.v"],` +
		`"env":["LABKIT_TEST_FILTERED=1","LABKIT_TEST_SHIM=` + shimPath + `"]}]}`
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := supervise.Call(dir, []byte(request)); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, _ := os.ReadFile(log)
		if strings.Contains(string(text), "finished, failed: false") {
			return
		}
		if strings.Contains(string(text), "finished") || time.Now().After(deadline) {
			t.Fatalf("%s", text)
		}
	}
}
