package cluster

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// unshipped is what debian:*-slim leaves out, and what the Dockerfile removes.
var unshipped = []string{"./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*",
	"./usr/share/doc/*", "./usr/share/man/*", "./usr/share/info/*", "./usr/share/locale/*"}

// SallyportImage writes the image under test into the folder: what the Dockerfile
// makes, with the sallyport that is given, or that is built if "" is.
func SallyportImage(ctx context.Context, dir, binary string, progress io.Writer) (string, error) {
	file, err := sourceDir("..", "..", "Dockerfile")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("make the image under test: %w", err)
	}
	r, err := readDockerfile(string(text))
	if err != nil {
		return "", err
	}
	base, err := r.baseLayer(ctx, progress)
	if err != nil {
		return "", err
	}
	layers := []layer{base}
	for _, program := range r.programs {
		name, file := filepath.Base(program), binary
		if name != "sallyport" || binary == "" {
			file = filepath.Join(dir, name)
			if err := goBuild(ctx, modulePath+"/cmd/"+name, file); err != nil {
				return "", err
			}
		}
		l, err := binaryLayer(file, program)
		if err != nil {
			return "", err
		}
		layers = append(layers, l)
	}
	image := filepath.Join(dir, "sallyport.tar")
	return image, writeImage(image, Repository+":"+Tag, command{entrypoint: r.entrypoint}, layers...)
}

// baseLayer installs the packages on a fresh Debian, once for each list of them.
func (r recipe) baseLayer(ctx context.Context, progress io.Writer) (layer, error) {
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(r.suite+strings.Join(append(r.packages, unshipped...), " "))))[:12]
	dir, err := cached("image-"+key, func(dir string) error {
		_, _ = fmt.Fprintf(progress, "making the image's Debian %s with %s, once: about half a minute\n", r.suite, strings.Join(r.packages, " "))
		root := filepath.Join(dir, "root")
		defer os.RemoveAll(root)
		install := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include="+strings.Join(r.packages, ","), r.suite, root)
		if out, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("install %v with debootstrap: %w: %s", r.packages, err, out)
		}
		args := []string{"--numeric-owner", "--sort=name", "-C", root, "-cf", filepath.Join(dir, "layer.tar")}
		for _, path := range unshipped {
			args = append(args, "--exclude="+path)
		}
		if out, err := exec.CommandContext(ctx, "tar", append(args, ".")...).CombinedOutput(); err != nil {
			return fmt.Errorf("pack the image's Debian: %w: %s", err, out)
		}
		return writeSum(dir)
	})
	if err != nil {
		return layer{}, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "sum"))
	return layer{path: filepath.Join(dir, "layer.tar"), sum: string(sum)}, err
}

func writeSum(dir string) error {
	f, err := os.Open(filepath.Join(dir, "layer.tar"))
	if err != nil {
		return fmt.Errorf("read the image's layer: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("read the image's layer: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "sum"), fmt.Appendf(nil, "%x", sum.Sum(nil)), 0o644)
}
