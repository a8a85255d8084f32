package stageplugin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// timeFormat is that of "@timestamp", which go-plugin parses.
const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// levelTrace is below slog's own levels.
const levelTrace = slog.LevelDebug - 4

// NewChildLogger makes the logger of a child process: it writes to standard error what the parent's
// Options.Logger then gets at the same level. Make it before serving.
func NewChildLogger(level slog.Leveler) *slog.Logger { return newChildLogger(os.Stderr, level) }

// newChildLogger writes hclog's JSON. go-plugin panics in the parent on any of its @-fields that is
// not a string, so nothing else may be called like that.
func newChildLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch value := a.Value.Any().(type) {
			case time.Time:
				if a.Key == slog.TimeKey {
					return slog.String("@timestamp", value.Format(timeFormat))
				}
			case slog.Level:
				if a.Key == slog.LevelKey {
					return slog.String("@level", levelName(value))
				}
			case string:
				if a.Key == slog.MessageKey {
					return slog.String("@message", value)
				}
			}
			a.Key = strings.TrimLeft(a.Key, "@")
			return a
		},
	}))
}

// levelName is hclog's name of a level.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelDebug:
		return "trace"
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// newHCLog makes the logger that go-plugin wants out of ours. The hclog logger itself writes
// nothing; all goes to the sink.
func newHCLog(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{
		Level:   hclog.Trace,
		Output:  io.Discard,
		Exclude: func(hclog.Level, string, ...any) bool { return true },
	})
	l.RegisterSink(&sink{logger})
	return l
}

// sink passes hclog records on to slog.
type sink struct{ logger *slog.Logger }

// Accept is called by hclog, once at a time. go-plugin names the logger that gets the child's lines
// and does not name its own, whose chatter is for debugging.
func (s *sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if name == "" {
		to = min(to, slog.LevelDebug)
	}
	ctx := context.Background()
	if !s.logger.Enabled(ctx, to) {
		return
	}
	at, attrs := attrsOf(args)
	record := slog.NewRecord(at, to, msg, 0)
	record.AddAttrs(attrs...)
	_ = s.logger.Handler().Handle(ctx, record)
}

// attrsOf makes attributes of hclog's pairs. go-plugin puts a child's own time last, under
// "timestamp", and the other pairs of its lines in no order.
func attrsOf(args []any) (at time.Time, attrs []slog.Attr) {
	at = time.Now()
	for i := 0; i+1 < len(args); i += 2 {
		key := fmt.Sprint(args[i])
		if key == "timestamp" {
			if t, err := time.Parse(hclog.TimeFormat, fmt.Sprint(args[i+1])); err == nil {
				if !t.IsZero() {
					at = t
				}
				continue
			}
		}
		attrs = append(attrs, slog.Any(key, args[i+1]))
	}
	slices.SortStableFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	return at, attrs
}

// slogLevel is the inverse of levelName.
func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}
