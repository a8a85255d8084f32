// Command bench measures what this machine can do, the kernels at the shapes of real networks, and whole networks and
// images beside other inference engines. See README.md.
//
// The package may import what is below it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/triptych-serving/triptych/bench/configs"
	"github.com/triptych-serving/triptych/bench/randommodel"
	"github.com/triptych-serving/triptych/bench/serve"
)

const usage = `usage: bench [flags]                             measure; -h lists the flags
       bench sd15|sdxl [-only COMPONENT] [DIR]   write random weights of the size of Stable Diffusion 1.5, or XL
       bench table FILE.json                     print the tables of a report
       bench shapes FILE.json                    record the operations of the networks in bench/configs
       bench serve [-profiles DIR] [-lora FILE] MODEL NETWORK THREADS
                                                 our side as a child process; see bench/peer`

// errUsage is a command line that says nothing.
var errUsage = errors.New(usage)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "sd15", "sdxl":
		return writeRandom(command, args[1:])
	case "table":
		return printTable(args[1:])
	case "shapes":
		if len(args) != 2 {
			return errUsage
		}
		return writeShapes(args[1])
	case "serve":
		return child(ctx, args[1:])
	}
	return measure(ctx, args)
}

// sized are the models with random weights, by the names of their folders in the cache, which is not in the repository.
var sized = map[string]func() configs.Files{"sd15": configs.SD15, "sdxl": configs.SDXL}

func writeRandom(name string, args []string) error {
	flags := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	only := flags.String("only", "", fmt.Sprintf("write the weights of one component: %v", sized[name]().Components()))
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir := filepath.Join(cacheFolder, name)
	switch flags.NArg() {
	case 0:
	case 1:
		dir = flags.Arg(0)
	default:
		return errUsage
	}
	return writeRandomModel(name, dir, *only)
}

// writeRandomModel tells how far it is on standard error, a line for each component and tenth.
func writeRandomModel(name, dir, only string) error {
	start, told := time.Now(), ""
	return randommodel.Write(randommodel.Options{
		Dir: dir, Files: sized[name](), Only: only, Tokenizer: filepath.Join("models", "starter", "tokenizer"),
		Progress: func(component string, done, all int64) {
			line := fmt.Sprintf("%s %d %%", component, done*10/all*10)
			if line != told {
				told = line
				fmt.Fprintf(os.Stderr, "%s of %d MB, %.0f s\n", line, all/1_000_000, time.Since(start).Seconds())
			}
		},
	})
}

func child(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench serve", flag.ContinueOnError)
	profiles := flags.String("profiles", "", "write a CPU profile to this folder")
	lora := flags.String("lora", "", "add the LoRA of this file to the U-Net")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 3 {
		return errUsage
	}
	threads, err := strconv.Atoi(flags.Arg(2))
	if err != nil || threads < 1 {
		return fmt.Errorf("%q threads: expected a number above 0", flags.Arg(2))
	}
	o := serve.Options{Model: flags.Arg(0), Network: flags.Arg(1), Threads: threads, LoRA: *lora}
	stop, err := startProfile(*profiles, fmt.Sprintf("%s-%s-%d", filepath.Base(o.Model), o.Network, os.Getpid()))
	if err != nil {
		return err
	}
	return errors.Join(serve.Main(ctx, o, os.Stdin, os.Stdout), stop())
}
