package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// byteSize is a flag like 64MiB; 0 is as without it.
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*b))
}

func (b *byteSize) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is not a size, expected a number with a unit such as 64MiB or 2GB", text)
	}
	*b = byteSize(n)
	return nil
}

func (*byteSize) Type() string { return "SIZE" }

func warmFlag(flags *pflag.FlagSet, warm *byteSize) {
	flags.Var(warm, "warm-memory", "memory of the host for weights that are evicted, which are then resident again at once, such as 2GiB; none without")
}

func verifyFlag(flags *pflag.FlagSet, verify *bool) {
	flags.BoolVar(verify, "verify", false, "read all files that are there already and replace those whose bytes have changed; without, sizes and times tell")
}

// logFlags choose what is logged, and how.
type logFlags struct{ level, format string }

// The values of --log-level and --log-format.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

func (f *logFlags) add(flags *pflag.FlagSet, level string) {
	flags.StringVar(&f.level, "log-level", level, "debug, info, warn or error")
	flags.StringVar(&f.format, "log-format", logFormats[0], "text, or json for one object a line")
}

// args are the flags on a command line again.
func (f *logFlags) args() []string { return []string{"--log-level", f.level, "--log-format", f.format} }

func (f *logFlags) parse() (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return level, usageError{fmt.Errorf("--log-level %q: expected debug, info, warn or error", f.level)}
	}
	if !slices.Contains(logFormats, f.format) {
		return level, usageError{fmt.Errorf("--log-format %q: expected text or json", f.format)}
	}
	return level, nil
}

// logger writes to standard error, in colours where that is a terminal.
func (f *logFlags) logger() (*slog.Logger, error) {
	level, err := f.parse()
	if err != nil {
		return nil, err
	}
	if f.format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
	}
	return slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{Level: level, NoColor: !term.IsTerminal(int(os.Stderr.Fd()))})), nil
}

// listenFlags say where a server listens.
type listenFlags struct {
	name     string // of the flag
	optional bool   // no address is nowhere
	address  string
	fd       int
}

func (f *listenFlags) add(flags *pflag.FlagSet, address, usage string) {
	flags.StringVar(&f.address, f.name, address, usage)
	flags.IntVar(&f.fd, f.name+"-fd", 0, "serve on this open file descriptor instead, as service managers hand down")
	hide(flags, f.name+"-fd")
}

// listen opens the listener; it is nil where no address is given.
func (f *listenFlags) listen() (net.Listener, error) {
	switch {
	case f.fd == 0 && f.address == "" && f.optional:
		return nil, nil
	case f.fd == 0:
		if err := checkAddress(f.name, f.address); err != nil {
			return nil, err
		}
		lis, err := rpcserver.Listen(f.address)
		return lis, listenError(err)
	}
	file := os.NewFile(uintptr(f.fd), "listener")
	if file == nil {
		return nil, usageError{fmt.Errorf("--%s-fd %d is not a file descriptor", f.name, f.fd)}
	}
	defer file.Close()
	lis, err := net.FileListener(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("--%s-fd %d: %w", f.name, f.fd, err)}
	}
	return lis, nil
}

// listenError is bad usage but for an address that is in use, which passes.
func listenError(err error) error {
	if refused := (*net.OpError)(nil); errors.As(err, &refused) && !errors.As(err, new(*rpcserver.PortInUseError)) {
		return usageError{err}
	}
	return err
}

// checkAddress refuses what is no address as bad usage.
func checkAddress(flag, address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return usageError{fmt.Errorf("--%s %q: expected host:port, such as 127.0.0.1:7420", flag, address)}
	}
	return nil
}

// tlsFlags are the certificates of a server.
func tlsFlags(flags *pflag.FlagSet, t *rpcserver.TLS) {
	flags.StringVar(&t.CertFile, "tls-cert", "", "PEM file of the server's certificate; plaintext without")
	flags.StringVar(&t.KeyFile, "tls-key", "", "PEM file of its key")
	flags.StringVar(&t.ClientCAFile, "tls-client-ca", "", "PEM file of the authorities of clients; clients then need a certificate")
}

// clientTLSFlags are the certificates of a client; prefix tells the flags of two clients apart.
func clientTLSFlags(flags *pflag.FlagSet, prefix string, t *rpcserver.ClientTLS) {
	flags.StringVar(&t.CAFile, prefix+"ca", "", "PEM file of the authorities of servers; plaintext without")
	flags.StringVar(&t.CertFile, prefix+"client-cert", "", "PEM file of the certificate shown to servers")
	flags.StringVar(&t.KeyFile, prefix+"client-key", "", "PEM file of its key")
}

const modelsEnv = "TRIPTYCH_MODELS"

// modelsFlag lists the folders models are found in. The default is $TRIPTYCH_MODELS, else ./models,
// else the models beside the binary.
func modelsFlag(flags *pflag.FlagSet, dirs *[]string) {
	def := defaultModels
	if _, err := os.Stat(def); err != nil {
		if exe, err := os.Executable(); err == nil {
			if beside := filepath.Join(filepath.Dir(exe), def); isDir(beside) {
				def = beside
			}
		}
	}
	*dirs = splitPaths(cmp.Or(os.Getenv(modelsEnv), def))
	flags.Var(&paths{to: dirs}, "models", "model directories, or folders of them, separated by commas; may be repeated ($"+modelsEnv+")")
}

// openLibrary opens the models of --models, with the autoencoders of --vae. Errors are bad usage.
func openLibrary(vaes vaeFiles, dirs ...string) (*stageengine.Library, error) {
	library, err := stageengine.OpenLibrary(dirs...)
	if err == nil {
		err = library.ReplaceVAE(vaes)
	}
	switch {
	case err == nil:
		return library, nil
	case slices.Equal(dirs, []string{defaultModels}) && !isDir(defaultModels): // as it is outside the repository
		return nil, usageError{fmt.Errorf("there is no folder %q here, nor beside the program: expected --model DIR or --models DIR (or $%s), "+
			"with a model in the layout of diffusers, such as models/starter of Triptych's repository", defaultModels, modelsEnv)}
	}
	return nil, usageError{err}
}

// vaeFiles is a flag with the files of autoencoders, by the models whose own they take the place of; that of no model is for all others.
type vaeFiles map[string]string

func (v *vaeFiles) add(flags *pflag.FlagSet) {
	flags.Var(v, "vae", "file with an autoencoder that models use in the place of their own; may be repeated")
}

func (v *vaeFiles) String() string { return strings.Join(v.texts(), ",") }

// texts are the values of the flag again, sorted.
func (v *vaeFiles) texts() (out []string) {
	for _, model := range slices.Sorted(maps.Keys(*v)) {
		text := (*v)[model]
		if model != "" || strings.Contains(text, "=") {
			text = model + "=" + text
		}
		out = append(out, text)
	}
	return out
}

func (v *vaeFiles) Set(text string) error {
	model, file, of := strings.Cut(text, "=")
	if !of || exists(text) {
		model, file = "", text
	}
	if file == "" {
		return fmt.Errorf("%q names no file, expected FILE or MODEL=FILE", text)
	}
	if *v == nil {
		*v = vaeFiles{}
	}
	(*v)[model] = file
	return nil
}

func (*vaeFiles) Type() string { return "[MODEL=]FILE" }

func (v *vaeFiles) args() (out []string) {
	for _, text := range v.texts() {
		out = append(out, "--vae", text)
	}
	return out
}

// defaultModels is the folder of models where no other is given.
const defaultModels = "models"

// paths is a flag that may be repeated; the first one given replaces the default.
type paths struct {
	to    *[]string
	given bool
}

func (p *paths) String() string {
	if p.to == nil {
		return ""
	}
	return strings.Join(*p.to, ",")
}

func (p *paths) Set(text string) error {
	if !p.given {
		*p.to, p.given = nil, true
	}
	*p.to = append(*p.to, splitPaths(text)...)
	return nil
}

func (*paths) Type() string { return "DIR,..." }

// splitPaths gives the paths that are separated by commas, or the one that has them in its name.
func splitPaths(text string) []string {
	if _, err := os.Stat(text); err == nil {
		return []string{text}
	}
	return strings.Split(text, ",")
}

// modelDirectory tells whether a model is given by its path, of a directory or a file, and then the path and the name it is served
// under.
func modelDirectory(model string) (path, name string, ok bool, err error) {
	if !strings.ContainsRune(model, filepath.Separator) && !exists(model) {
		return "", model, false, nil
	}
	path, err = filepath.Abs(model)
	return path, stageengine.NameOf(path), err == nil, err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func hide(flags *pflag.FlagSet, name string) {
	if err := flags.MarkHidden(name); err != nil {
		panic(err) // a misspelt name
	}
}

// accepted are the values of flags whose own errors speak of Go, by their type.
var accepted = map[string]string{
	"int": "a whole number", "int32": "a whole number of 32 bits", "uint64": "a whole number from 0 to 18446744073709551615",
	"float32": "a number", "float64": "a number", "duration": "a duration, such as 30s or 5m", "bool": "true or false",
}

// flagError is an error of parsing flags in words of ours.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	if expected, ok := accepted[invalid.GetFlag().Value.Type()]; ok {
		return fmt.Errorf("--%s %q: expected %s", invalid.GetFlag().Name, invalid.GetValue(), expected)
	}
	return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, errors.Unwrap(invalid))
}

// noArgs refuses arguments as bad usage.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}
