//go:build linux

// Package cluster brings up a real Kubernetes on one Linux machine, without internet, and takes it
// down again without a trace: an API server, its controllers and scheduler on etcd, nodes that are
// fake (kwok) or real (containerd, kubelet, kube-proxy, CoreDNS), metrics-server and KEDA, each a
// plain process.
//
// Everything lives in a sandbox of namespaces (network, mounts, processes) whose first process is
// ours: when that ends, however it ends, the kernel ends all others and drops every mount, interface
// and firewall rule. What a kernel does not drop, control groups and files, Down removes.
//
// The package runs the programs of Kubernetes and imports none of it.
package cluster
