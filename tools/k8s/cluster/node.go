//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// PauseImage is the image of a pod's first process, which AddNode expects among its images.
const PauseImage = "docker.io/triptych/pause:test"

// containerdSocket lies at /run, which is the sandbox's own.
const containerdSocket = "/run/containerd/containerd.sock"

// AddNode adds a real node, which runs containers, and waits until it is ready. Images are archives
// that its container runtime shall know.
func (c *Cluster) AddNode(ctx context.Context, images ...string) error {
	if err := makeCgroups(); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	if err := c.startContainerd(ctx); err != nil {
		return err
	}
	for _, image := range images {
		if err := c.LoadImage(ctx, image); err != nil {
			return err
		}
	}
	kubelet, err := c.startKubelet()
	if err != nil {
		return err
	}
	if err := errors.Join(c.startProxy(), c.startDNS()); err != nil {
		return err
	}
	return c.ready(ctx, kubelet, 90*time.Second, func(ctx context.Context) error { return c.nodeReady(ctx, NodeName) })
}

// LoadImage gives an OCI or Docker archive to the node's container runtime.
func (c *Cluster) LoadImage(ctx context.Context, archive string) error {
	_, err := c.ctr(ctx, "images", "import", archive)
	return err
}

// SetCapacity publishes a resource of the node, as a device plugin would. No device is handed to a
// container.
func (c *Cluster) SetCapacity(ctx context.Context, resource, count string) error {
	have := object{resource: count}
	return c.API.Patch(ctx, "/api/v1/nodes/"+NodeName+"/status", object{"status": object{"capacity": have, "allocatable": have}})
}

// ctr runs containerd's own client and returns what it prints.
func (c *Cluster) ctr(ctx context.Context, args ...string) (string, error) {
	program, err := c.tools.Tool("ctr")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-a", containerdSocket, "-n", "k8s.io"}, args...)...)
	var messages bytes.Buffer
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("ctr %v: %w: %s", args, err, &messages)
	}
	return string(out), nil
}

func (c *Cluster) startContainerd(ctx context.Context) error {
	shim, err := c.tools.Tool("containerd-shim-runc-v2")
	if err != nil {
		return err
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	cni := filepath.Join(c.Dir, "cni")
	if err := os.MkdirAll(cni, 0o750); err != nil {
		return err
	}
	config := filepath.Join(c.Dir, "containerd.toml")
	text := fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  # A root without CAP_SYS_RESOURCE may not lower a process's OOM score; runc would fail.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = %q
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %q
        SystemdCgroup = false
`, filepath.Join(c.Dir, "containerd"), containerdSocket, PauseImage, cni, runc)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	_, err = c.writeConfig("cni/10-triptych.conflist", object{
		"cniVersion": "1.0.0", "name": "triptych",
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
				"ipam": object{
					"type": "host-local", "dataDir": filepath.Join(c.Dir, "ipam"),
					"ranges": [][]object{{{"subnet": podRange}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	})
	if err != nil {
		return err
	}
	// containerd looks for its shim on the path.
	path := "PATH=" + filepath.Dir(shim) + string(os.PathListSeparator) + os.Getenv("PATH")
	p, err := c.run("containerd", "containerd", []string{path}, "-c", config)
	if err != nil {
		return err
	}
	return c.ready(ctx, p, 30*time.Second, func(ctx context.Context) error {
		_, err := c.ctr(ctx, "version")
		return err
	})
}

func (c *Cluster) startKubelet() (*process, error) {
	config, err := c.writeConfig("kubelet.json", object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"failCgroupV1":             false,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + cgroupName,
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"address":                  NodeIP,
		"tlsCertFile":              c.pki("kubelet.crt"),
		"tlsPrivateKeyFile":        c.pki("kubelet.key"),
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": c.pki("ca.crt")},
		},
		"authorization":             object{"mode": "Webhook"},
		"clusterDNS":                []string{NodeIP},
		"clusterDomain":             Domain,
		"resolvConf":                filepath.Join(c.Dir, "resolv.conf"),
		"podLogsDir":                filepath.Join(c.Dir, "podlogs"),
		"failSwapOn":                false,
		"readOnlyPort":              0,
		"nodeStatusUpdateFrequency": "3s",
		// Never remove an image: there is nowhere to pull it from again.
		"imageMaximumGCAge":           "0s",
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"evictionHard":                object{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"enforceNodeAllocatable":      []string{"pods"},
	})
	if err != nil {
		return nil, err
	}
	return c.run("kubelet", "kubelet", nil, "--config="+config, "--kubeconfig="+c.kubeconfig("kubelet"),
		"--root-dir="+filepath.Join(c.Dir, "kubelet"), "--hostname-override="+NodeName, "--node-ip="+NodeIP,
		"--node-labels=topology.kubernetes.io/zone=zone-0")
}

func (c *Cluster) startProxy() error {
	config, err := c.writeConfig("kube-proxy.json", object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"clientConnection":   object{"kubeconfig": c.kubeconfig("proxy")},
		"hostnameOverride":   NodeName,
		"mode":               "nftables",
		"conntrack":          object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
	})
	if err != nil {
		return err
	}
	_, err = c.run("kube-proxy", "kube-proxy", nil, "--config="+config)
	return err
}

func (c *Cluster) startDNS() error {
	path := filepath.Join(c.Dir, "Corefile")
	text := fmt.Sprintf(`.:53 {
  bind %s
  errors
  kubernetes %s in-addr.arpa {
    kubeconfig %s
    ttl 5
  }
  loadbalance
}
`, NodeIP, Domain, c.Kubeconfig())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := c.run("coredns", "coredns", nil, "-conf", path)
	return err
}
