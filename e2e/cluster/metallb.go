package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

const metallbPath = "go.universe.tf/metallb"

var metallbModule = module{folder: "metallb", programs: map[string]string{
	"controller": metallbPath + "/controller", "speaker": metallbPath + "/speaker",
}}

// MetalLBImages makes the images that MetalLB's manifest names, in the folder, for
// Options.Images.
func MetalLBImages(ctx context.Context, dir string, progress io.Writer) ([]string, error) {
	programs, err := built(ctx, "metallb", progress, "", metallbModule)
	if err != nil {
		return nil, err
	}
	manifest, err := metallbManifest(ctx)
	if err != nil {
		return nil, err
	}
	var images []string
	for _, found := range regexp.MustCompile(`image: (quay\.io/metallb/(\w+):\S+)`).FindAllStringSubmatch(manifest, -1) {
		reference, name := found[1], found[2]
		program := filepath.Join(dir, name)
		if err := os.Symlink(filepath.Join(programs, name), program); err != nil {
			return nil, fmt.Errorf("name the program of an image: %w", err)
		}
		l, err := binaryLayer(program, "/"+name)
		if err != nil {
			return nil, err
		}
		image := filepath.Join(dir, name+".tar")
		if err := writeImage(image, reference, command{entrypoint: []string{"/" + name}}, l); err != nil {
			return nil, err
		}
		images = append(images, image)
	}
	return images, nil
}

// InstallMetalLB applies MetalLB's manifest as it is, and waits until it works.
func (c *Cluster) InstallMetalLB(ctx context.Context) error {
	manifest, err := metallbManifest(ctx)
	if err != nil {
		return err
	}
	_, err = c.API.Kubectl(ctx, manifest, "apply", "--server-side", "-f", "-")
	for _, what := range []string{"deployment/controller", "daemonset/speaker"} {
		if err == nil {
			_, err = c.API.Kubectl(ctx, "", "rollout", "status", what, "-n", "metallb-system", "--timeout", "180s")
		}
	}
	return err
}

func metallbManifest(ctx context.Context) (string, error) {
	dir, err := metallbModule.source(ctx, metallbPath)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, "config", "manifests", "metallb-native.yaml"))
	if err != nil {
		return "", fmt.Errorf("read MetalLB's manifest: %w", err)
	}
	return string(text), nil
}
