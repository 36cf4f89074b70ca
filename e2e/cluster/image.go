package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Names of the images, under a registry that cannot be: nobody would pull them.
const (
	// PodImage holds the traffic program, which is also every pod's pause process.
	PodImage = "cluster.sallyport.test/pod:1"
	// Repository and Tag name the image under test.
	Repository = "cluster.sallyport.test/sallyport"
	Tag        = "e2e"
)

// layer is an uncompressed archive of files.
type layer struct {
	path string
	sum  string // sha256 of the archive
}

// command is what an image runs; a pod replaces the arguments.
type command struct{ entrypoint, arguments []string }

// writeImage writes an archive that `ctr images import` and `docker load` read
// (github.com/moby/docker-image-spec, v1.2, combined image).
func writeImage(path, reference string, run command, layers ...layer) error {
	var diffIDs, names []string
	for _, l := range layers {
		diffIDs, names = append(diffIDs, "sha256:"+l.sum), append(names, l.sum+".tar")
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{"Entrypoint": run.entrypoint, "Cmd": run.arguments, "Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return fmt.Errorf("describe image %s: %w", reference, err)
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{reference}, "Layers": names}})
	if err != nil {
		return fmt.Errorf("describe image %s: %w", reference, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write image %s: %w", reference, err)
	}
	w := tar.NewWriter(f)
	errs := []error{addFile(w, configName, 0o644, config), addFile(w, "manifest.json", 0o644, manifest)}
	for i, l := range layers {
		errs = append(errs, copyLayer(w, names[i], l.path))
	}
	if err := errors.Join(append(errs, w.Close(), f.Close())...); err != nil {
		return fmt.Errorf("write image %s: %w", reference, err)
	}
	return nil
}

func addFile(w *tar.Writer, name string, mode int64, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func copyLayer(w *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// binaryLayer is a layer of one program, written beside it.
func binaryLayer(binary, dest string) (layer, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return layer{}, fmt.Errorf("read the program of an image: %w", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(addFile(w, strings.TrimPrefix(dest, "/"), 0o755, program), w.Close()); err != nil {
		return layer{}, fmt.Errorf("pack %s: %w", binary, err)
	}
	l := layer{path: binary + ".layer", sum: fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))}
	return l, os.WriteFile(l.path, b.Bytes(), 0o644)
}

// podImage builds the pods' program and its image into the folder.
func podImage(ctx context.Context, dir string) (string, error) {
	binary, image := filepath.Join(dir, "pod"), filepath.Join(dir, "pod.tar")
	if err := goBuild(ctx, modulePath+"/e2e/cluster/cmd/pod", binary); err != nil {
		return "", err
	}
	l, err := binaryLayer(binary, "/pod")
	if err != nil {
		return "", err
	}
	return image, writeImage(image, PodImage, command{[]string{"/pod"}, []string{"pause"}}, l)
}

// goBuild builds a program as the Dockerfile does.
func goBuild(ctx context.Context, pkg, output string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.release=e2e", "-o", output, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}
