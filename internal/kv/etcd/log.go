package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// logCore hands etcd's log to slog, one level lower: what it warns of is for its own
// administrators.
type logCore struct{ log *slog.Logger }

var levels = map[zapcore.Level]slog.Level{zapcore.WarnLevel: slog.LevelInfo, zapcore.ErrorLevel: slog.LevelWarn}

func (c logCore) level(l zapcore.Level) slog.Level {
	if l >= zapcore.ErrorLevel {
		l = zapcore.ErrorLevel
	}
	if to, ok := levels[l]; ok {
		return to
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.Core.
func (c logCore) Enabled(l zapcore.Level) bool {
	return c.log != nil && c.log.Enabled(context.Background(), c.level(l))
}

// With implements zapcore.Core.
func (c logCore) With(fields []zapcore.Field) zapcore.Core {
	if c.log == nil {
		return c
	}
	return logCore{c.log.With(attributes(fields)...)}
}

// Check implements zapcore.Core.
func (c logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), c.level(e.Level), "etcd: "+e.Message, attributes(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (c logCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]any, 0, 2*len(enc.Fields))
	for _, f := range fields {
		out = append(out, f.Key, enc.Fields[f.Key])
	}
	return out
}
