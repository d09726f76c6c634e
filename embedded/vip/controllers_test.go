package vip

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
)

// start runs a controller of the last slot on a fake API server that holds objects.
func start(t *testing.T, volumes string, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	client := fakeClient(objects...)
	run(t, volumes, client)
	return client
}

func fakeClient(objects ...runtime.Object) *fake.Clientset { return fake.NewClientset(objects...) }

// run runs a controller of the last slot.
func run(t *testing.T, volumes string, client *fake.Clientset) {
	t.Helper()
	plan, err := PlanOf(7)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	c := New(Config{Client: client, Plan: plan, VolumesDir: volumes, Log: slog.New(slog.DiscardHandler), Backoff: hurried})
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
}

// hurried passes in a second through more attempts than the product makes in an hour.
func hurried() workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Millisecond, 10*time.Millisecond)
}

// failing makes the API server refuse a kind of request until it is told to stop, after many attempts.
func failing(t *testing.T, client *fake.Clientset, verb, resource string) (mend func()) {
	t.Helper()
	var attempts atomic.Int64
	var mended atomic.Bool
	client.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		if mended.Load() {
			return false, nil, nil
		}
		attempts.Add(1)
		return true, nil, errors.New("the database is full")
	})
	return func() {
		t.Helper()
		eventually(t, "it is tried many times", func() bool { return attempts.Load() > 50 })
		mended.Store(true)
	}
}

func TestWorkIsDoneWhenItsTroubleIsOver(t *testing.T) {
	ctx := context.Background()
	t.Run("a certificate", func(t *testing.T) {
		client := fakeClient(own().object(t), node("worker-1", "198.19.200.1"))
		mend := failing(t, client, "update", "certificatesigningrequests")
		run(t, "", client)
		mend()
		eventually(t, "the request is approved", func() bool { return approved(client) })
	})
	t.Run("a pod range", func(t *testing.T) {
		client := fakeClient(node("worker-1", "198.19.200.1"))
		mend := failing(t, client, "patch", "nodes")
		run(t, "", client)
		mend()
		eventually(t, "worker-1 has its range", func() bool {
			n, err := client.CoreV1().Nodes().Get(ctx, "worker-1", metav1.GetOptions{})
			return err == nil && n.Spec.PodCIDR == "198.19.200.0/24"
		})
	})
	volume := func(client *fake.Clientset) func() bool {
		return func() bool {
			_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1-2-3", metav1.GetOptions{})
			return err == nil
		}
	}
	t.Run("a volume", func(t *testing.T) {
		client := fakeClient(standard(), claim("standard", "worker-1"))
		mend := failing(t, client, "create", "persistentvolumes")
		run(t, t.TempDir(), client)
		mend()
		eventually(t, "the volume exists", volume(client))
	})
	t.Run("a volume's directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "volumes")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way
			t.Fatal(err)
		}
		client := fakeClient(standard(), claim("standard", "worker-1"))
		run(t, dir, client)
		time.Sleep(time.Second)
		if volume(client)() {
			t.Fatal("there is a volume without a directory")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the volume exists", volume(client))
	})
	t.Run("a node that registers late", func(t *testing.T) {
		client := fakeClient(own().object(t))
		run(t, "", client)
		time.Sleep(time.Second)
		if _, err := client.CoreV1().Nodes().Create(ctx, node("worker-1", "198.19.200.1"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the request is approved", func() bool { return approved(client) })
	})
	t.Run("a volume's deletion", func(t *testing.T) {
		dir := t.TempDir()
		released := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{annotationProvisionedBy: Provisioner}},
			Spec: v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
				PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: filepath.Join(dir, "pvc-1")}}},
			Status: v1.PersistentVolumeStatus{Phase: v1.VolumeReleased}}
		client := fakeClient(released)
		mend := failing(t, client, "delete", "persistentvolumes")
		run(t, dir, client)
		mend()
		eventually(t, "the volume is gone", func() bool {
			_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
}

func TestBackoffNeverEnds(t *testing.T) {
	limiter := backoff()
	for range 1000 {
		if pause := limiter.When("x"); pause > retryMost {
			t.Fatalf("a pause of %v", pause)
		}
	}
	if pause := limiter.When("x"); pause != retryMost {
		t.Errorf("after a long time the pause is %v, want %v", pause, retryMost)
	}
}

// eventually waits until ok, at most three minutes: the kernel remembers a connection whose program has gone for one.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func TestPodRangeIsRecorded(t *testing.T) {
	foreign := node("elsewhere", "10.0.0.1")
	client := start(t, "", node("worker-1", "198.19.200.1"), foreign)
	get := func(name string) string {
		n, err := client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return n.Spec.PodCIDR
	}
	eventually(t, "worker-1 has its range", func() bool { return get("worker-1") == "198.19.200.0/24" })
	if got := get("elsewhere"); got != "" {
		t.Errorf("a node outside the plan got the range %s", got)
	}
}

type servingRequest struct {
	user, name string
	dns        []string
	ips        []net.IP
	signer     string
	groups     []string
	usages     []certificates.KeyUsage
}

// own is the request that the kubelet of worker-1 makes.
func own() servingRequest {
	return servingRequest{user: "system:node:worker-1", name: "system:node:worker-1", dns: []string{"worker-1"}, ips: []net.IP{net.ParseIP("198.19.200.1")},
		signer: certificates.KubeletServingSignerName, groups: []string{"system:nodes", "system:authenticated"},
		usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageServerAuth}}
}

func (r servingRequest) object(t *testing.T) *certificates.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: r.name, Organization: []string{"system:nodes"}}, DNSNames: r.dns, IPAddresses: r.ips}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificates.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr"}, Spec: certificates.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		SignerName: r.signer, Username: r.user, Groups: r.groups, Usages: r.usages}}
}

func approved(client *fake.Clientset) bool {
	r, err := client.CertificatesV1().CertificateSigningRequests().Get(context.Background(), "csr", metav1.GetOptions{})
	return err == nil && len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Type == certificates.CertificateApproved
}

func TestOwnServingCertificateIsApproved(t *testing.T) {
	client := start(t, "", own().object(t), node("worker-1", "198.19.200.1"))
	eventually(t, "the request is approved", func() bool { return approved(client) })
}

func TestServingCertificateIsApprovedWhenTheNodeRegistersLate(t *testing.T) {
	client := start(t, "", own().object(t))
	time.Sleep(150 * time.Millisecond)
	if _, err := client.CoreV1().Nodes().Create(context.Background(), node("worker-1", "198.19.200.1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is approved", func() bool { return approved(client) })
}

func TestOtherCertificatesAreNotApproved(t *testing.T) {
	for name, change := range map[string]func(*servingRequest){
		"another node's address": func(r *servingRequest) { r.ips = []net.IP{net.ParseIP("198.19.201.1")} },
		"an additional address":  func(r *servingRequest) { r.ips = append(r.ips, net.ParseIP("127.0.0.1")) },
		"another name":           func(r *servingRequest) { r.dns = []string{"kubernetes.default.svc"} },
		"an additional name":     func(r *servingRequest) { r.dns = append(r.dns, "localhost") },
		"another node's subject": func(r *servingRequest) { r.name = "system:node:worker-2" },
		"no node":                func(r *servingRequest) { r.user, r.name = "jane", "jane" },
		"not in the group":       func(r *servingRequest) { r.groups = nil },
		"client usage":           func(r *servingRequest) { r.usages = append(r.usages, certificates.UsageClientAuth) },
		"client signer":          func(r *servingRequest) { r.signer = certificates.KubeAPIServerClientKubeletSignerName },
		"unknown node":           func(r *servingRequest) { r.user, r.name = "system:node:ghost", "system:node:ghost" },
	} {
		t.Run(name, func(t *testing.T) {
			r := own()
			change(&r)
			client := start(t, "", r.object(t), node("worker-1", "198.19.200.1"))
			time.Sleep(200 * time.Millisecond)
			if approved(client) {
				t.Error("approved")
			}
		})
	}
}

func claim(class, selectedNode string) *v1.PersistentVolumeClaim {
	c := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders", UID: "1-2-3", Annotations: map[string]string{}},
		Spec: v1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}}}}
	if selectedNode != "" {
		c.Annotations[annotationSelectedNode] = selectedNode
	}
	return c
}

func standard() *storage.StorageClass {
	return &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "standard"}, Provisioner: Provisioner,
		VolumeBindingMode: ptr.To(storage.VolumeBindingWaitForFirstConsumer), ReclaimPolicy: ptr.To(v1.PersistentVolumeReclaimDelete)}
}

func TestVolumeIsMadeForTheSelectedNodeAndDeletedWithItsClaim(t *testing.T) {
	dir := t.TempDir()
	client := start(t, dir, standard(), claim("standard", "worker-1"))
	ctx := context.Background()
	path := filepath.Join(dir, "pvc-1-2-3")
	var volume *v1.PersistentVolume
	eventually(t, "the volume exists", func() bool {
		var err error
		volume, err = client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1-2-3", metav1.GetOptions{})
		return err == nil
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	if volume.Spec.HostPath.Path != path || volume.Spec.ClaimRef.Name != "orders" || volume.Spec.Capacity.Storage().String() != "1Gi" {
		t.Errorf("the volume: %+v", volume.Spec)
	}
	if terms := volume.Spec.NodeAffinity.Required.NodeSelectorTerms; terms[0].MatchExpressions[0].Values[0] != "worker-1" {
		t.Errorf("the volume may be used on %v", terms)
	}
	if err := os.WriteFile(filepath.Join(path, "orders.db"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	volume.Status.Phase = v1.VolumeReleased
	if _, err := client.CoreV1().PersistentVolumes().UpdateStatus(ctx, volume, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "directory and volume are gone", func() bool {
		_, statErr := os.Stat(path)
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		return os.IsNotExist(statErr) && err != nil
	})
}

func TestClaimsThatHaveToWait(t *testing.T) {
	dir := t.TempDir()
	other := claim("other", "worker-1")
	other.Name, other.UID = "other", "4-5-6"
	client := start(t, dir, standard(), claim("standard", ""), other,
		&storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Provisioner: "example.com/nfs"})
	time.Sleep(300 * time.Millisecond)
	volumes, err := client.CoreV1().PersistentVolumes().List(context.Background(), metav1.ListOptions{})
	if entries, _ := os.ReadDir(dir); err != nil || len(volumes.Items) > 0 || len(entries) > 0 {
		t.Errorf("made %v and %v (%v)", volumes.Items, entries, err)
	}
}

func TestClaimGetsItsVolumeWhenItsClassComesLater(t *testing.T) {
	client := start(t, t.TempDir(), claim("standard", "worker-1"))
	time.Sleep(200 * time.Millisecond)
	ctx := context.Background()
	if _, err := client.StorageV1().StorageClasses().Create(ctx, standard(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the volume exists", func() bool {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-1-2-3", metav1.GetOptions{})
		return err == nil
	})
}

func TestOnlyOwnDirectoriesAreDeleted(t *testing.T) {
	dir, precious := t.TempDir(), t.TempDir()
	volume := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-evil", Annotations: map[string]string{annotationProvisionedBy: Provisioner}},
		Spec: v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: precious}}},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeReleased}}
	client := start(t, dir, volume)
	eventually(t, "a warning event", func() bool {
		events, _ := client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
		return len(events.Items) > 0 && strings.Contains(events.Items[0].Message, "path")
	})
	if _, err := os.Stat(precious); err != nil {
		t.Error("a directory that is not the provisioner's was deleted")
	}
}
