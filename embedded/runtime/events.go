package runtime

import (
	"context"
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// events are passed on to whoever listens. The kubelet does with the feature gate EventedPLEG, and then sees a container's end
// at once instead of at its next look.
type events struct {
	mu        sync.Mutex
	listeners map[chan *cri.ContainerEventResponse]bool
}

// eventBuffer is how many events wait for a slow listener; what is more is dropped, as events are hints only.
const eventBuffer = 256

func (r *Runtime) emit(kind cri.ContainerEventType, s *sandbox, id string) {
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	if len(r.events.listeners) == 0 {
		return
	}
	r.mu.Lock()
	event := &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: now(), PodSandboxStatus: s.describe()}
	for _, c := range r.containers {
		if c.sandbox == s {
			event.ContainersStatuses = append(event.ContainersStatuses, c.describe())
		}
	}
	r.mu.Unlock()
	for listener := range r.events.listeners {
		select {
		case listener <- event:
		default:
		}
	}
}

// GetContainerEvents sends the containers' events to out until ctx ends.
func (r *Runtime) GetContainerEvents(ctx context.Context, out chan *cri.ContainerEventResponse, established func(cri.RuntimeService_GetContainerEventsClient)) error {
	mine := make(chan *cri.ContainerEventResponse, eventBuffer)
	r.events.mu.Lock()
	if r.events.listeners == nil {
		r.events.listeners = map[chan *cri.ContainerEventResponse]bool{}
	}
	r.events.listeners[mine] = true
	r.events.mu.Unlock()
	defer func() {
		r.events.mu.Lock()
		delete(r.events.listeners, mine)
		r.events.mu.Unlock()
	}()
	if established != nil {
		established(nil)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.open.Done():
			return nil
		case event := <-mine:
			select {
			case out <- event:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
