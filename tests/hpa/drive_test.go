// Runs recorded cases through upstream's own HorizontalController, on a simulated clock, and writes what it did.
//
// against_upstream.py copies this file beside a copy of k8s.io/kubernetes/pkg/controller/podautoscaler, whose
// unexported parts it needs, and builds both with embedded/go.mod.
//
//	DRIVE_IN   JSON lines: a case each
//	DRIVE_OUT  JSON lines: a list of outcomes each, one per round
package podautoscaler

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/client-go/tools/record"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/monitor"
	consistencyutil "k8s.io/kubernetes/pkg/controller/util/consistency"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
)

type pod struct {
	Name       string
	Phase      string
	Deleting   bool
	Ready      *string
	ReadyAge   float64  `json:"ready_age"`
	Age        *float64 `json:"age"`
	Containers []struct {
		Name     string
		Requests map[string]string
		Sidecar  bool
	}
	PodRequests map[string]string `json:"pod_requests"`
}
type reading struct {
	Key   string
	Error string
	Pods  map[string]struct {
		Value  int64
		Age    float64
		Window float64
	}
	Value  int64
	Values []int64
}
type round struct {
	Dt       float64
	Replicas *int32
	Status   *int32
	Pods     []pod
	Readings []reading
	Rival    bool // another autoscaler selects the same pods
}
type caseIn struct {
	Hpa       autoscalingv2.HorizontalPodAutoscaler
	Tolerance float64
	Downscale float64
	Init      float64
	Delay     float64
	Rounds    []round
}
type outcome struct {
	Replicas   int32             `json:"replicas"`
	Error      string            `json:"error"`
	Conditions map[string]string `json:"conditions"`
	Util       []*int32          `json:"util"`
	Averages   []*int64          `json:"averages"`
}

type world struct {
	now      round
	replicas int32
	hpa      *autoscalingv2.HorizontalPodAutoscaler
	autoscalingclient.HorizontalPodAutoscalerInterface
}

// On a real clock no two readings are equal. Here every round is a tick later than asked for, and the downscale
// window half a tick shorter, so that "exactly as old as the window" counts as older, as it does in practice.
const (
	tick     = time.Microsecond
	halfTick = tick / 2
)

func sec(f float64) time.Duration { return time.Duration(f*1e9 + 0.5) }

func (w *world) find(key string) (reading, error) {
	for _, r := range w.now.Readings {
		if r.Key == key {
			if r.Error != "" {
				return r, errors.New(r.Error)
			}
			return r, nil
		}
	}
	return reading{}, errors.New("no such reading " + key)
}
func (w *world) podMetrics(key string) (metricsclient.PodMetricsInfo, time.Time, error) {
	r, err := w.find(key)
	if err != nil {
		return nil, time.Time{}, err
	}
	out := metricsclient.PodMetricsInfo{}
	for n, p := range r.Pods {
		out[n] = metricsclient.PodMetric{Timestamp: time.Now().Add(-sec(p.Age)), Window: sec(p.Window), Value: p.Value}
	}
	return out, time.Now(), nil
}
func (w *world) GetResourceMetric(ctx context.Context, r v1.ResourceName, ns string, s labels.Selector, container string) (metricsclient.PodMetricsInfo, time.Time, error) {
	return w.podMetrics(string(r) + "/" + container)
}
func (w *world) GetRawMetric(name, ns string, s, m labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	return w.podMetrics(name + "/")
}
func (w *world) GetObjectMetric(name, ns string, ref *autoscalingv2.CrossVersionObjectReference, m labels.Selector) (int64, time.Time, error) {
	r, err := w.find(name + "/")
	return r.Value, time.Now(), err
}
func (w *world) GetExternalMetric(name, ns string, s labels.Selector) ([]int64, time.Time, error) {
	r, err := w.find(name + "/")
	return r.Values, time.Now(), err
}

type lister struct{ w *world }

func (l lister) List(s labels.Selector) ([]*v1.Pod, error)     { return l.Pods("").List(s) }
func (l lister) Pods(ns string) corelisters.PodNamespaceLister { return l2{l.w} }

type l2 struct{ w *world }

func (l l2) Get(string) (*v1.Pod, error) { return nil, errors.New("no") }
func rl(m map[string]string) v1.ResourceList {
	out := v1.ResourceList{}
	for k, v := range m {
		out[v1.ResourceName(k)] = resource.MustParse(v)
	}
	return out
}
func (l l2) List(labels.Selector) ([]*v1.Pod, error) {
	var out []*v1.Pod
	now := time.Now()
	for _, p := range l.w.now.Pods {
		made := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: "d", Labels: map[string]string{"a": "b"}}, Status: v1.PodStatus{Phase: v1.PodPhase(p.Phase)}}
		if p.Deleting {
			made.DeletionTimestamp = &metav1.Time{Time: now}
		}
		if p.Age != nil {
			made.Status.StartTime = &metav1.Time{Time: now.Add(-sec(*p.Age))}
		}
		if p.Ready != nil {
			made.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionStatus(*p.Ready), LastTransitionTime: metav1.Time{Time: now.Add(-sec(p.ReadyAge))}}}
		}
		always := v1.ContainerRestartPolicyAlways
		for _, c := range p.Containers {
			k := v1.Container{Name: c.Name, Resources: v1.ResourceRequirements{Requests: rl(c.Requests)}}
			if c.Sidecar {
				k.RestartPolicy = &always
				made.Spec.InitContainers = append(made.Spec.InitContainers, k)
			} else {
				made.Spec.Containers = append(made.Spec.Containers, k)
			}
		}
		if p.PodRequests != nil {
			made.Spec.Resources = &v1.ResourceRequirements{Requests: rl(p.PodRequests)}
		}
		out = append(out, made)
	}
	return out, nil
}

type scales struct{ w *world }

func (s scales) Scales(string) scaleclient.ScaleInterface { return s }
func (s scales) Get(ctx context.Context, r schema.GroupResource, name string, o metav1.GetOptions) (*autoscalingv1.Scale, error) {
	st := s.w.replicas
	if s.w.now.Status != nil {
		st = *s.w.now.Status
	}
	return &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: s.w.replicas}, Status: autoscalingv1.ScaleStatus{Replicas: st, Selector: "a=b"}}, nil
}
func (s scales) Update(ctx context.Context, r schema.GroupResource, sc *autoscalingv1.Scale, o metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	s.w.replicas = sc.Spec.Replicas
	return sc, nil
}
func (s scales) Patch(ctx context.Context, gvr schema.GroupVersionResource, name string, pt types.PatchType, data []byte, o metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	return nil, errors.New("no")
}

type hpas struct{ w *world }

func (h hpas) HorizontalPodAutoscalers(string) autoscalingclient.HorizontalPodAutoscalerInterface {
	return h.w
}
func (w *world) UpdateStatus(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, o metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	w.hpa.Status = *h.Status.DeepCopy()
	return h, nil
}

// average is the value per pod in a metric's status, in thousandths.
func average(s autoscalingv2.MetricStatus) *int64 {
	var q *resource.Quantity
	switch {
	case s.Resource != nil:
		q = s.Resource.Current.AverageValue
	case s.ContainerResource != nil:
		q = s.ContainerResource.Current.AverageValue
	case s.Pods != nil:
		q = s.Pods.Current.AverageValue
	case s.Object != nil:
		q = s.Object.Current.AverageValue
	case s.External != nil:
		q = s.External.Current.AverageValue
	}
	if q == nil {
		return nil
	}
	milli := q.MilliValue()
	return &milli
}

func drive(c caseIn) []outcome {
	defaults.SetDefaults_HorizontalPodAutoscaler(&c.Hpa)
	c.Hpa.Name, c.Hpa.Namespace = "h", "d"
	c.Hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "x"}
	w := &world{hpa: &c.Hpa}
	m := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "apps", Version: "v1"}})
	m.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, apimeta.RESTScopeNamespace)
	a := &HorizontalController{
		eventRecorder: record.NewFakeRecorder(100000), scaleNamespacer: scales{w}, hpaNamespacer: hpas{w}, mapper: m,
		tolerance: c.Tolerance, downscaleStabilisationWindow: sec(c.Downscale) - halfTick, monitor: monitor.New(),
		recommendations: map[string][]timestampedRecommendation{}, scaleUpEvents: map[string][]timestampedScaleEvent{}, scaleDownEvents: map[string][]timestampedScaleEvent{},
		selectorTracker: newHPASelectorStore(), consistencyStore: consistencyutil.NewNoopConsistencyStore(), podLister: lister{w},
		replicaCalc: NewReplicaCalculator(w, lister{w}, sec(c.Init), sec(c.Delay)),
	}
	a.selectorTracker.PutIfAbsent("d", selectors.Key{Name: "h", Namespace: "d"}, labels.Nothing())
	rival := selectors.Key{Name: "rival", Namespace: "d"}
	a.selectorTracker.PutIfAbsent("d", rival, labels.Nothing())
	var out []outcome
	for _, r := range c.Rounds {
		time.Sleep(sec(r.Dt) + tick)
		if r.Replicas != nil {
			w.replicas = *r.Replicas
		}
		w.now = r
		theirs := labels.Nothing()
		if r.Rival {
			theirs = labels.Everything()
		}
		a.selectorTracker.PutIfPresent("d", rival, theirs)
		err := a.reconcileAutoscaler(context.Background(), w.hpa, "d/h")
		o := outcome{Replicas: w.replicas, Conditions: map[string]string{}}
		if err != nil {
			o.Error = err.Error()
		}
		for _, k := range w.hpa.Status.Conditions {
			o.Conditions[string(k.Type)] = k.Reason
		}
		for _, s := range w.hpa.Status.CurrentMetrics {
			if s.Resource != nil {
				o.Util = append(o.Util, s.Resource.Current.AverageUtilization)
			} else if s.ContainerResource != nil {
				o.Util = append(o.Util, s.ContainerResource.Current.AverageUtilization)
			} else {
				o.Util = append(o.Util, nil)
			}
			o.Averages = append(o.Averages, average(s))
		}
		out = append(out, o)
	}
	return out
}

func TestDrive(t *testing.T) {
	in, err := os.Open(os.Getenv("DRIVE_IN"))
	if err != nil {
		t.Fatal(err)
	}
	f, _ := os.Create(os.Getenv("DRIVE_OUT"))
	defer f.Close()
	bw := bufio.NewWriter(f)
	defer bw.Flush()
	sc := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := sc.ReadString('\n')
		if strings.TrimSpace(line) == "" {
			break
		}
		var c caseIn
		if e := json.Unmarshal([]byte(line), &c); e != nil {
			t.Fatal(e)
		}
		var out []outcome
		synctest.Test(t, func(t *testing.T) { out = drive(c) })
		b, _ := json.Marshal(out)
		bw.Write(b)
		bw.WriteString("\n")
		if err != nil {
			break
		}
	}
}
