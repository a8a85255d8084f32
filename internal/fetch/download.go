package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/internal/modelfolder"
)

const (
	// maxFailures is how often in a row a download fails without getting on before it is given up: about two minutes.
	maxFailures = 8
	firstPause  = time.Second
	maxPause    = 30 * time.Second
	// maxWrong is how often a file may arrive whole with another SHA-256.
	maxWrong = 2
	// stallAfter is how long a server may send nothing.
	stallAfter = time.Minute
)

// download is a file on its way.
type download struct {
	*run
	file    File
	name    string // as it is told
	partial string // where it is until it is complete

	out  *os.File
	hash hash.Hash
	have int64
	all  int64 // 0 while nobody knows
}

// permanentError is an error that trying again does not change.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// later is an error of a server that tells when to try again.
type later struct {
	error
	after time.Duration
}

func (e later) Unwrap() error { return e.error }

// do gets the file into partial. Errors name the file and the server.
func (d *download) do(ctx context.Context) (err error) {
	where, err := url.Parse(d.file.URL)
	if err != nil {
		return fmt.Errorf("%s: the URL cannot be read", d.name)
	}
	if err := d.open(ctx); err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	defer func() { err = errors.Join(err, d.out.Close()) }()
	for failures, wrong := 0, 0; ; {
		before := d.have
		err := d.attempt(ctx, where)
		if err == nil {
			sum := hex.EncodeToString(d.hash.Sum(nil))
			if sum == d.file.SHA256 {
				return nil
			}
			err = fmt.Errorf("what came has SHA-256 %s, expected %s", sum, d.file.SHA256)
			if wrong++; wrong == maxWrong {
				err = permanentError{err}
			}
			if reset := d.restart(); reset != nil {
				return fmt.Errorf("%s: %w", d.name, reset)
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, new(permanentError)):
			return fmt.Errorf("%s from %s: %w", d.name, place(where), err)
		case d.have > before:
			failures = 0
		}
		if failures++; failures == maxFailures {
			return fmt.Errorf("%s from %s: failed %d times, last since %w; what is there so far is kept", d.name, place(where), failures, err)
		}
		wait := backoff(failures)
		if told := (later{}); errors.As(err, &told) {
			wait = max(wait, told.after)
		}
		d.Progress.Line("%s: %v; trying again in %v", d.name, err, wait.Round(100*time.Millisecond))
		if err := d.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// backoff is how long to wait after so many failures, which is up to a quarter shorter by chance.
func backoff(failures int) time.Duration {
	wait := min(firstPause<<(failures-1), maxPause)
	return wait - rand.N(wait/4) //nolint:gosec // no secret
}

func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open opens the partial file and reads what it has.
func (d *download) open(ctx context.Context) (err error) {
	d.hash = sha256.New()
	if d.file.Size != nil {
		d.all = *d.file.Size
	}
	d.out, err = os.OpenFile(d.partial, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644) //nolint:gosec // other users' services may read models
	if err != nil {
		return modelfolder.Full(err)
	}
	err = modelfolder.Copy(ctx, d.hash, d.out, func(n int64) { d.have += n })
	if err == nil && d.file.Size != nil && d.have > *d.file.Size {
		err = d.restart()
	}
	if err != nil {
		return errors.Join(err, d.out.Close())
	}
	return nil
}

// restart forgets what there is of the file.
func (d *download) restart() error {
	d.hash.Reset()
	d.have = 0
	_, err := d.out.Seek(0, io.SeekStart)
	return errors.Join(err, d.out.Truncate(0))
}

// attempt asks the server once for what is missing.
func (d *download) attempt(ctx context.Context, where *url.URL) error {
	if d.file.Size != nil && d.have == *d.file.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	response, err := d.request(ctx, where)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := d.begin(response); err != nil {
		return err
	}
	stalled := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("nothing came for %v", d.stall)) })
	defer stalled.Stop()
	most := int64(maxSize)
	if d.file.Size != nil {
		most = *d.file.Size
	}
	err = modelfolder.Copy(ctx, io.MultiWriter(d.out, d.hash), io.LimitReader(response.Body, most-d.have+1), func(n int64) {
		stalled.Reset(d.stall)
		d.have += n
		d.Progress.Bytes(d.name, d.have, d.all)
	})
	switch wrote := (*fs.PathError)(nil); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case modelfolder.IsFull(err), errors.As(err, &wrote):
		return permanentError{err}
	case d.have > most:
		return errors.Join(permanentError{fmt.Errorf("the server sends more than %d bytes", most)}, d.restart())
	case err != nil:
		return fmt.Errorf("the connection broke after %d bytes: %w", d.have, plain(err))
	case d.file.Size != nil && d.have < most:
		return fmt.Errorf("the server ended after %d of %d bytes", d.have, most)
	}
	return nil
}

// begin looks at an answer: what its body is a part of.
func (d *download) begin(response *http.Response) error {
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		if err := d.restart(); err != nil { // it does not know ranges
			return permanentError{err}
		}
		return d.total(response.ContentLength)
	case code == http.StatusPartialContent:
		first, total, ok := contentRange(response.Header.Get("Content-Range"))
		if !ok || first != d.have {
			return errors.Join(fmt.Errorf("the server sends another part than was asked for"), d.restart())
		}
		return d.total(total)
	case code == http.StatusRequestedRangeNotSatisfiable && d.have > 0:
		return errors.Join(fmt.Errorf("the server has fewer than the %d bytes that were there", d.have+1), d.restart())
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return permanentError{fmt.Errorf("the server refuses with %s; a token can be given as $TRIPTYCH_FETCH_TOKEN", response.Status)}
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return later{fmt.Errorf("the server answers %s", status(response)), min(time.Duration(max(seconds, 0))*time.Second, 10*maxPause)}
	}
	return permanentError{fmt.Errorf("the server answers %s", status(response))}
}

// status is the code of an answer in the words of the specification, not the server's.
func status(response *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)))
}

// total is how many bytes the server says the file has, less than 0 if it does not.
func (d *download) total(n int64) error {
	switch {
	case n < 0:
	case d.file.Size != nil && n != *d.file.Size:
		return permanentError{fmt.Errorf("the server has %d bytes, the manifest says %d", n, *d.file.Size)}
	case n > maxSize:
		return permanentError{fmt.Errorf("the server has %d bytes, expected at most %d", n, int64(maxSize))}
	default:
		d.all = n
		if err := d.folder.Room(n - d.have); err != nil {
			return permanentError{err}
		}
	}
	return nil
}

// contentRange reads "bytes FIRST-LAST/TOTAL"; total is -1 for "*".
func contentRange(text string) (first, total int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	span, all, both := strings.Cut(text, "/")
	from, to, dash := strings.Cut(span, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	total = -1
	var err3 error
	if all != "*" {
		total, err3 = strconv.ParseInt(all, 10, 64)
	}
	return first, total, ok && both && dash && errors.Join(err, err2, err3) == nil && first >= 0 && last >= first && (total < 0 || last < total)
}

func size(name string) int64 {
	info, err := os.Lstat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}
