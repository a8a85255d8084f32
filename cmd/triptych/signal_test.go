package main

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestUntilTwice: a signal that arrives twice at once is one, and one that comes later is the second.
func TestUntilTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, cancelled, ended := make(chan os.Signal, 2), false, false
		go func() {
			untilTwice(signals, func() { cancelled = true })
			ended = true
		}()
		synctest.Wait()
		if cancelled {
			t.Error("it is cancelled without a signal")
		}
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		synctest.Wait()
		if !cancelled || ended {
			t.Errorf("behind one signal cancelled is %v and ended %v", cancelled, ended)
		}
		time.Sleep(sameSignal + 1)
		signals <- os.Interrupt
		synctest.Wait()
		if !ended {
			t.Error("another signal did not end it")
		}
	})
}
