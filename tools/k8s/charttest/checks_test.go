package charttest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

// Everything that objects are checked for is found in a chart that has it all wrong.
func TestChecks(t *testing.T) {
	chart(t)
	root, err := tool.Root()
	broken(t, err)
	results, err := Render(t.Context(), filepath.Join(root, "tools", "k8s", "charttest", "testdata", "broken"), []Set{{Release: "123", KubeVersion: KubeVersion}})
	broken(t, err)
	said := strings.Join(results[0].Problems, "\n")
	for _, want := range []string{
		"additional properties 'imagePullPolcy' not allowed",
		"/metadata/labels/instance': got number, want string",
		"spec.template.metadata.labels long",
		"Deployment a selects map[app:a], which its own pods have not",
		"Deployment a names the ResourceClaimTemplate gone, which is not there",
		"container one uses a claim \"cpu\" that the pod has not",
		"one env: \"X\" is there twice",
		"port a-name-that-is-too-long",
		"container one mounts a volume \"gone\" that the pod has not",
		"container one mounts two volumes at /a",
		"containers: \"one\" is there twice",
		"two containers listen on port 80",
		"no container mounts the volume \"idle\"",
		"metadata.name: must be no more than 63",
		"leads to port 81, which no pod behind it has",
		"PodDisruptionBudget p selects map[app:c], which no pod has",
		"Deployment a has replicas, which HorizontalPodAutoscaler h owns",
		"Deployment a is scaled by two: HorizontalPodAutoscaler h and ScaledObject s",
		"/metadata/start': got number, want string",
		"ScaledObject t names the Deployment gone, which is not there",
		"could not find schema for Unheard",
		"/data/a': got number, want string",
		"ConfigMap twice is there twice",
		"Deployment b selects the pods of Deployment a",
	} {
		if !strings.Contains(said, want) {
			verdict(t, want, fmt.Sprintf("it was not found among\n%s%s", results[0].Error, said))
			continue
		}
		verdict(t, want)
	}
}
