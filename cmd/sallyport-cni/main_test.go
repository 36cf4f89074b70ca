package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestMain is the plugin itself where a test has started it as one.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ask speaks to the plugin as a container runtime does.
func ask(t *testing.T, command, conf string) (answer map[string]any, ok bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/none", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin")
	cmd.Stdin = strings.NewReader(conf)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil { // it was not even started
		t.Fatal(err)
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
			t.Fatalf("%s: %v: %s%s", command, err, out.String(), said.String())
		}
	}
	return answer, err == nil
}

// made is what the plugins before have made, in a version.
func made(version string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/none"}],
  "ips": [{"version": "4", "interface": 0, "address": "10.244.1.7/24", "gateway": "10.244.1.1"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.96.0.10"]}}`, version)
}

func conf(version, mark, wait, more string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "name": "cluster", "type": "sallyport-cni", "mark": %q, "wait": %q%s}`, version, mark, wait, more)
}

// marked is a file of this boot, as the agent writes it.
func marked(t *testing.T) string {
	t.Helper()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(t.TempDir(), "steering")
	if err := os.WriteFile(mark, boot, 0o644); err != nil {
		t.Fatal(err)
	}
	return mark
}

func TestAPodIsLetInUnchangedOnceTheMarkIsThere(t *testing.T) {
	mark := marked(t)
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		got, ok := ask(t, "ADD", conf(version, mark, "0s", `, "prevResult": `+made(version)))
		var want map[string]any
		if err := json.Unmarshal([]byte(made(version)), &want); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(version, "1.") { // there an address says itself of which family it is
			delete(want["ips"].([]any)[0].(map[string]any), "version")
		}
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %t, %v, want %v", version, ok, got, want)
		}
	}
}

func TestAPodIsPutOffWithoutTheMark(t *testing.T) {
	there := marked(t)
	old := filepath.Join(t.TempDir(), "steering")
	if err := os.WriteFile(old, []byte("5b1e0f9e-0000-4000-8000-000000000000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{there + "-not", old} {
		got, ok := ask(t, "ADD", conf("1.0.0", mark, "150ms", `, "prevResult": `+made("1.0.0")))
		message := fmt.Sprint(got["msg"])
		if ok || got["code"] != 11.0 || !strings.Contains(message, "component=agent") || !strings.Contains(message, "00-00-sallyport.conflist") {
			t.Errorf("%s: %t, %v", mark, ok, got)
		}
	}
}

// A node that waits for its agent is Ready, and pods can always end.
func TestEverythingElsePasses(t *testing.T) {
	for _, command := range []string{"DEL", "CHECK", "GC", "STATUS"} {
		if got, ok := ask(t, command, conf("1.1.0", "/none/steering", "0s", `, "prevResult": `+made("1.1.0"))); !ok || got != nil {
			t.Errorf("%s: %t, %v", command, ok, got)
		}
	}
	if got, ok := ask(t, "DEL", conf("0.3.1", "/none/steering", "0s", "")); !ok || got != nil {
		t.Errorf("DEL without a result: %t, %v", ok, got)
	}
	if got, ok := ask(t, "VERSION", ""); !ok || !strings.Contains(fmt.Sprint(got["supportedVersions"]), "0.3.1 0.4.0 1.0.0 1.1.0") {
		t.Errorf("VERSION: %t, %v", ok, got)
	}
}

func TestConfigurationsThatCannotWorkAreNamed(t *testing.T) {
	mark := marked(t)
	for want, c := range map[string]string{
		"put it last":            conf("1.0.0", mark, "0s", ""),
		"no mark":                conf("1.0.0", "", "0s", `, "prevResult": `+made("1.0.0")),
		"no wait":                conf("1.0.0", mark, "soon", `, "prevResult": `+made("1.0.0")),
		"read what the plugins":  conf("1.0.0", mark, "0s", `, "prevResult": {"cniVersion": "1.0.0", "ips": 1}`),
		"read the configuration": conf("1.0.0", mark, "0s", `, "source": 1`),
	} {
		got, ok := ask(t, "ADD", c)
		if ok || !strings.Contains(fmt.Sprint(got["msg"]), want) || !strings.HasPrefix(fmt.Sprint(got["msg"]), "sallyport: ") {
			t.Errorf("%s: %t, %v", want, ok, got)
		}
	}
}
