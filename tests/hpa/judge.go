// Judges quantities and HorizontalPodAutoscalers as the API server does: JSON lines in, an answer each out.
//
//	{"quantity": TEXT}           {"ok": true, "milli": "250", "approximate": 0.25} or {"ok": false}
//	{"hpa": OBJECT, "zero": B}   {"fields": [PATH …]}: what is refused; ["(decoding)"] where it cannot be read
//
// against_upstream.py builds it with embedded/go.mod.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	v2 "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	strict "sigs.k8s.io/json"
)

type asked struct {
	Quantity *string
	Hpa      json.RawMessage
	Zero     bool
}

func quantity(text string) map[string]any {
	var q resource.Quantity
	sent, _ := json.Marshal(text) // as a client sends it
	if err := q.UnmarshalJSON(sent); err != nil {
		return map[string]any{"ok": false}
	}
	stored, err := resource.ParseQuantity(q.String()) // as the controller reads it
	if err != nil {
		return map[string]any{"ok": false, "stored": err.Error()}
	}
	return map[string]any{"ok": true, "milli": fmt.Sprint(stored.MilliValue()), "approximate": fmt.Sprint(stored.AsApproximateFloat64()), "sign": stored.Sign()}
}

func fields(raw []byte, zero bool) []string {
	var given autoscalingv2.HorizontalPodAutoscaler
	if err := strict.UnmarshalCaseSensitivePreserveInts(raw, &given); err != nil {
		return []string{"(decoding)"}
	}
	if given.Namespace == "" {
		given.Namespace = "default" // of the request
	}
	v2.SetDefaults_HorizontalPodAutoscaler(&given)
	var internal autoscaling.HorizontalPodAutoscaler
	if err := v2.Convert_v2_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler(&given, &internal, nil); err != nil {
		return []string{"(conversion)"}
	}
	_ = utilfeature.DefaultMutableFeatureGate.Set(fmt.Sprintf("HPAScaleToZero=%v", zero))
	found := map[string]bool{}
	ctx := genericapirequest.WithNamespace(context.Background(), given.Namespace)
	for _, each := range horizontalpodautoscaler.Strategy.Validate(ctx, &internal) {
		found[each.Field] = true
	}
	out := []string{}
	for name := range found {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadString('\n')
		if strings.TrimSpace(line) == "" {
			return
		}
		var a asked
		if e := json.Unmarshal([]byte(line), &a); e != nil {
			panic(e)
		}
		if a.Quantity != nil {
			_ = out.Encode(quantity(*a.Quantity))
		} else {
			_ = out.Encode(map[string]any{"fields": fields(a.Hpa, a.Zero)})
		}
		if err != nil {
			return
		}
	}
}
