package runtime

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// write makes a file below the test's directory.
func (f *fixture) write(name, content string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// image stores an image in the form of `labkit image build`.
func (f *fixture) image(name string, config map[string]any, files map[string]string) string {
	f.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name+f.dir)))
	for path, content := range files {
		f.write("images/blobs/"+digest+"/rootfs/"+path, content)
	}
	text, _ := json.Marshal(config)
	f.write("images/blobs/"+digest+"/config.json", string(text))
	refs, err := f.images.refs()
	if err != nil {
		f.t.Fatal(err)
	}
	refs[name] = digest
	text, _ = json.Marshal(refs)
	f.write("images/refs.json", string(text))
	return digest
}

func TestVolumesAreAtTheirPaths(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		config := sh("cat /data/f /etc/app/config/c /usr/share/labkit-test/html/index.html /opt/single.txt; echo written > /data/new; echo inner > /data/deep/x")
		mount := func(source, target string) {
			config.Mounts = append(config.Mounts, &cri.Mount{HostPath: source, ContainerPath: target})
		}
		mount(filepath.Dir(f.write("v1/f", "one\n")), "/data")
		mount(filepath.Dir(f.write("v2/c", "two\n")), "/etc/app/config")
		mount(filepath.Dir(f.write("v3/index.html", "three\n")), "/usr/share/labkit-test/html")
		mount(f.write("v4/file", "four\n"), "/opt/single.txt")
		mount(filepath.Dir(f.write("v5/none", "")), "/data/deep")
		mount(filepath.Join(f.dir, "made", "by-us"), "/made")
		if out := f.output(config); out != "one\ntwo\nthree\nfour" {
			t.Errorf("%q", out)
		}
		for _, name := range []string{"v1/new", "v5/x", "made/by-us"} {
			if _, err := os.Stat(filepath.Join(f.dir, name)); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"/data", "/etc/app", "/usr/share/labkit-test", "/opt/single.txt", "/made"} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s was made on the host", name)
			}
		}
	})
}

func TestReadOnlyVolumesAndLiveUpdates(t *testing.T) {
	f := open(t, false)
	dir := filepath.Join(f.dir, "cm")
	f.write("cm/..1/key", "old\n")
	f.write("cm/..2/key", "new\n")
	for link, target := range map[string]string{"..data": "..1", "key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	config := sh("cat /config/key; echo x > /config/y || echo refused; while grep -q old /config/key; do sleep 0.05; done; cat /config/key")
	config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/config", Readonly: true}}
	id := f.start(config)
	f.until("it has tried to write", func() bool { return strings.Contains(f.log(id), "refused") })
	if err := os.Symlink("..2", filepath.Join(dir, "..tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	f.ended(id)
	if log := f.log(id); !strings.HasSuffix(log, "stdout F new\n") {
		t.Error(log)
	}
}

func TestPrivateDirectoriesAndMachineFiles(t *testing.T) {
	f := open(t, false)
	outside := filepath.Join(os.TempDir(), "labkit-test-outside-"+mark())
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(outside)
	config := sh("ls /tmp; touch /tmp/mine /run/mine /mine; cat /etc/hostname /etc/resolv.conf; hostname; ls /var/run; cat /var/run/secrets/token; " +
		"echo bye > /dev/termination-log; ls /dev | tr '\\n' ' '; echo; cat /etc/hosts; echo x > /dev/null; pwd; touch here")
	config.WorkingDir = "/some/where"
	config.Mounts = []*cri.Mount{
		{HostPath: filepath.Dir(f.write("secret/token", "token\n")), ContainerPath: "/var/run/secrets", Readonly: true},
		{HostPath: f.write("term", ""), ContainerPath: "/dev/termination-log"},
		{HostPath: f.write("hosts", "127.0.0.1 localhost\n"), ContainerPath: "/etc/hosts"},
	}
	pod, podConfig := f.pod("named", func(c *cri.PodSandboxConfig) {
		c.DnsConfig = &cri.DNSConfig{Servers: []string{"127.96.0.10"}, Searches: []string{"default.svc.cluster.local", "svc.cluster.local"}, Options: []string{"ndots:5"}}
	})
	id := f.startIn(pod, podConfig, config)
	if s := f.ended(id); s.ExitCode != 0 {
		t.Fatal(f.log(id))
	}
	want := []string{"named", "nameserver 127.96.0.10", "search default.svc.cluster.local svc.cluster.local", "options ndots:5", "named", "mine", "secrets", "token",
		"fd full", "127.0.0.1 localhost", "/some/where"}
	log := strings.ReplaceAll(f.log(id), "stdout F ", "")
	at := 0
	for _, line := range want {
		i := strings.Index(log[at:], line)
		if i < 0 {
			t.Fatalf("%q is missing or out of order in %s", line, log)
		}
		at += i
	}
	if strings.Contains(log, filepath.Base(outside)) {
		t.Error("the host's /tmp is seen")
	}
	if text, _ := os.ReadFile(filepath.Join(f.dir, "term")); string(text) != "bye\n" {
		t.Errorf("termination message %q", text)
	}
	if _, err := os.Stat("/mine"); err == nil {
		t.Error("a file was written to the host's root")
	}
	out, _, err := f.ExecSync(testContext, f.start(sh("echo in > /tmp/f; sleep 60")), []string{"sh", "-c", "while ! cat /tmp/f 2>/dev/null; do sleep 0.02; done; grep Cap /proc/self/status; id -u"}, 10*time.Second)
	if err != nil || !strings.HasPrefix(string(out), "in\n") || !strings.HasSuffix(string(out), fmt.Sprintf("\n%d\n", os.Getuid())) {
		t.Errorf("%s %v", out, err)
	}
	if os.Getuid() != 0 && strings.Count(string(out), "0000000000000000") != 5 {
		t.Errorf("capabilities are left: %s", out)
	}
}

func TestImagesFilesAndEnvironment(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		bin := filepath.Join(f.config.ImagesDir, "layers/k/venv/bin")
		f.write("images/layers/k/venv/bin/hello", "#!/bin/sh\necho hello $GREETING\n")
		if err := os.Chmod(bin+"/hello", 0o755); err != nil {
			t.Fatal(err)
		}
		digest := f.image("shop/catalog:v1", map[string]any{
			"env": []string{"GREETING=from the image", "DATA=/app/data", "PATH=/usr/bin:/bin"}, "entrypoint": []string{"sh", "-c"},
			"cmd": []string{"hello"}, "workdir": "/app", "user": "1000", "path_prepend": []string{bin}, "size_bytes": 123,
		}, map[string]string{"app/main.py": "print('ok')\n", "etc/labkit-test.conf": "conf\n", "app/data/x": "x\n"})
		config := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: "shop/catalog:v1"}, LogPath: "main.log"}
		if out := f.output(config); out != "hello from the image" {
			t.Errorf("%q", out)
		}
		config.Image = &cri.ImageSpec{Image: digest, UserSpecifiedImage: "docker.io/shop/catalog:v1"}
		config.Args = []string{"cat main.py /etc/labkit-test.conf $DATA/x; echo more >> main.py; cat main.py | wc -l; echo $GREETING $HOSTNAME $HOST $POD_BIND"}
		config.Envs = []*cri.KeyValue{{Key: "GREETING", Value: []byte("from the pod")}}
		for range 2 { // a container's writes are not seen by the next
			pod, podConfig := f.pod("shop-" + mark())
			id := f.startIn(pod, podConfig, config)
			f.ended(id)
			mapped := strings.Replace(f.address(pod), "198.", "127.", 1)
			want := fmt.Sprintf("print('ok')\nconf\nx\n2\nfrom the pod %s %s %s\n", podConfig.Hostname, mapped, mapped)
			if out := strings.ReplaceAll(f.log(id), "stdout F ", ""); out != want {
				t.Errorf("%q instead of %q", out, want)
			}
			s := f.status(id)
			if s.ImageId != digest || s.ImageRef != "shop/catalog@"+digest || s.Image.Image != "docker.io/shop/catalog:v1" {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestHostProgramsInHiddenDirectories(t *testing.T) {
	f := open(t, false)
	program := f.write("tools/bin/say", "#!/bin/sh\ncat $(dirname $0)/../share/text\n") // TempDir is below /tmp
	f.write("tools/share/text", "shared\n")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	config := sh("")
	config.Command = []string{program}
	if out := f.output(config); out != "shared" {
		t.Errorf("%q", out)
	}
}

func TestLinksRewriteCommandsAndProbes(t *testing.T) {
	f := open(t, true)
	config := sh("touch /tmp/healthy; grep -o server.* $KUBECONFIG | cut -d'\"' -f3; echo $LOCALDOMAIN $RES_OPTIONS; sleep 60")
	config.Envs = []*cri.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("127.96.0.1")}, {Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")}}
	config.Mounts = []*cri.Mount{{HostPath: filepath.Dir(f.write("sa/token", "t")), ContainerPath: serviceAccountPath}}
	pod, podConfig := f.pod("linked", func(c *cri.PodSandboxConfig) {
		c.DnsConfig = &cri.DNSConfig{Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}}
	})
	id := f.startIn(pod, podConfig, config)
	f.until("it has written", func() bool { return strings.Contains(f.log(id), "ndots") })
	if log := f.log(id); !strings.Contains(log, "https://127.96.0.1:443") || !strings.Contains(log, "default.svc.cluster.local ndots:5") {
		t.Error(log)
	}
	if _, _, err := f.ExecSync(testContext, id, []string{"cat", "/tmp/healthy", serviceAccountPath + "/token"}, time.Second); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/tmp/healthy"); err == nil {
		t.Error("it was written to the host's /tmp")
	}
}

func TestImageService(t *testing.T) {
	f := open(t, false)
	images := f.Images()
	digest := f.image("shop/catalog:v1", map[string]any{"user": "1000:1000", "size_bytes": 5000}, nil)
	f.image("shop/catalog:v2", map[string]any{"user": "app"}, nil)
	_, err := images.PullImage(testContext, &cri.ImageSpec{Image: "shop/catalog:v9"}, nil, nil)
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "shop/catalog:v9 not found in labkit's image store; build it with") ||
		!strings.Contains(err.Error(), "known tags of shop/catalog: v1, v2") {
		t.Error(err)
	}
	if _, err = images.PullImage(testContext, &cri.ImageSpec{Image: "nginx"}, nil, nil); !strings.Contains(err.Error(), "known images: shop/catalog:v1, shop/catalog:v2, labkit/host:latest") {
		t.Error(err)
	}
	for _, name := range []string{"shop/catalog:v1", "docker.io/shop/catalog:v1", digest, "shop/catalog@" + digest} {
		ref, err := images.PullImage(testContext, &cri.ImageSpec{Image: name}, nil, nil)
		if err != nil || ref != digest {
			t.Error(name, ref, err)
		}
		r, err := images.ImageStatus(testContext, &cri.ImageSpec{Image: name}, false)
		if err != nil || r.Image.Id != digest || r.Image.Uid.Value != 1000 || r.Image.Size != 5000 || r.Image.RepoTags[0] != "shop/catalog:v1" {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	if r, err := images.ImageStatus(testContext, &cri.ImageSpec{Image: "nothing:v1"}, false); err != nil || r.Image != nil {
		t.Error(r, err)
	}
	if r, err := images.ImageStatus(testContext, &cri.ImageSpec{Image: "shop/catalog:v2"}, false); err != nil || r.Image.Username != "app" {
		t.Error(r, err)
	}
	if all, err := images.ListImages(testContext, nil); err != nil || len(all) != 3 {
		t.Error(all, err)
	}
	if r, err := images.ImageFsInfo(testContext); err != nil || r.ImageFilesystems[0].UsedBytes.Value != 5000 {
		t.Error(r, err)
	}
	if err := images.RemoveImage(testContext, &cri.ImageSpec{Image: HostImage}); err == nil {
		t.Error("the built-in image was removed")
	}
	for range 2 {
		if err := images.RemoveImage(testContext, &cri.ImageSpec{Image: digest}); err != nil {
			t.Error(err)
		}
	}
	if all, err := images.ListImages(testContext, nil); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
}

func TestTmpfsIsSharedByThePodAndGoesWithIt(t *testing.T) {
	f := open(t, false)
	volume := filepath.Join(f.dir, "volume")
	if err := errors.Join(os.MkdirAll(volume, 0o700), os.Chmod(volume, 0o777)); err != nil {
		t.Fatal(err)
	}
	WantTmpfs(volume, "size=1048576")
	pod, podConfig := f.pod("memory")
	for i, script := range []string{
		"stat -f -c %T /cache; stat -c %a /cache; echo kept > /cache/file; head -c 2000000 /dev/zero > /cache/big",
		"cat /cache/file",
	} {
		config := sh(script)
		config.Metadata.Name, config.LogPath = fmt.Sprint(i), fmt.Sprintf("%d.log", i)
		config.Mounts = []*cri.Mount{{HostPath: volume, ContainerPath: "/cache"}}
		id := f.startIn(pod, podConfig, config)
		f.ended(id)
		log := f.log(id)
		if i == 0 && !(strings.Contains(log, "stdout F tmpfs\nstdout F 777\n") && strings.Contains(log, "No space left")) || i == 1 && log != "stdout F kept\n" {
			t.Errorf("container %d says %q", i, log)
		}
	}
	if entries, err := os.ReadDir(volume); len(entries) > 0 || err != nil {
		t.Errorf("on the machine's disk: %v, %v", entries, err)
	}
}

func TestReadOnlyRootLeavesVolumesWritable(t *testing.T) {
	f := open(t, false)
	writable, fixed := filepath.Join(f.dir, "writable"), filepath.Join(f.dir, "fixed")
	if err := errors.Join(os.MkdirAll(writable, 0o700), os.MkdirAll(fixed, 0o700)); err != nil {
		t.Fatal(err)
	}
	config := sh("for d in / /tmp /etc /data /data/fixed /dev/shm; do touch $d/labkit-test 2>/dev/null && echo $d; done; rm -f /dev/shm/labkit-test; true > /dev/null && echo device")
	config.Mounts = []*cri.Mount{{HostPath: writable, ContainerPath: "/data"}, {HostPath: fixed, ContainerPath: "/data/fixed", Readonly: true}}
	config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{ReadonlyRootfs: true}}
	if got := f.output(config); got != "/data\n/dev/shm\ndevice" {
		t.Errorf("it could write to %q", got)
	}
}

func TestFilesOfAnImageCanBeMoved(t *testing.T) {
	f := open(t, false)
	f.image("tools:v1", map[string]any{"size_bytes": 1}, map[string]string{"cert.pem": "c", "usr/local/labkit-test/tool": "t", "etc/labkit-test": "e"})
	config := sh("mv /cert.pem /tmp/ && cat /tmp/cert.pem && rm /etc/labkit-test && rm -r /usr/local/labkit-test/tool && ls /cert.pem /etc/labkit-test; echo done")
	config.Image.Image = "tools:v1"
	for range 2 { // the second has its own files again
		id := f.start(config)
		f.ended(id)
		log := f.log(id)
		if !strings.Contains(log, "stdout P c") && !strings.Contains(log, "stdout F cdone") || strings.Contains(log, "busy") || strings.Count(log, "No such file") != 2 {
			t.Errorf("%q", log)
		}
	}
}

func TestLargeProgramsAreNotCopied(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		program := "#!/bin/sh\necho $0 runs\nexit 0\n" + strings.Repeat("#", largeProgram)
		digest := f.image("large:v1", map[string]any{"size_bytes": 1}, map[string]string{"usr/local/labkit-test/bin/program": program})
		if err := os.Chmod(filepath.Join(f.config.ImagesDir, "blobs", digest, "rootfs/usr/local/labkit-test/bin/program"), 0o755); err != nil {
			t.Fatal(err)
		}
		config := sh("/usr/local/labkit-test/bin/program; echo x >> /usr/local/labkit-test/bin/other && echo beside it")
		config.Image.Image = "large:v1"
		if got := f.output(config); !strings.Contains(got, "labkit-test/bin/program runs\nbeside it") {
			t.Error(got)
		}
	})
}

func TestLinkToALargeProgramBesideTheHostsOwn(t *testing.T) {
	modes(t, func(t *testing.T, f *fixture) {
		program := "#!/bin/sh\necho $0 runs\nexit 0\n" + strings.Repeat("#", largeProgram)
		digest := f.image("linked:v1", map[string]any{"size_bytes": 1}, map[string]string{"usr/bin/labkit-test-large": program})
		folder := filepath.Join(f.config.ImagesDir, "blobs", digest, "rootfs/usr/bin")
		if err := os.Chmod(filepath.Join(folder, "labkit-test-large"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("labkit-test-large", filepath.Join(folder, "labkit-test-link")); err != nil {
			t.Fatal(err)
		}
		config := &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: "linked:v1"}, LogPath: "main/0.log",
			Command: []string{"/usr/bin/labkit-test-link"},
		}
		if got := f.output(config); !strings.Contains(got, "labkit-test-link runs") {
			t.Error(got)
		}
	})
}
