package kube

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestTheLibrarysErrorsAreForDebugging(t *testing.T) {
	defer klog.ClearLogger()
	for _, c := range []struct {
		level slog.Level
		lines int
	}{{slog.LevelInfo, 0}, {slog.LevelDebug, 2}} {
		var log bytes.Buffer
		klog.SetSlogLogger(slog.New(demoted{slog.NewTextHandler(&log, &slog.HandlerOptions{Level: c.level})}))
		klog.ErrorS(errors.New("refused"), "Failed to watch")
		klog.Background().WithName("pods").WithValues("a", 1).Info("Caches populated")
		if got := strings.Count(log.String(), "level=DEBUG"); got != c.lines || strings.Count(log.String(), "\n") != c.lines {
			t.Errorf("at %v: %q", c.level, log.String())
		}
	}
}
