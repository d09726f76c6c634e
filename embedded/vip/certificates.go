package vip

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// runServingCertificates approves the kubelets' requests for serving certificates (kubernetes.io/kubelet-serving), and
// only those in which a registered node asks for exactly its own name and address. Others are left to the administrator,
// as upstream leaves all of them.
func (c *Controller) runServingCertificates(ctx context.Context, f informers.SharedInformerFactory) {
	requests := f.Certificates().V1().CertificateSigningRequests()
	nodes := f.Core().V1().Nodes()
	c.runQueue(ctx, requests.Informer(), func(key string) error {
		request, err := requests.Lister().Get(key)
		if err != nil || decided(request) || request.Spec.SignerName != certificates.KubeletServingSignerName {
			return nil
		}
		if err := checkServing(request, nodes.Lister()); err != nil {
			c.config.Log.Warn("serving certificate not approved", "request", key, "user", request.Spec.Username, "reason", err)
			return err // the node's address may be registered a moment later
		}
		request = request.DeepCopy()
		request.Status.Conditions = append(request.Status.Conditions, certificates.CertificateSigningRequestCondition{
			Type: certificates.CertificateApproved, Status: v1.ConditionTrue, Reason: "NodeAddressVerified",
			Message: "The request asks for the name and the address of the node that made it.",
		})
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err = c.config.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(call, key, request, metav1.UpdateOptions{})
		return err
	})
}

func decided(r *certificates.CertificateSigningRequest) bool { return len(r.Status.Conditions) > 0 }

// checkServing explains why a request is not one that a kubelet makes for itself.
func checkServing(r *certificates.CertificateSigningRequest, nodes corelisters.NodeLister) error {
	name, ok := strings.CutPrefix(r.Spec.Username, "system:node:")
	if !ok || !slices.Contains(r.Spec.Groups, "system:nodes") {
		return fmt.Errorf("the requestor is not a node")
	}
	node, err := nodes.Get(name)
	if err != nil {
		return err
	}
	address, ok := internalIP(node)
	if !ok {
		return fmt.Errorf("node %s has no InternalIP", name)
	}
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return fmt.Errorf("no PEM block in the request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	allowed := []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageKeyEncipherment, certificates.UsageServerAuth}
	for _, usage := range r.Spec.Usages {
		if !slices.Contains(allowed, usage) {
			return fmt.Errorf("usage %q is not one of a serving certificate", usage)
		}
	}
	if csr.Subject.CommonName != r.Spec.Username || !slices.Equal(csr.Subject.Organization, []string{"system:nodes"}) {
		return fmt.Errorf("subject %s is not the requestor", csr.Subject)
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 || len(csr.DNSNames) > 1 || (len(csr.DNSNames) == 1 && csr.DNSNames[0] != name) {
		return fmt.Errorf("names %v are not the node's", csr.DNSNames)
	}
	for _, ip := range csr.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); !ok || a.Unmap() != address {
			return fmt.Errorf("address %s is not the node's", ip)
		}
	}
	return nil
}

// queueRetries bounds the attempts at one object per change of it.
const queueRetries = 8

// runQueue hands the keys of changed objects to handle one after the other and tries failed ones again, later and later.
// What it returns queues an object once more.
func (c *Controller) runQueue(ctx context.Context, informer cache.SharedIndexInformer, handle func(key string) error) (again func(object any)) {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 10*time.Second))
	add := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	context.AfterFunc(ctx, queue.ShutDown)
	go func() {
		for {
			key, stop := queue.Get()
			if stop {
				return
			}
			if err := handle(key); err != nil && queue.NumRequeues(key) < queueRetries {
				queue.AddRateLimited(key)
			} else {
				queue.Forget(key)
			}
			queue.Done(key)
		}
	}()
	return add
}
