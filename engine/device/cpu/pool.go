package cpu

import (
	"sync"
	"sync/atomic"
)

// pool runs jobs on the caller and threads-1 goroutines that wait for work. One job runs at a
// time; callers of run take turns.
type pool struct {
	threads int
	current atomic.Pointer[job]
	wake    []chan struct{} // by thread-1, one token each
	ended   sync.WaitGroup

	mu     sync.Mutex // held while a job runs
	closed bool
}

// job is work in independent tasks, claimed one by one from an atomic counter. It is made once
// and run any number of times. A thread that wakes up late may look at a job that is over, or that
// runs again: it then finds no task, or helps.
type job struct {
	tasks int
	do    func(thread, task int) // thread is below the pool's threads and names scratch nobody else uses meanwhile

	next, pending atomic.Int64
	done          chan struct{} // a token from the thread that ended the last task, unless that is the caller
}

func newJob(tasks int, do func(thread, task int)) *job {
	j := &job{tasks: tasks, do: do, done: make(chan struct{}, 1)}
	j.next.Store(int64(tasks))
	return j
}

func newPool(threads int) *pool {
	p := &pool{threads: threads}
	for i := 1; i < threads; i++ {
		wake := make(chan struct{}, 1)
		p.wake = append(p.wake, wake)
		p.ended.Go(func() {
			for range wake {
				p.work(i)
			}
		})
	}
	return p
}

// spin is how often an idle thread looks for the next job before it parks, and the caller for the end of
// a job: 20 to 40 microseconds. The ops of a network follow each other faster than that, and waking a
// parked thread costs more than most of them take (measured: a denoiser step of the starter model is
// 15 % shorter with it).
const spin = 20_000

// work helps with the present job, and with those that follow soon.
func (p *pool) work(thread int) {
	for idle := 0; idle < spin; idle++ {
		j := p.current.Load()
		if j == nil || j.next.Load() >= int64(j.tasks) {
			continue
		}
		if j.help(thread) {
			j.done <- struct{}{}
		}
		idle = 0
	}
}

// run does every task of j and returns behind the last; false when the pool is closed.
func (p *pool) run(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if j.tasks <= 1 || p.threads == 1 {
		for task := range j.tasks {
			j.do(0, task)
		}
		return true
	}
	j.pending.Store(int64(j.tasks))
	j.next.Store(0)
	p.current.Store(j)
	for _, wake := range p.wake[:min(len(p.wake), j.tasks-1)] {
		select {
		case wake <- struct{}{}:
		default: // not yet awake from the last job
		}
	}
	if !j.help(0) {
		j.await()
	}
	p.current.Store(nil) // a thread that wakes up now goes back to sleep
	return true
}

// help does tasks until none is unclaimed, and reports whether it ended the last one of all.
func (j *job) help(thread int) bool {
	for {
		task := int(j.next.Add(1)) - 1
		if task >= j.tasks {
			return false
		}
		j.do(thread, task)
		if j.pending.Add(-1) == 0 {
			return true
		}
	}
}

// await waits for the token of another thread.
func (j *job) await() {
	for range spin {
		select {
		case <-j.done:
			return
		default:
		}
	}
	<-j.done
}

// close ends the goroutines, behind the job that runs.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	for _, wake := range p.wake {
		close(wake)
	}
	p.ended.Wait()
}
