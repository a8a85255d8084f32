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
	jobs    atomic.Uint64   // begun, or tasks of those that no other thread helps with
	wake    []chan struct{} // by thread-1, one token each
	ended   sync.WaitGroup

	mu     sync.Mutex // held while a job runs
	closed bool
}

// job is work in independent tasks. Every thread has a range of them, the same share of each job, and takes others
// when its own are done: ops mostly go through the same rows in the same order, so that a thread finds in its own
// cache what it wrote in the op before (measured: small products of the starter model's denoiser take 25 % less). A
// job is made once and run any number of times. A thread that wakes up late may look at a job that is over, or that
// runs again: it then finds no task, or helps.
type job struct {
	tasks int
	do    func(thread, task int) // thread is below the pool's threads and names scratch nobody else uses meanwhile

	ranges  []taskRange
	pending atomic.Int64
	done    chan struct{} // a token from the thread that ended the last task, unless that is the caller
}

// taskRange is what is left of a thread's tasks, on a cache line of its own. Its end never changes.
type taskRange struct {
	next atomic.Int64
	end  int64
	_    [lineBytes - 16]byte
}

func newJob(tasks int, do func(thread, task int)) *job {
	return &job{tasks: tasks, do: do, done: make(chan struct{}, 1)}
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
		if j == nil || j.pending.Load() == 0 {
			continue
		}
		tasks, last := j.help(thread)
		if last {
			j.done <- struct{}{}
		}
		if tasks > 0 {
			idle = 0
		}
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
			p.jobs.Add(1)
		}
		return true
	}
	j.start(p.threads)
	p.jobs.Add(1)
	p.current.Store(j)
	for _, wake := range p.wake[:min(len(p.wake), j.tasks-1)] {
		select {
		case wake <- struct{}{}:
		default: // not yet awake from the last job
		}
	}
	if _, last := j.help(0); !last {
		j.await()
	}
	p.current.Store(nil) // a thread that wakes up now goes back to sleep
	return true
}

// start makes every task unclaimed.
func (j *job) start(threads int) {
	if j.ranges == nil {
		j.ranges = make([]taskRange, threads)
		for i := range j.ranges {
			j.ranges[i].end = int64((i + 1) * j.tasks / threads)
		}
	}
	j.pending.Store(int64(j.tasks))
	for i := range j.ranges {
		j.ranges[i].next.Store(int64(i * j.tasks / threads))
	}
}

// help does tasks until none is unclaimed. It tells how many, and whether it ended the last one of all.
func (j *job) help(thread int) (tasks int, last bool) {
	for i := range j.ranges {
		r := &j.ranges[(thread+i)%len(j.ranges)]
		for r.next.Load() < r.end {
			task := r.next.Add(1) - 1
			if task >= r.end {
				break
			}
			j.do(thread, int(task))
			tasks++
			last = j.pending.Add(-1) == 0
		}
	}
	return tasks, last
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

// moved is another number whenever a task has been done. It costs them nothing: what is pending is counted anyway.
func (p *pool) moved() uint64 {
	moved := p.jobs.Load() << 32
	if j := p.current.Load(); j != nil {
		moved -= uint64(j.pending.Load())
	}
	return moved
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
