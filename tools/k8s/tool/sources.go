package tool

// versioned are the flags by which a program of Kubernetes knows its version.
const versioned = "-X k8s.io/component-base/version.gitVersion={version} -X k8s.io/component-base/version.gitMajor=1 " +
	"-X k8s.io/component-base/version.gitMinor=36 -X k8s.io/component-base/version.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion={version}"

// sources are all programs, by the name that they get.
var sources = map[string]source{
	"helm":          {module: "chart", pkg: "helm.sh/helm/v4/cmd/helm"},
	"helm-docs":     {module: "chart", pkg: "github.com/norwoodj/helm-docs/cmd/helm-docs"},
	"helm-unittest": {module: "unittest", pkg: "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"},
	"promql":        {module: "promql", pkg: "./promql"},
	"render":        {module: "chart", pkg: "./render"},
	"schemas":       {module: "chart", pkg: "./schemas"},

	"kube-apiserver":          {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflags: versioned},
	"kube-controller-manager": {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflags: versioned},
	"kube-scheduler":          {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-scheduler", ldflags: versioned},
	"kubelet":                 {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kubelet", ldflags: versioned},
	"kube-proxy":              {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kube-proxy", ldflags: versioned},
	"kubectl":                 {module: "kubernetes", pkg: "k8s.io/kubernetes/cmd/kubectl", ldflags: versioned},

	"etcd":                    {module: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
	"containerd":              {module: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd"},
	"containerd-shim-runc-v2": {module: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	"ctr":                     {module: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/ctr"},
	"coredns":                 {module: "coredns", pkg: "github.com/coredns/coredns"},
	"metrics-server":          {module: "metricsserver", pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server"},
	"kwok":                    {module: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok"},
	"keda-operator":           {module: "keda", pkg: "github.com/kedacore/keda/v2/cmd/operator"},
	"keda-adapter":            {module: "keda", pkg: "github.com/kedacore/keda/v2/cmd/adapter"},
}
