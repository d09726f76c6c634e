package runtime

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"

	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/shim"
)

const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// link is for a container without a mount namespace: its mounts become links in its private directory, and their paths in its
// command, its environment and its working directory become those of the links.
func (l *layout) link(c *container, spec *shim.Container, env variables) error {
	var mounts []rootfs.Mount
	c.Rewrite = l.grafts
	for _, m := range l.mounts {
		switch {
		case m.Source == m.Target:
			c.Keep = append(c.Keep, m.Target)
			continue
		case !strings.HasPrefix(m.Source, l.own+"/"): // what is in there has its place already
			mounts = append(mounts, m)
		}
		c.Rewrite = append(c.Rewrite, m.Target)
	}
	if err := rootfs.Links(l.own, mounts); err != nil {
		return err
	}
	rewrite := c.rewriter()
	for i, word := range spec.Argv {
		spec.Argv[i] = rewrite.String(word)
	}
	for name, value := range env {
		if name != "PATH" {
			env[name] = rewrite.String(value)
		}
	}
	if spec.Dir = rewrite.String(spec.Dir); spec.Dir == "/" {
		spec.Dir = l.own
	}
	env["TMPDIR"] = l.own + "/tmp"
	c.resolver(env)
	if err := l.kubeconfig(env); err != nil {
		return err
	}
	spec.Env = env.list()
	return nil
}

// rewriter changes the paths in commands for a container without a mount namespace.
func (c *container) rewriter() *rootfs.Rewriter {
	return rootfs.NewRewriter(filepath.Join(c.dir, "own"), c.Rewrite, c.Keep)
}

// inside is a command as it must be for the container's file system.
func (c *container) inside(argv []string) []string {
	if c.sandbox.mounts {
		return argv
	}
	rewrite, out := c.rewriter(), make([]string, len(argv))
	for i, word := range argv {
		out[i] = rewrite.String(word)
	}
	return out
}

// resolver sets the search domains of /etc/resolv.conf by the variables of resolver(5).
func (c *container) resolver(env variables) {
	dns := c.sandbox.config.GetDnsConfig()
	if len(dns.GetSearches()) > 0 {
		env["LOCALDOMAIN"] = strings.Join(dns.Searches, " ")
	}
	if len(dns.GetOptions()) > 0 {
		env["RES_OPTIONS"] = strings.Join(dns.Options, " ")
	}
}

// kubeconfig gives clients in the cluster what they would find at the path of the service account's token.
func (l *layout) kubeconfig(env variables) error {
	account := l.own + serviceAccountPath
	if _, err := os.Stat(filepath.Join(account, "token")); err != nil || env["KUBECONFIG"] != "" {
		return nil
	}
	server := "https://" + env["KUBERNETES_SERVICE_HOST"] + ":" + env["KUBERNETES_SERVICE_PORT"]
	namespace, _ := os.ReadFile(filepath.Join(account, "namespace"))
	type named map[string]any
	config := named{
		"apiVersion": "v1", "kind": "Config", "current-context": "pod",
		"clusters": []named{{"name": "cluster", "cluster": named{"server": server, "certificate-authority": path.Join(account, "ca.crt")}}},
		"users":    []named{{"name": "pod", "user": named{"tokenFile": path.Join(account, "token")}}},
		"contexts": []named{{"name": "pod", "context": named{"cluster": "cluster", "user": "pod", "namespace": string(namespace)}}},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	file := filepath.Join(filepath.Dir(l.own), "kubeconfig")
	env["KUBECONFIG"] = file
	return os.WriteFile(file, text, 0o600)
}
