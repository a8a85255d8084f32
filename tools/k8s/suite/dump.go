//go:build linux

package suite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// dump prints what an operator would look at: pods, events, and the ends of logs.
func (t *T) dump(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	show := func(title string, lines int, args ...string) {
		out, err := t.Kubectl(ctx, args...)
		if err != nil {
			out += err.Error()
		}
		all := strings.Split(strings.TrimSpace(out), "\n")
		all = all[max(0, len(all)-lines):]
		for i, line := range all {
			all[i] = line[:min(len(line), 240)]
		}
		fmt.Fprintf(t.Log, "     -- %s\n     | %s\n", title, strings.Join(all, "\n     | "))
	}
	show("objects", 40, "get", "deployments,replicasets,pods,hpa", "-o", "wide")
	show("events", 20, "get", "events", "--sort-by=.metadata.creationTimestamp", "-o", "custom-columns=WHAT:.involvedObject.name,REASON:.reason,MESSAGE:.message", "--no-headers")
	pods, err := t.pods(ctx, "")
	if err != nil {
		return
	}
	for _, p := range pods {
		if p.Spec.NodeName != cluster.NodeName {
			continue
		}
		show("log of "+p.Metadata.Name, 12, "logs", p.Metadata.Name, "--all-containers", "--tail=12")
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount > 0 {
				show("log of "+p.Metadata.Name+" before it was started again", 12, "logs", p.Metadata.Name, "-c", c.Name, "--previous", "--tail=12")
			}
		}
	}
}
