package vip

import (
	"context"
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
)

// callTimeout bounds one request to the API server.
const callTimeout = 10 * time.Second

// runPodCIDRs records each node's pod range in spec.podCIDR. The controller manager's allocator would hand ranges out
// in the order of joining; here the address plan ties them to the node's own address.
func (c *Controller) runPodCIDRs(ctx context.Context, f informers.SharedInformerFactory) {
	nodes := f.Core().V1().Nodes()
	told := once{}
	c.runQueue(ctx, nodes.Informer(), func(key string) error {
		n, err := nodes.Lister().Get(key)
		if err != nil || n.Spec.PodCIDR != "" {
			delete(told, key)
			return nil
		}
		address, ok := internalIP(n)
		if !ok || !pods(c.config.Plan).Contains(address) {
			return nil // its address may come with a later change of it
		}
		cidr := rangeOf(address).String()
		patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}})
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err = c.config.Client.CoreV1().Nodes().Patch(call, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err != nil && told.new(key, err.Error()) {
			c.config.Log.Error("cannot record the pod range", "node", n.Name, "error", err)
		}
		return err
	})
}
