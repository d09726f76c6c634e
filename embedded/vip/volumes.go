package vip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Provisioner is the name that StorageClasses use for the directories made here.
const Provisioner = "labkit.dev/host-path"

const (
	annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"
	annotationSelectedNode  = "volume.kubernetes.io/selected-node"
	provisionerFinalizer    = "external-provisioner.volume.kubernetes.io/finalizer"
)

// provisioner makes a directory for each claim of a StorageClass of ours and deletes it with the claim, as kind's
// local-path provisioner does: a hostPath volume that only the selected node may use.
type provisioner struct {
	c        *Controller
	ctx      context.Context
	classes  storagelisters.StorageClassLister
	recorder record.EventRecorder
}

// runVolumes provisions and deletes persistent volumes. (The controller manager's own host-path provisioner is no
// choice: it uses one directory in /tmp for all users and clusters.)
func (c *Controller) runVolumes(ctx context.Context, f informers.SharedInformerFactory) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: c.config.Client.CoreV1().Events("")})
	p := &provisioner{c: c, ctx: ctx, classes: f.Storage().V1().StorageClasses().Lister(),
		recorder: broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: Provisioner})}
	claims, volumes := f.Core().V1().PersistentVolumeClaims(), f.Core().V1().PersistentVolumes()
	again := c.runQueue(ctx, claims.Informer(), func(key string) error {
		namespace, name, _ := cache.SplitMetaNamespaceKey(key)
		claim, err := claims.Lister().PersistentVolumeClaims(namespace).Get(name)
		if err != nil {
			return ignoreMissing(err)
		}
		return p.provision(claim)
	})
	// A claim may be there before its class is, or be seen before.
	_, _ = f.Storage().V1().StorageClasses().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		waiting, _ := claims.Lister().List(labels.Everything())
		for _, claim := range waiting {
			again(claim)
		}
	}})
	c.runQueue(ctx, volumes.Informer(), func(key string) error {
		volume, err := volumes.Lister().Get(key)
		if err != nil {
			return ignoreMissing(err)
		}
		return p.reclaim(volume)
	})
}

func ignoreMissing(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// provision makes the volume of a claim that waits for one of ours.
func (p *provisioner) provision(claim *v1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil || claim.DeletionTimestamp != nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != Provisioner {
		return ignoreMissing(err)
	}
	node := claim.Annotations[annotationSelectedNode]
	if node == "" && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storage.VolumeBindingWaitForFirstConsumer {
		return nil // the scheduler names the node when a pod uses the claim
	}
	if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode != v1.PersistentVolumeFilesystem {
		err := fmt.Errorf("volumeMode %s: only Filesystem volumes can be made", *claim.Spec.VolumeMode)
		p.recorder.Event(claim, v1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return nil
	}
	volume := p.volume(claim, class, node)
	path := volume.Spec.HostPath.Path
	if err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.MkdirAll(path, 0o777)); err == nil {
		err = os.Chmod(path, 0o777) // whatever user a pod runs as; the state directory around it is closed
	}
	if err != nil {
		p.recorder.Event(claim, v1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return err
	}
	call, cancel := context.WithTimeout(p.ctx, callTimeout)
	defer cancel()
	_, err = p.c.config.Client.CoreV1().PersistentVolumes().Create(call, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		p.recorder.Eventf(claim, v1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", volume.Name)
	}
	return err
}

func (p *provisioner) volume(claim *v1.PersistentVolumeClaim, class *storage.StorageClass, node string) *v1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	kind := v1.HostPathDirectoryOrCreate
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{provisionerFinalizer},
			Annotations: map[string]string{annotationProvisionedBy: Provisioner}},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			StorageClassName:              class.Name,
			ClaimRef: &v1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name,
				UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: p.path(name), Type: &kind}},
		},
	}
	if class.ReclaimPolicy != nil {
		volume.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	if node != "" {
		volume.Spec.NodeAffinity = &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
			MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}}}}
	}
	return volume
}

func (p *provisioner) path(volume string) string { return filepath.Join(p.c.config.VolumesDir, volume) }

// reclaim deletes the directory and the object of a volume of ours whose claim is gone, if its policy is Delete.
func (p *provisioner) reclaim(volume *v1.PersistentVolume) error {
	if volume.Annotations[annotationProvisionedBy] != Provisioner || volume.Status.Phase != v1.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete {
		return nil
	}
	// Only a path made here is deleted, whatever the object says.
	if source := volume.Spec.HostPath; source == nil || source.Path != p.path(volume.Name) {
		p.recorder.Event(volume, v1.EventTypeWarning, "VolumeFailedDelete", "the path is not one that this provisioner made")
		return nil
	}
	if err := os.RemoveAll(p.path(volume.Name)); err != nil {
		p.recorder.Event(volume, v1.EventTypeWarning, "VolumeFailedDelete", err.Error())
		return err
	}
	call, cancel := context.WithTimeout(p.ctx, callTimeout)
	defer cancel()
	volumes := p.c.config.Client.CoreV1().PersistentVolumes()
	err := volumes.Delete(call, volume.Name, metav1.DeleteOptions{})
	if slices.Contains(volume.Finalizers, provisionerFinalizer) {
		patch := fmt.Sprintf(`{"metadata":{"$deleteFromPrimitiveList/finalizers":[%q]}}`, provisionerFinalizer)
		_, patchErr := volumes.Patch(call, volume.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		err = errors.Join(ignoreMissing(err), ignoreMissing(patchErr))
	}
	return ignoreMissing(err)
}
