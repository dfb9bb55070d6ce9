package kube

import (
	"context"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
)

// Queue posts Events one after the other, and tries again if the API server
// does not answer: nothing else waits for it.
type Queue struct {
	waiting chan warning
	post    func(ctx context.Context, pod engine.Pod, reason, message string, at time.Time) error
	ended   func(err error, lost bool)
}

type warning struct {
	pod             engine.Pod
	reason, message string
	at              time.Time
}

// attempts and pauses bound what one Event costs: about a minute.
const attempts = 5

// NewQueue returns a queue of at most the given length before the client. ended is
// called after each attempt with its error (nil: posted; lost: it was the last one).
func NewQueue(c *Client, length int, ended func(err error, lost bool)) *Queue {
	return &Queue{waiting: make(chan warning, length), post: c.Warning, ended: ended}
}

// Warning adds an Event. It is false if the queue is full.
func (q *Queue) Warning(pod engine.Pod, reason, message string) bool {
	select {
	case q.waiting <- warning{pod, reason, message, time.Now()}:
		return true
	default:
		return false
	}
}

// Run posts until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	for {
		select {
		case w := <-q.waiting:
			q.try(ctx, w)
		case <-ctx.Done():
			return
		}
	}
}

func (q *Queue) try(ctx context.Context, w warning) {
	pause := 2 * time.Second
	for n := 1; ; n++ {
		err := q.post(ctx, w.pod, w.reason, w.message, w.at)
		lost := err != nil && (n == attempts || ctx.Err() != nil)
		q.ended(err, lost)
		if err == nil || lost {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause *= 2
	}
}
