//go:build linux

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// API calls the cluster's API server as its administrator. Bodies are JSON, paths are the REST API's.
type API struct{ client *http.Client }

// A StatusError is the API server's refusal.
type StatusError struct {
	Code    int
	Reason  string
	Message string
}

// Error is the server's message.
func (e *StatusError) Error() string { return fmt.Sprintf("%d %s: %s", e.Code, e.Reason, e.Message) }

func newAPI(c *Cluster) (*API, error) {
	pair, err := tls.X509KeyPair(c.pairs["admin"].Cert, c.pairs["admin"].Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA.PEM)
	return &API{client: &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}}, nil
}

// Do sends a request and returns the body of the answer, or a *StatusError.
func (a *API) Do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, apiAddress+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		failure := &StatusError{Code: response.StatusCode, Message: strings.TrimSpace(string(text))}
		var status struct{ Reason, Message string }
		if json.Unmarshal(text, &status) == nil && status.Message != "" {
			failure.Reason, failure.Message = status.Reason, status.Message
		}
		return text, failure
	}
	return text, nil
}

// Get reads an object or a list into a struct of the fields that the caller looks at.
func (a *API) Get(ctx context.Context, path string, into any) error {
	text, err := a.Do(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// Apply creates an object at its path or changes it, server-side. The path ends with its name.
func (a *API) Apply(ctx context.Context, path string, o object) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = a.Do(ctx, http.MethodPatch, path+"?fieldManager=triptych-k8s&force=true", "application/apply-patch+yaml", text)
	return err
}

// Patch merges into an object. The path may name a subresource.
func (a *API) Patch(ctx context.Context, path string, o object) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = a.Do(ctx, http.MethodPatch, path, "application/merge-patch+json", text)
	return err
}

// Delete removes an object, of which there may be none.
func (a *API) Delete(ctx context.Context, path string) error {
	_, err := a.Do(ctx, http.MethodDelete, path, "", nil)
	if status, ok := err.(*StatusError); ok && status.Code == http.StatusNotFound { //nolint:errorlint // Do wraps nothing
		return nil
	}
	return err
}

// deleteAll removes the objects of a collection that have a label.
func (a *API) deleteAll(ctx context.Context, collection, selector string) error {
	_, err := a.Do(ctx, http.MethodDelete, collection+"?labelSelector="+url.QueryEscape(selector), "", nil)
	return err
}

// answers is nil when an address answers 200. Certificates are not looked at: the address is our own.
func answers(ctx context.Context, address string) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // loopback, to see whether it is up
		DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, response.Status)
	}
	return nil
}
