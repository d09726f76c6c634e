package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"labkit.dev/embedded/shim"
)

// HostImage is built in: it has no files of its own and runs the machine's programs.
const HostImage = "labkit/host:latest"

// Image is an image of the store: its config.json (with the names of OCI's image configuration) and its tags.
type Image struct {
	Digest      string   `json:"digest"`
	Env         []string `json:"env"`
	Entrypoint  []string `json:"entrypoint"`
	Cmd         []string `json:"cmd"`
	WorkDir     string   `json:"workdir"`
	User        string   `json:"user"`
	PathPrepend []string `json:"path_prepend"`
	SizeBytes   uint64   `json:"size_bytes"`

	tags   []string
	rootfs string // directory of its files; "" for the host's
}

// Images is the image service over the store that `labkit image build` writes: refs.json with a digest for each name, and
// blobs/DIGEST with config.json and rootfs/.
type Images struct{ root string }

var hostDigest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(HostImage)))

func hostImage() *Image { return &Image{Digest: hostDigest, tags: []string{HostImage}} }

func (s *Images) refs() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(s.root, "refs.json"))
	if errors.Is(err, os.ErrNotExist) {
		return map[string]string{}, nil
	}
	refs := map[string]string{}
	if err == nil {
		err = json.Unmarshal(text, &refs)
	}
	if err != nil {
		return nil, fmt.Errorf("the list of images cannot be read: %w; delete that file and build the images again", err)
	}
	return refs, nil
}

// load reads the image of a digest.
func (s *Images) load(digest string, refs map[string]string) (*Image, error) {
	if digest == hostDigest {
		return hostImage(), nil
	}
	dir := filepath.Join(s.root, "blobs", digest)
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	image := &Image{rootfs: filepath.Join(dir, "rootfs")}
	if err := json.Unmarshal(text, image); err != nil {
		return nil, err
	}
	image.Digest = digest
	for name, target := range refs {
		if target == digest {
			image.tags = append(image.tags, name)
		}
	}
	slices.Sort(image.tags)
	return image, nil
}

// find resolves a name, an image id, or NAME@DIGEST.
func (s *Images) find(name string) (*Image, error) {
	refs, err := s.refs()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	digest := name
	if _, after, ok := strings.Cut(name, "@"); ok {
		digest = after
	} else if !isDigest(name) {
		digest = refs[normalise(name)]
		if normalise(name) == HostImage {
			digest = hostDigest
		}
	}
	if !isDigest(digest) {
		return nil, s.missing(name, refs)
	}
	image, err := s.load(digest, refs)
	if errors.Is(err, os.ErrNotExist) && refs[normalise(name)] == "" {
		return nil, s.missing(name, refs)
	}
	if err != nil {
		return nil, status.Errorf(codes.DataLoss, "image %s in labkit's image store is damaged (%v); build it again", name, err)
	}
	return image, nil
}

func isDigest(name string) bool {
	digits, ok := strings.CutPrefix(name, "sha256:")
	return ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

// missing says what is there instead, first of all other tags of the same name.
func (s *Images) missing(name string, refs map[string]string) error {
	full := normalise(name)
	repository := full[:strings.LastIndex(full+":", ":")]
	if i := strings.LastIndex(full, ":"); i > 0 {
		repository = full[:i]
	}
	var same, all []string
	for ref := range refs {
		all = append(all, ref)
		if before, tag, ok := strings.Cut(ref, ":"); ok && before == repository {
			same = append(same, tag)
		}
	}
	slices.Sort(same)
	slices.Sort(all)
	known := fmt.Sprintf("known images: %s", strings.Join(append(all, HostImage), ", "))
	if len(same) > 0 {
		known = fmt.Sprintf("known tags of %s: %s", repository, strings.Join(same, ", "))
	}
	return status.Errorf(codes.NotFound, "image %s not found in labkit's image store; build it with `labkit image build DIRECTORY -t %s`; %s", full, full, known)
}

// normalise is the short full form of a name, as Docker reads it: docker.io/library/x is x:latest.
func normalise(name string) string {
	name, _, _ = strings.Cut(name, "@")
	for _, registry := range []string{"docker.io/", "index.docker.io/"} {
		name = strings.TrimPrefix(name, registry)
	}
	name = strings.TrimPrefix(name, "library/")
	if !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		name += ":latest"
	}
	return name
}

// reference is the image with its digest, as kubectl shows it for imageID.
func (i *Image) reference() string {
	if len(i.tags) == 0 {
		return i.Digest
	}
	return i.tags[0][:strings.LastIndex(i.tags[0], ":")] + "@" + i.Digest
}

// describe is the image for CRI. Pinned, because what the kubelet removes from a full disk it could not get back.
func (i *Image) describe() *cri.Image {
	out := &cri.Image{Id: i.Digest, RepoTags: i.tags, Size: max(1, i.SizeBytes), Spec: &cri.ImageSpec{Image: i.Digest}, Pinned: true}
	if len(i.tags) > 0 {
		out.RepoDigests = []string{i.reference()}
	}
	user, _, _ := strings.Cut(i.User, ":")
	if i.rootfs == "" {
		user = strconv.Itoa(os.Getuid())
	}
	if uid, err := strconv.ParseInt(firstOf(user, "0"), 10, 64); err == nil {
		out.Uid = &cri.Int64Value{Value: uid}
	} else {
		out.Username = user
	}
	return out
}

// all lists the images of the store that can be read.
func (s *Images) all() ([]*Image, error) {
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "blobs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	images := []*Image{hostImage()}
	for _, entry := range entries {
		if image, err := s.load(entry.Name(), refs); err == nil {
			images = append(images, image)
		}
	}
	return images, nil
}

// ListImages lists the images that match a filter.
func (s *Images) ListImages(_ context.Context, filter *cri.ImageFilter) ([]*cri.Image, error) {
	if name := filter.GetImage().GetImage(); name != "" {
		image, err := s.find(name)
		if status.Code(err) == codes.NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []*cri.Image{image.describe()}, nil
	}
	images, err := s.all()
	if err != nil {
		return nil, err
	}
	out := make([]*cri.Image, len(images))
	for i, image := range images {
		out[i] = image.describe()
	}
	return out, nil
}

// ImageStatus describes an image; one that is not there is no error.
func (s *Images) ImageStatus(_ context.Context, spec *cri.ImageSpec, _ bool) (*cri.ImageStatusResponse, error) {
	image, err := s.find(spec.GetImage())
	if status.Code(err) == codes.NotFound {
		return &cri.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &cri.ImageStatusResponse{Image: image.describe()}, nil
}

// PullImage finds an image in the store; there is no registry to get others from.
func (s *Images) PullImage(_ context.Context, spec *cri.ImageSpec, _ *cri.AuthConfig, _ *cri.PodSandboxConfig) (string, error) {
	image, err := s.find(spec.GetImage())
	if err != nil {
		return "", err
	}
	return image.Digest, nil
}

// RemoveImage removes a name, or by digest all of an image's names; its files go with the last one.
func (s *Images) RemoveImage(_ context.Context, spec *cri.ImageSpec) error {
	image, err := s.find(spec.GetImage())
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if image.rootfs == "" {
		return status.Errorf(codes.FailedPrecondition, "%s is built in and cannot be removed", HostImage)
	}
	lock, err := os.OpenFile(filepath.Join(s.root, "refs.lock"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the image store: %w", err)
	}
	refs, err := s.refs()
	if err != nil {
		return err
	}
	used := false
	for name, digest := range refs {
		if digest != image.Digest {
			continue
		}
		if strings.Contains(spec.GetImage(), "sha256:") || name == normalise(spec.GetImage()) {
			delete(refs, name)
		} else {
			used = true
		}
	}
	text, err := json.MarshalIndent(refs, "", " ")
	if err != nil {
		return err
	}
	file := filepath.Join(s.root, "refs.json")
	if err := shim.WriteFile(file, text); err != nil || used {
		return err
	}
	return os.RemoveAll(filepath.Join(s.root, "blobs", image.Digest))
}

// ImageFsInfo tells what the images use, and the file system they are on. Containers' files are on the node's own.
func (s *Images) ImageFsInfo(context.Context) (*cri.ImageFsInfoResponse, error) {
	images, err := s.all()
	if err != nil {
		return nil, err
	}
	used := uint64(0)
	for _, image := range images {
		used += image.SizeBytes
	}
	fs := &cri.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: s.root},
		UsedBytes: &cri.UInt64Value{Value: used}, InodesUsed: &cri.UInt64Value{Value: uint64(len(images))},
	}
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{fs}, ContainerFilesystems: []*cri.FilesystemUsage{fs}}, nil
}

// Close has nothing to do.
func (s *Images) Close(context.Context) error { return nil }
