package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/local"
	"github.com/triptych-serving/triptych/orchestrator"
	"github.com/triptych-serving/triptych/stage"
)

func orchestratorCommand() *cobra.Command {
	var (
		listen    = listenFlags{name: "listen"}
		metrics   = listenFlags{name: metricsListen, optional: true}
		life      lifeFlags
		scaler    = listenFlags{name: scalerListen, optional: true}
		logs      logFlags
		memory    memoryFlags
		o         orchestrator.Options
		addresses = map[stage.Kind]*[]string{}
		replicas  = perStage[int]{name: "min-replicas", kind: "COUNT", parse: parseCount}
	)
	cmd := &cobra.Command{
		Use:   "orchestrator --encoder ADDR,... --denoiser ADDR,... --decoder ADDR,...",
		Short: "Serve the public API over running stage services",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o.Stages = map[stage.Kind][]string{}
			for kind, a := range addresses {
				if len(*a) == 0 {
					return usageError{fmt.Errorf("--%v is missing: the addresses of the %v services", kind, kind)}
				}
				for _, address := range *a {
					if err := checkTarget(kind.String(), "stage", address); err != nil {
						return err
					}
				}
				o.Stages[kind] = *a
			}
			o.MinReplicas = replicas.values
			if o.Memory, err = memory.parse(); err != nil {
				return err
			}
			if o.Logger, err = logs.logger(); err != nil {
				return err
			}
			health, end, err := life.begin(o.Logger)
			if err != nil {
				return err
			}
			defer end()
			lis, err := listen.listen()
			if err != nil {
				return err
			}
			if o.Metrics, err = metrics.listen(); err != nil {
				return errors.Join(err, lis.Close())
			}
			o.Health, o.DrainTimeout = health, life.drain
			if o.Scaler, err = scaler.listen(); err != nil {
				if o.Metrics != nil {
					err = errors.Join(err, o.Metrics.Close())
				}
				return errors.Join(err, lis.Close())
			}
			o.ID = local.OwnerOf(cmd.Context())
			o.Undrain = o.ID != "" // services that are its alone drain for nobody else
			err = orchestrator.Run(cmd.Context(), lis, o)
			if refused := (*orchestrator.OptionError)(nil); errors.As(err, &refused) {
				return usageError{err}
			}
			return err
		},
	}
	flags := cmd.Flags()
	for _, kind := range stage.Kinds() {
		addresses[kind] = flags.StringSlice(kind.String(), nil, fmt.Sprintf("addresses of %v services, host:port,...; dns:///NAME:port stands for every address behind the name, looked up each second, dns://SERVER/NAME:port as that DNS server tells", kind))
	}
	listen.add(flags, defaultListen, "address to listen on, host:port; port 0 takes a free one")
	metrics.add(flags, "", metricsUsage)
	life.add(flags)
	scaler.add(flags, "", "address at which KEDA asks as of an external scaler, host:port, in TLS if --tls-cert is given; nowhere without")
	logs.add(flags, "info")
	memory.add(flags)
	tlsFlags(flags, &o.TLS)
	clientTLSFlags(flags, "stage-", &o.StageTLS)
	flags.IntVar(&o.MaxJobs, "max-jobs", 64, "requests at work or waiting at once; more are refused")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long a request waits for a stage of which no service answers, within its own deadline")
	flags.Var(&replicas, replicas.name, "services of a stage without which the orchestrator is not ready, such as denoiser=0 where all of them may be scaled away; as long as --patience they may be missing again; may be repeated, or separated by commas (default 1 each)")
	flags.IntVar(&o.CheckpointEveryNSteps, "checkpoint-every", 5, "denoising steps between checkpoints: what a lost denoiser costs at most")
	flags.DurationVar(&o.SendTimeout, "send-timeout", 30*time.Second, "how long a caller may take to read a message, of at most 1 MiB, while images wait for him")
	return cmd
}

func parseCount(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a count, expected 0 or more", text)
	}
	return int(n), nil
}

// scalerListen is the flag of the scaler's address.
const scalerListen = "scaler-listen"

// The flag of the metrics' address, of `orchestrator` and `up`.
const (
	metricsListen = "metrics-listen"
	metricsUsage  = "address at which Prometheus scrapes /metrics, host:port, in plaintext; nowhere without"
)

// defaultListen is the orchestrator's address.
const defaultListen = "127.0.0.1:7420"
