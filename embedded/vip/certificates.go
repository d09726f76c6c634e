package vip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	internal "k8s.io/kubernetes/pkg/apis/certificates"
)

// runServingCertificates approves the kubelets' requests for serving certificates (kubernetes.io/kubelet-serving), and
// only those in which a registered node asks for exactly its own name and address. Others are left to the administrator,
// as upstream leaves all of them.
func (c *Controller) runServingCertificates(ctx context.Context, f informers.SharedInformerFactory) {
	requests := f.Certificates().V1().CertificateSigningRequests()
	nodes := f.Core().V1().Nodes()
	told := once{}
	c.runQueue(ctx, requests.Informer(), func(key string) error {
		request, err := requests.Lister().Get(key)
		if err != nil || decided(request) || request.Spec.SignerName != certificates.KubeletServingSignerName {
			delete(told, key)
			return nil
		}
		if err = checkServing(request, nodes.Lister()); err != nil { // the node's address may be registered later
			if told.new(key, err.Error()) {
				c.config.Log.Warn("serving certificate not approved", "request", key, "user", request.Spec.Username, "reason", err)
			}
			return err
		}
		if err = c.approve(ctx, request.DeepCopy()); err != nil && told.new(key, err.Error()) {
			c.config.Log.Error("cannot approve a serving certificate", "request", key, "error", err)
		}
		return err
	})
}

func (c *Controller) approve(ctx context.Context, request *certificates.CertificateSigningRequest) error {
	request.Status.Conditions = append(request.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: v1.ConditionTrue, Reason: "NodeAddressVerified",
		Message: "The request asks for the name and the address of the node that made it.",
	})
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.config.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(call, request.Name, request, metav1.UpdateOptions{})
	return err
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
	csr, err := internal.ParseCSR(r.Spec.Request)
	if err != nil {
		return err
	}
	usages := sets.NewString()
	for _, usage := range r.Spec.Usages {
		usages.Insert(string(usage))
	}
	if err := internal.ValidateKubeletServingCSR(csr, usages); err != nil {
		return err
	}
	if csr.Subject.CommonName != r.Spec.Username {
		return fmt.Errorf("subject %s is not the requestor", csr.Subject)
	}
	if len(csr.DNSNames) > 1 || (len(csr.DNSNames) == 1 && csr.DNSNames[0] != name) {
		return fmt.Errorf("names %v are not the node's", csr.DNSNames)
	}
	for _, ip := range csr.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); !ok || a.Unmap() != address {
			return fmt.Errorf("address %s is not the node's", ip)
		}
	}
	return nil
}
