package node

import (
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"unsafe"

	_ "github.com/moby/sys/userns"
	"k8s.io/kubernetes/pkg/kubelet"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/volume/util/hostutil"
)

// kubeletLogLinks is where the kubelet keeps links to container logs for log collectors: a directory of the host that
// is not ours.
const kubeletLogLinks = "/var/log/containers"

// confinedOS is the operating system as the kubelet may use it here: nothing outside the node's own directories is
// created, linked or cleaned.
type confinedOS struct{ kubecontainer.RealOS }

func ofHost(path string) bool {
	return path == kubeletLogLinks || strings.HasPrefix(path, kubeletLogLinks+"/")
}

func (o confinedOS) MkdirAll(path string, perm os.FileMode) error {
	if ofHost(path) {
		return nil
	}
	return o.RealOS.MkdirAll(path, perm)
}

func (o confinedOS) Symlink(target, link string) error {
	if ofHost(link) {
		return nil
	}
	return o.RealOS.Symlink(target, link)
}

func (o confinedOS) Glob(pattern string) ([]string, error) {
	if ofHost(pattern) {
		return nil, nil
	}
	return o.RealOS.Glob(pattern)
}

func (o confinedOS) Remove(path string) error {
	if ofHost(path) {
		return nil
	}
	return o.RealOS.Remove(path)
}

// sharedHost is the host's file utilities without the one thing that needs root: mount propagation.
type sharedHost struct{ *hostutil.HostUtil }

func (sharedHost) MakeRShared(string) error { return nil }

// inUserNamespace is what the kubelet asks to learn whether it runs rootless (github.com/moby/sys/userns.inUserNS).
//
//go:linkname inUserNamespace github.com/moby/sys/userns.inUserNS
var inUserNamespace func() bool

// runRootless makes the kubelet behave as in a user namespace (upstream's way to run without root) if the kernel log,
// which its out-of-memory watcher reads, may not be opened. Without it the kubelet would refuse to start.
func runRootless() {
	log, err := os.Open("/dev/kmsg")
	if err == nil {
		log.Close()
		return
	}
	inUserNamespace = func() bool { return true }
}

// acceptNodeIP is a kubelet option that replaces the check of --node-ip. Upstream demands that the address is on a
// network interface; here 198.18.a.b is served at 127.18.a.b, which always is. The field is not exported: a kubelet
// without it panics at start, and TestAcceptNodeIP fails.
func acceptNodeIP(address net.IP) kubelet.Option {
	return func(k *kubelet.Kubelet) {
		field := reflect.ValueOf(k).Elem().FieldByName("nodeIPValidator")
		check := func(ip net.IP) error {
			if !ip.Equal(address) {
				return fmt.Errorf("node IP %s is not the address of this node, %s", ip, address)
			}
			return nil
		}
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(check))
	}
}
