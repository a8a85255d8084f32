//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A FakeNode is a node on which pods are scheduled and become ready, and nothing runs.
type FakeNode struct {
	Name     string
	Zone     string
	Labels   map[string]string
	Taints   []string          // resource names; a pod tolerates the key
	Capacity map[string]string // beside 32 processors, 256Gi and 110 pods
}

// stages are kwok's own descriptions of what a node and a pod go through, in its module.
var stages = []string{
	"node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
	"pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml",
}

// AddFakeNodes starts kwok, unless it runs, and waits until the nodes are ready.
func (c *Cluster) AddFakeNodes(ctx context.Context, nodes ...FakeNode) error {
	if c.kwok == nil {
		if err := c.startKwok(ctx); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := c.addFakeNode(ctx, n); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	for _, n := range nodes {
		if err := c.ready(ctx, c.kwok, time.Minute, func(ctx context.Context) error { return c.nodeReady(ctx, n.Name) }); err != nil {
			return err
		}
	}
	return nil
}

// RemoveFakeNodes removes every fake node with its pods and ends kwok.
func (c *Cluster) RemoveFakeNodes(ctx context.Context) error {
	if c.kwok == nil {
		return nil
	}
	err := errors.Join(
		c.API.deleteAll(ctx, "/api/v1/nodes", "type=kwok"),
		Wait(ctx, time.Minute, func(ctx context.Context) error {
			var left struct {
				Items []struct{ Metadata struct{ Name string } }
			}
			if err := c.API.Get(ctx, "/api/v1/nodes?labelSelector=type%3Dkwok", &left); err != nil {
				return err
			}
			if len(left.Items) > 0 {
				return fmt.Errorf("%d fake nodes are left", len(left.Items))
			}
			return nil
		}))
	c.stop(c.kwok)
	c.kwok = nil
	return err
}

func (c *Cluster) startKwok(ctx context.Context) error {
	module, err := c.tools.Module("sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	var config []byte
	for _, stage := range stages {
		text, err := os.ReadFile(filepath.Join(module, "kustomize", "stage", stage))
		if err != nil {
			return err
		}
		config = append(append(config, "\n---\n"...), text...)
	}
	path := filepath.Join(c.Dir, "kwok.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	c.kwok, err = c.run("kwok", "kwok", nil, "--config="+path, "--kubeconfig="+c.Kubeconfig(),
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
		"--server-address=127.0.0.1:10247", "--node-ip="+NodeIP, "--cidr="+fakePodRange, "--node-lease-duration-seconds=40")
	if err != nil {
		return err
	}
	return c.ready(ctx, c.kwok, 30*time.Second, func(ctx context.Context) error { return answers(ctx, "http://127.0.0.1:10247/healthz") })
}

func (c *Cluster) addFakeNode(ctx context.Context, n FakeNode) error {
	labels := object{
		"type": "kwok", "kubernetes.io/hostname": n.Name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"topology.kubernetes.io/zone": n.Zone,
	}
	for name, value := range n.Labels {
		labels[name] = value
	}
	taints := []object{}
	for _, key := range n.Taints {
		taints = append(taints, object{"key": key, "value": "present", "effect": "NoSchedule"})
	}
	capacity := object{"cpu": "32", "memory": "256Gi", "pods": "110"}
	for name, value := range n.Capacity {
		capacity[name] = value
	}
	path := "/api/v1/nodes/" + n.Name
	err := c.API.Apply(ctx, path, object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": n.Name, "labels": labels, "annotations": object{"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}},
		"spec":     object{"taints": taints},
	})
	if err != nil {
		return err
	}
	return c.API.Patch(ctx, path+"/status", object{"status": object{"capacity": capacity, "allocatable": capacity}})
}

// nodeReady is nil when the node says that it is ready.
func (c *Cluster) nodeReady(ctx context.Context, name string) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.API.Get(ctx, "/api/v1/nodes/"+name, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", name, condition.Message)
		}
	}
	return fmt.Errorf("node %s has not said whether it is ready", name)
}
