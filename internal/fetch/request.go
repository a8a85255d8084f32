package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	maxRedirects  = 10
	headerTimeout = 30 * time.Second
)

// newTransport gives up on servers that do not answer, and takes files as they are.
func newTransport() http.RoundTripper {
	fallBack()
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = headerTimeout
	t.DisableCompression = true
	return t
}

// fallBack sets certificates of authorities for machines that have none, such as a container. It reads them here rather than when a
// process starts: nobody else needs them, and a picture takes seven processes.
var fallBack = sync.OnceFunc(func() {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		switch cert, err := x509.ParseCertificate(root.Certificate); {
		case err != nil: // the others do
		case root.Constraint != nil:
			pool.AddCertWithConstraint(cert, root.Constraint)
		default:
			pool.AddCert(cert)
		}
	}
	x509.SetFallbackRoots(pool)
})

// request asks for what is missing of the file and follows redirects. The token goes to the host of the manifest alone, and
// over https alone.
func (d *download) request(ctx context.Context, where *url.URL) (*http.Response, error) {
	first := where
	for range maxRedirects + 1 {
		request := (&http.Request{Method: http.MethodGet, URL: where, Host: where.Host, Header: http.Header{}}).WithContext(ctx)
		request.Header.Set("User-Agent", "triptych")
		if d.have > 0 {
			request.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
		}
		switch password, _ := where.User.Password(); {
		case where.User != nil:
			request.SetBasicAuth(where.User.Username(), password)
		case d.Token != "" && where.Scheme == "https" && where.Host == first.Host:
			request.Header.Set("Authorization", "Bearer "+d.Token)
		}
		response, err := d.transport.RoundTrip(request)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, plain(err)
		}
		switch response.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return response, nil
		}
		_ = response.Body.Close()
		to, err := response.Location()
		if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Hostname() == "" {
			return nil, permanentError{errors.New("the server redirects to what is no address")}
		}
		if where.Scheme == "https" && to.Scheme != "https" {
			return nil, permanentError{fmt.Errorf("the server redirects from https to http, at %s", to.Host)}
		}
		where = to
	}
	return nil, permanentError{fmt.Errorf("the server redirects more than %d times", maxRedirects)}
}

// plain is an error of a connection in few words. None has the URL of the request, which may have secrets: those of http.Client would.
func plain(err error) error {
	if unknown := (*net.DNSError)(nil); errors.As(err, &unknown) {
		return fmt.Errorf("no address of %s: %s", unknown.Name, unknown.Err)
	}
	return err
}
