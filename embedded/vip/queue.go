package vip

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
	resync     = 5 * time.Minute // until all objects are looked at again
)

// backoff is how long to wait before failed work is tried again: longer and longer, never for good.
func backoff() workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost)
}

// runQueue hands the keys of changed objects, and of all of them now and then, to handle one after the other. Failed ones are tried
// again until they succeed or handle finds nothing to do. What it returns queues an object once more.
func (c *Controller) runQueue(ctx context.Context, informer cache.SharedIndexInformer, handle func(key string) error) (again func(object any)) {
	queue := workqueue.NewTypedRateLimitingQueue(c.config.Backoff())
	add := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	context.AfterFunc(ctx, queue.ShutDown)
	go wait.UntilWithContext(ctx, func(context.Context) {
		for _, key := range informer.GetStore().ListKeys() {
			queue.Add(key)
		}
	}, resync)
	go func() {
		for {
			key, stop := queue.Get()
			if stop {
				return
			}
			if err := handle(key); err != nil {
				queue.AddRateLimited(key)
			} else {
				queue.Forget(key)
			}
			queue.Done(key)
		}
	}()
	return add
}

// once lets a message about an object through when it is not the last one about it.
type once map[string]string

func (o once) new(key, message string) bool {
	if o[key] == message {
		return false
	}
	o[key] = message
	return true
}
