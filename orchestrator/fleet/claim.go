package fleet

import (
	"fmt"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// claim is a service's part in a device, and the record in which it shares the device with other processes.
type claim struct{ host, device, claim string }

// unshared tells in words why a service may not work beside one that does: both name the same device and do not share its claim,
// so that together they would exceed the budget. The first to come works. It is empty where nothing is wrong; the service's claim
// then stands until unclaim.
func (f *Fleet) unshared(id residency.StageID, info stage.Info) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.claims, id)
	c := claim{info.Host, info.Device, info.DeviceClaims}
	if c.claim == "" { // no budget, or the operator keeps it out
		return ""
	}
	var rival residency.StageID // the first by address
	for other, has := range f.claims {
		if has.host == c.host && has.device == c.device && has.claim != c.claim && (rival == "" || other < rival) {
			rival = other
		}
	}
	if rival != "" {
		return fmt.Sprintf("it names %s of host %q, as %s does, and does not share that one's claim directory: give both the same directory by --device-claims, or, on different machines, different names by --host",
			c.device, c.host, rival)
	}
	f.claims[id] = c
	return ""
}

// counted tells whether a service is one that counts at another address already, such as a pod with two of them behind one name.
// It counts where it was found first, until it is gone from there. m.mu is held.
func (f *Fleet) counted(m *member, info stage.Info) bool {
	was := m.twin
	if m.twin = f.reach(m.id, info.Instance); m.twin == "" {
		return false
	}
	twin := m.twin
	f.drop(m)
	m.well()
	m.info, m.twin = &info, twin
	if was != twin {
		f.logOf(m).Info("stage counts at another address of it", "counts_at", string(twin))
	}
	return true
}

// reach takes down that a service is reached at an address, or gives the other one where it is.
func (f *Fleet) reach(id residency.StageID, instance string) (other residency.StageID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.reached, id)
	if instance == "" {
		return ""
	}
	for at, has := range f.reached {
		if has == instance {
			return at
		}
	}
	f.reached[id] = instance
	return ""
}

// unclaim ends the claim of a service that is gone.
func (f *Fleet) unclaim(id residency.StageID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.claims, id)
	delete(f.reached, id)
}
