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

// Addresses and names of the one cluster that a sandbox holds.
const (
	NodeIP   = "10.99.0.1"
	NodeName = "real-0"
	Domain   = "cluster.local"

	apiAddress   = "https://127.0.0.1:6443"
	apiIP        = "10.96.0.1"
	serviceRange = "10.96.0.0/16"
	podRange     = "10.244.0.0/24"
	fakePodRange = "10.245.0.0/16"
)

// Tools finds the programs that a cluster is made of.
type Tools interface {
	// Tool returns the path of a built program.
	Tool(name string) (string, error)
	// Module returns the folder of a module's files, for the manifests in it.
	Module(path string) (string, error)
}

// A Cluster is a control plane, and the nodes that were added to it.
type Cluster struct {
	Dir string // holds its files, logs and credentials
	CA  *Authority
	API *API

	tools     Tools
	pairs     map[string]Pair
	processes []*process
	kwok      *process
}

// Up brings up a control plane inside the sandbox and returns when it schedules pods.
func Up(ctx context.Context, dir string, tools Tools) (*Cluster, error) {
	c := &Cluster{Dir: dir, tools: tools, pairs: map[string]Pair{}}
	if err := errors.Join(os.MkdirAll(dir, 0o750), enterNetwork(ctx, dir)); err != nil {
		return nil, err
	}
	if err := c.makePKI(); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	api, err := newAPI(c)
	if err != nil {
		return nil, err
	}
	c.API = api
	for _, step := range []func(context.Context) error{c.startEtcd, c.startAPIServer, c.startControllers} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Kubeconfig is the path of the administrator's credentials.
func (c *Cluster) Kubeconfig() string { return c.kubeconfig("admin") }

// Log returns the end of a program's log, for instance kubelet's.
func (c *Cluster) Log(name string, limit int64) string {
	return tail(filepath.Join(c.Dir, name+".log"), limit)
}

// Ended names the programs that have ended and should not have.
func (c *Cluster) Ended() (names []string) {
	for _, p := range c.processes {
		select {
		case <-p.ended:
			names = append(names, p.name)
		default:
		}
	}
	return names
}

// run starts one of the built programs.
func (c *Cluster) run(name, tool string, env []string, args ...string) (*process, error) {
	program, err := c.tools.Tool(tool)
	if err != nil {
		return nil, err
	}
	return c.start(name, program, env, args...)
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	p, err := c.run("etcd", "etcd", nil,
		"--data-dir="+filepath.Join(c.Dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err != nil {
		return err
	}
	return c.ready(ctx, p, 30*time.Second, func(ctx context.Context) error { return answers(ctx, client+"/health") })
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	p, err := c.run("kube-apiserver", "kube-apiserver", nil,
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address="+NodeIP,
		"--service-cluster-ip-range="+serviceRange, "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction,PodSecurity", "--allow-privileged=true",
		"--client-ca-file="+c.pki("ca.crt"), "--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc."+Domain,
		"--service-account-key-file="+c.pki("sa.pub"), "--service-account-signing-key-file="+c.pki("sa.key"),
		"--kubelet-client-certificate="+c.pki("kubelet-client.crt"), "--kubelet-client-key="+c.pki("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP", // logs and exec would look up the node's name
		"--requestheader-client-ca-file="+c.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true",
		"--proxy-client-cert-file="+c.pki("front-proxy-client.crt"), "--proxy-client-key-file="+c.pki("front-proxy-client.key"))
	if err != nil {
		return err
	}
	return c.ready(ctx, p, 2*time.Minute, func(ctx context.Context) error {
		_, err := c.API.Do(ctx, "GET", "/readyz", "", nil)
		return err
	})
}

func (c *Cluster) startControllers(ctx context.Context) error {
	controllers, err := c.run("kube-controller-manager", "kube-controller-manager", nil,
		"--kubeconfig="+c.kubeconfig("controller-manager"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials", "--root-ca-file="+c.pki("ca.crt"), "--service-account-private-key-file="+c.pki("sa.key"),
		"--cluster-signing-cert-file="+c.pki("ca.crt"), "--cluster-signing-key-file="+c.pki("ca.key"),
		"--requestheader-client-ca-file="+c.pki("front-proxy-ca.crt"),
		"--horizontal-pod-autoscaler-sync-period=3s", "--node-monitor-grace-period=20s")
	if err != nil {
		return err
	}
	scheduler, err := c.run("kube-scheduler", "kube-scheduler", nil,
		"--kubeconfig="+c.kubeconfig("scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false")
	if err != nil {
		return err
	}
	// The controllers work once a namespace has its service account.
	err = c.ready(ctx, controllers, time.Minute, func(ctx context.Context) error {
		_, err := c.API.Do(ctx, "GET", "/api/v1/namespaces/default/serviceaccounts/default", "", nil)
		return err
	})
	if err != nil {
		return err
	}
	return c.ready(ctx, scheduler, time.Minute, func(ctx context.Context) error { return answers(ctx, "https://127.0.0.1:10259/healthz") })
}
