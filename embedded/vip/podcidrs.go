package vip

import (
	"context"
	"encoding/json"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// callTimeout bounds one request to the API server.
const callTimeout = 10 * time.Second

// runPodCIDRs records each node's pod range in spec.podCIDR. The controller manager's allocator would hand ranges out
// in the order of joining; here the address plan ties them to the node's own address.
func (c *Controller) runPodCIDRs(ctx context.Context, f informers.SharedInformerFactory) {
	record := func(object any) {
		n, ok := object.(*v1.Node)
		if !ok || n.Spec.PodCIDR != "" {
			return
		}
		address, ok := internalIP(n)
		if !ok || !pods(c.config.Plan).Contains(address) {
			return
		}
		cidr := rangeOf(address).String()
		patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}})
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if _, err := c.config.Client.CoreV1().Nodes().Patch(call, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			c.config.Log.Error("cannot record the pod range", "node", n.Name, "error", err)
		}
	}
	_, _ = f.Core().V1().Nodes().Informer().AddEventHandlerWithResyncPeriod(cache.ResourceEventHandlerFuncs{
		AddFunc: record, UpdateFunc: func(_, n any) { record(n) },
	}, 0)
}
