package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRewriter(t *testing.T) {
	r := NewRewriter("/r", []string{"/data", "/data/deep", "/etc/app/app.conf", "/tmp", "/"}, []string{"/tmp/tools"})
	for text, want := range map[string]string{
		"/data":                          "/r/data",
		"/data/x":                        "/r/data/x",
		"/data/deep/x":                   "/r/data/deep/x",
		"/database":                      "/database",
		"/data.old":                      "/data.old",
		"my/data":                        "my/data",
		"http://host/data":               "http://host/data",
		"http://data/x":                  "http://data/x",
		"--dir=/data:/tmp,'/data'":       "--dir=/r/data:/r/tmp,'/r/data'",
		"cat /data/a > /tmp/b; cd /data": "cat /r/data/a > /r/tmp/b; cd /r/data",
		"sqlite:////data/shop.db":        "sqlite:////r/data/shop.db",
		"file:///data/x":                 "file:///r/data/x",
		"/etc/app/app.conf":              "/r/etc/app/app.conf",
		"/etc/app/app.config":            "/etc/app/app.config",
		"/etc/app":                       "/etc/app",
		"/tmp/tools/bin/go /tmp/tool":    "/tmp/tools/bin/go /r/tmp/tool",
		"":                               "",
	} {
		if got := r.String(text); got != want {
			t.Errorf("%q becomes %q instead of %q", text, got, want)
		}
	}
}

func TestTreeFollowsLinksOfTheHostButNotOfMounts(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{"to-dir": "real", "loop": "loop", "dangling": "/nowhere/labkit"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	find := func(n *node, target string) *node {
		for _, name := range split(target) {
			if n = n.children[name]; n == nil {
				return nil
			}
		}
		return n
	}
	root, err := tree([]Mount{
		{Source: dir, Target: dir + "/to-dir/sub/deep"}, {Source: dir, Target: dir + "/to-dir/sub"}, {Source: dir, Target: dir + "/dangling"},
		{Source: "/etc/passwd", Target: "/labkit/file"}, {Source: dir, Target: "/labkit/twice"}, {Source: "/", Target: "/labkit/twice"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{dir + "/real/sub", dir + "/real/sub/deep", "/nowhere/labkit"} {
		if n := find(root, target); n == nil || n.mount == nil || n.file {
			t.Errorf("nothing is mounted at %s", target)
		}
	}
	if n := find(root, "/labkit/file"); n == nil || !n.file {
		t.Error("a file is not taken for one")
	}
	if n := find(root, "/labkit/twice"); n == nil || n.mount.Source != "/" {
		t.Error("of two mounts the last does not count")
	}
	for _, wrong := range []Mount{{Source: dir, Target: dir + "/loop/x"}, {Source: dir, Target: "relative"}, {Source: dir, Target: "/"}, {Source: dir + "/none", Target: "/x"}} {
		if _, err := tree([]Mount{wrong}); err == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
}

func TestGrafts(t *testing.T) {
	image := t.TempDir()
	for _, name := range []string{"app/main.py", "app/lib/x.py", "etc/labkit-none.conf", "etc/passwd", "usr/share/labkit-none/a/b", "opt/labkit/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(image, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(image, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Grafts(image)
	want := []string{"/app", "/etc/labkit-none.conf", "/etc/passwd", "/opt/labkit", "/usr/share/labkit-none"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q instead of %q, %v", got, want, err)
	}
}

func TestCopyAndLinks(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	if err := os.WriteFile(filepath.Join(from, "script"), []byte("x"), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("script", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(from, to, 1<<40); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(to, "link")); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Error(info, err)
	}
	volume := t.TempDir()
	if err := Links(to, []Mount{{Source: from, Target: "/data/sub"}, {Source: volume, Target: "/data"}}); err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{filepath.Join(to, "data"): volume, filepath.Join(volume, "sub"): from} {
		if got, err := os.Readlink(link); got != want {
			t.Errorf("%s leads to %q, %v", link, got, err)
		}
	}
	if err := os.Remove(filepath.Join(volume, "sub")); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(volume, "sub", "data")
	if err := os.MkdirAll(precious, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Links(to, []Mount{{Source: from, Target: "/data/sub"}, {Source: volume, Target: "/data"}}); err == nil {
		t.Error("a mount over data in a volume is accepted")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("data in a volume was removed: ", err)
	}
}

func TestLinksOfAnImageLeadToItsCopy(t *testing.T) {
	image, copied := t.TempDir(), filepath.Join(t.TempDir(), "own")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(image, "usr/bin"), 0o755), os.WriteFile(filepath.Join(image, "program"), []byte("p"), 0o755),
		os.Symlink("/program", filepath.Join(image, "usr/bin/other")), os.Symlink("/bin/sh", filepath.Join(image, "shell")),
		os.WriteFile(filepath.Join(image, "large"), make([]byte, 100), 0o755), os.WriteFile(filepath.Join(image, "data"), make([]byte, 100), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	left, err := Copy(image, copied, 100)
	if err != nil || !slices.Equal(left, []string{"/large"}) {
		t.Fatal(left, err)
	}
	for name, size := range map[string]int64{"large": 0, "data": 100} {
		if info, err := os.Stat(filepath.Join(copied, name)); err != nil || info.Size() != size {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(copied, "usr/bin/other")); string(text) != "p" {
		t.Errorf("%q, %v", text, err)
	}
	if link, _ := os.Readlink(filepath.Join(copied, "shell")); link != "/bin/sh" {
		t.Errorf("a link to the host's shell leads to %s", link)
	}
}
