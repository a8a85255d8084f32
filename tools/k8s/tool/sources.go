package tool

// sources are all programs, by the name that they get.
var sources = map[string]source{
	"helm":          {module: "chart", pkg: "helm.sh/helm/v4/cmd/helm"},
	"helm-docs":     {module: "chart", pkg: "github.com/norwoodj/helm-docs/cmd/helm-docs"},
	"helm-unittest": {module: "unittest", pkg: "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"},
	"kubeconform":   {module: "chart", pkg: "github.com/yannh/kubeconform/cmd/kubeconform"},
	"render":        {module: "chart", pkg: "./render"},
	"schemas":       {module: "chart", pkg: "./schemas"},
}
