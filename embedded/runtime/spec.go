package runtime

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/loopback"
	"labkit.dev/embedded/rootfs"
	"labkit.dev/embedded/shim"
)

// prepare makes a container's private files and says how to start it.
func (r *Runtime) prepare(c *container, image *Image) (shim.Container, error) {
	spec := shim.Container{
		ID: c.id, Log: c.Log, Stdin: c.config.Stdin, StdinOnce: c.config.StdinOnce, TTY: c.config.Tty,
		MemoryLimit: uint64(max(0, c.resources.GetMemoryLimitInBytes())),
		Argv:        command(c.config, image),
		Pids:        pids(c.config.GetLinux().GetSecurityContext().GetNamespaceOptions()),
	}
	if c.resources != nil {
		score := int(c.resources.OomScoreAdj)
		spec.OOMScore = &score
	}
	if len(spec.Argv) == 0 {
		return spec, status.Errorf(codes.InvalidArgument, "no command specified: neither the pod nor image %s has one", c.image().Image)
	}
	env := r.environment(c, image)
	spec.Dir = firstOf(c.config.WorkingDir, image.WorkDir, "/")
	layout, err := r.layOut(c, image, spec.Dir, append([]string{spec.Argv[0]}, filepath.SplitList(env["PATH"])...))
	if err != nil {
		return spec, err
	}
	if c.sandbox.mounts {
		security := c.config.GetLinux().GetSecurityContext()
		spec.Env, spec.User, spec.Tmpfs = env.list(), user(security), wantedTmpfs(c.config.Mounts)
		spec.Rootfs = &rootfs.Plan{
			Stage: filepath.Join(c.dir, "stage"), Mounts: layout.mounts,
			ReadOnly: security.GetReadonlyRootfs(), Capabilities: capabilities(security),
		}
		return spec, os.MkdirAll(spec.Rootfs.Stage, 0o700)
	}
	return spec, layout.link(c, &spec, env)
}

// user is the user that a pod or an image asks for; nil for root, who containers are without being shown so: with no more rights
// than whoever runs the node, it is this user that programs had better see.
func user(context *cri.LinuxContainerSecurityContext) *shim.User {
	uid, gid := context.GetRunAsUser().GetValue(), context.GetRunAsGroup().GetValue()
	if uid == 0 || uid > math.MaxInt32 || gid > math.MaxInt32 {
		return nil
	}
	return &shim.User{UID: int(uid), GID: int(gid)}
}

// pids says whose processes a container sees, as shim.Container has it. Without options it is its own.
func pids(options *cri.NamespaceOption) string {
	if options == nil {
		return ""
	}
	switch options.Pid {
	case cri.NamespaceMode_POD:
		return "pod"
	case cri.NamespaceMode_NODE:
		return "node"
	case cri.NamespaceMode_TARGET:
		return options.TargetId
	}
	return ""
}

// capabilities are those that the pod adds.
func capabilities(context *cri.LinuxContainerSecurityContext) []string {
	if context.GetPrivileged() {
		return []string{"ALL"}
	}
	var out []string
	for _, name := range context.GetCapabilities().GetAddCapabilities() {
		out = append(out, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	return out
}

// command is what Kubernetes makes of the pod's command and args and the image's ENTRYPOINT and CMD.
func command(config *cri.ContainerConfig, image *Image) []string {
	if len(config.Command) > 0 {
		return slices.Concat(config.Command, config.Args)
	}
	if len(config.Args) > 0 {
		return slices.Concat(image.Entrypoint, config.Args)
	}
	return slices.Concat(image.Entrypoint, image.Cmd)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// variables is an environment.
type variables map[string]string

func (v variables) list() []string {
	out := make([]string, 0, len(v))
	for name, value := range v {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what the image says, then the pod; below them are defaults, above them our marks. Programs are looked for in
// the image's own directories, then as the image says, then where this machine has them.
func (r *Runtime) environment(c *container, image *Image) variables {
	address := loopback.Map(c.sandbox.Address).String()
	env := variables{"HOSTNAME": c.sandbox.Hostname, "HOST": address, "POD_BIND": address, "HOME": "/tmp", "PATH": defaultPath}
	if c.config.Tty {
		env["TERM"] = "xterm"
	}
	for _, entry := range image.Env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	paths := slices.Concat(image.PathPrepend, filepath.SplitList(env["PATH"]), filepath.SplitList(os.Getenv("PATH")))
	env["PATH"] = strings.Join(unique(paths), ":")
	for _, pair := range c.config.Envs {
		env[pair.Key] = string(pair.Value)
	}
	env[shim.SandboxVariable], env[shim.ContainerVariable] = c.sandbox.id, c.id
	return env
}

func unique(values []string) []string {
	var out []string
	for _, v := range values {
		if v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// layout is where a container's files are.
type layout struct {
	own    string         // its private directory: the image's files, tmp, run
	grafts []string       // paths of the image's files that the host does not have
	mounts []rootfs.Mount // everything, own directories included
}

// private directories of every container; the host's are not seen.
var privateDirectories = []string{"/tmp", "/run"}

// layOut copies the image's files for the container and lists what is to be seen where. Programs are files or directories that
// must be visible even if they are in a directory of the host that is hidden.
func (r *Runtime) layOut(c *container, image *Image, workDir string, programs []string) (*layout, error) {
	l := &layout{own: filepath.Join(c.dir, "own")}
	var programsLeft []string
	if image.rootfs != "" {
		large := int64(largeProgram)
		if !c.sandbox.mounts {
			large = math.MaxInt64
		}
		var err error
		if programsLeft, err = rootfs.Copy(image.rootfs, l.own, large); err != nil {
			return nil, fmt.Errorf("copy the image's files: %w", err)
		}
	}
	for _, dir := range privateDirectories {
		if err := os.MkdirAll(l.own+dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(l.own+dir, 0o777|os.ModeSticky); err != nil {
			return nil, err
		}
		l.add(l.own+dir, dir, false)
	}
	for _, dir := range visible(programs) {
		l.add(dir, dir, false)
	}
	if image.rootfs != "" {
		l.add(r.ImagesDir, r.ImagesDir, true)
		grafts, err := rootfs.Grafts(l.own)
		if err != nil {
			return nil, err
		}
		for _, target := range grafts {
			if !slices.Contains(privateDirectories, target) {
				l.grafts = append(l.grafts, target)
				l.graft(target, image.rootfs, programsLeft)
			}
		}
		for _, target := range programsLeft {
			l.add(image.rootfs+target, target, true)
		}
	}
	if err := l.workDir(workDir); err != nil {
		return nil, err
	}
	for name, target := range map[string]string{"hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"} {
		source := filepath.Join(c.sandbox.dir, name)
		if info, err := os.Stat(source); err == nil && info.Size() > 1 {
			l.add(source, target, false)
		}
	}
	return l, r.addVolumes(l, c.config)
}

func (l *layout) add(source, target string, readOnly bool) {
	l.mounts = append(l.mounts, rootfs.Mount{Source: source, Target: target, ReadOnly: readOnly})
}

// largeProgram is the size in bytes from which a program of an image is not copied for each container but shown, read-only.
const largeProgram = 8 << 20

// smallFile is the size in bytes up to which files of an image are copied into the memory that a container's root is made of.
const smallFile = 256 << 10

// graft shows one of the image's paths that the host does not have. A link to a program that was left empty is that program.
func (l *layout) graft(target, image string, left []string) {
	if leads, err := filepath.EvalSymlinks(l.own + target); err == nil && leads != l.own+target {
		if inside := strings.TrimPrefix(leads, l.own); slices.Contains(left, inside) {
			l.add(image+inside, target, true)
			return
		}
	}
	info, err := os.Stat(l.own + target)
	small := err == nil && info.Mode().IsRegular() && info.Size() <= smallFile
	l.mounts = append(l.mounts, rootfs.Mount{Source: l.own + target, Target: target, Copy: small})
}

// workDir makes a working directory that neither the host nor the image has.
func (l *layout) workDir(dir string) error {
	if !path.IsAbs(dir) {
		return status.Errorf(codes.InvalidArgument, "the working directory %q is not an absolute path", dir)
	}
	if info, err := os.Stat(l.own + dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(l.own+dir, 0o755); err != nil {
		return err
	}
	if info, err := os.Stat(dir); (err != nil || !info.IsDir()) && !slices.Contains(privateDirectories, dir) {
		l.grafts = append(l.grafts, dir)
		l.add(l.own+dir, dir, false)
	}
	return nil
}

// addVolumes adds the pod's mounts. A hostPath that does not exist becomes a directory, as in other runtimes.
func (r *Runtime) addVolumes(l *layout, config *cri.ContainerConfig) error {
	for _, m := range config.Mounts {
		source, readOnly := m.HostPath, m.Readonly
		if m.GetImage().GetImage() != "" {
			image, err := r.images.find(m.Image.Image)
			if err != nil {
				return err
			}
			source, readOnly = filepath.Join(image.rootfs, filepath.Join("/", m.ImageSubPath)), true
		}
		if _, err := os.Stat(source); os.IsNotExist(err) {
			if err := os.MkdirAll(source, 0o755); err != nil {
				return fmt.Errorf("mount at %s: %w", m.ContainerPath, err)
			}
		}
		target := m.ContainerPath
		if !path.IsAbs(target) {
			target = "/" + target
		}
		l.mounts = append(l.mounts, rootfs.Mount{Source: source, Target: path.Clean(target), ReadOnly: readOnly, Volume: true})
	}
	return nil
}

// visible are the directories that programs need and that would be hidden by private directories: an installation's top
// directory for what is in its bin.
func visible(programs []string) []string {
	var out []string
	for _, program := range programs {
		if !path.IsAbs(program) {
			continue
		}
		dir := path.Clean(program)
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "python")); err == nil { // a virtual environment's interpreter
			out = append(out, shown(filepath.Dir(real))...)
		}
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				out = append(out, shown(filepath.Dir(real))...)
			}
			dir = path.Dir(dir)
		}
		if err == nil {
			out = append(out, shown(dir)...)
		}
	}
	return unique(out)
}

func shown(dir string) []string {
	for _, hidden := range privateDirectories {
		if !strings.HasPrefix(dir, hidden+"/") {
			continue
		}
		if top := path.Dir(dir); path.Base(dir) == "bin" && top != hidden {
			return []string{top}
		}
		return []string{dir}
	}
	return nil
}
