//go:build linux

package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// object is a JSON object of Kubernetes.
type object = map[string]any

// kubeconfig is the path of the credentials of one of the cluster's programs.
func (c *Cluster) kubeconfig(name string) string { return filepath.Join(c.Dir, name+".conf") }

// writeKubeconfig writes credentials that need no other file. JSON is YAML.
func (c *Cluster) writeKubeconfig(name string) error {
	pair := c.pairs[name]
	text, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "triptych",
		"clusters": []object{{"name": "triptych", "cluster": object{"server": apiAddress, "certificate-authority-data": c.CA.PEM}}},
		"users":    []object{{"name": name, "user": object{"client-certificate-data": pair.Cert, "client-key-data": pair.Key}}},
		"contexts": []object{{"name": "triptych", "context": object{"cluster": "triptych", "user": name}}},
	}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.kubeconfig(name), text, 0o600)
}

// writeConfig writes a configuration file of one of the cluster's programs and returns its path.
func (c *Cluster) writeConfig(file string, config object) (string, error) {
	path := filepath.Join(c.Dir, file)
	text, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text, 0o600)
}
