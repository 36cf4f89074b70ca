package cluster

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestTheDockerfileIsUnderstood(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readDockerfile(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"iptables", "ipset", "nftables"} {
		if !strings.Contains(" "+strings.Join(got.packages, " ")+" ", " "+p+" ") {
			t.Errorf("packages %q, want %s among them", got.packages, p)
		}
	}
	if got.suite == "" || len(got.programs) != 2 || got.programs[1] != "/usr/local/bin/sallyport-cni" || !reflect.DeepEqual(got.entrypoint, got.programs[:1]) {
		t.Errorf("%+v", got)
	}
	for what, change := range map[string][2]string{
		"another base":   {"FROM debian:", "FROM alpine:"},
		"a further run":  {"COPY --from", "RUN apt-get install -y --no-install-recommends curl \\\n\nCOPY --from"},
		"another run":    {"COPY --from", "RUN update-alternatives --set iptables /usr/sbin/iptables-legacy\nCOPY --from"},
		"a file of ours": {"COPY --from", "COPY LICENSE /usr/share/\nCOPY --from"},
		"a user":         {"ENTRYPOINT", "USER 65532\nENTRYPOINT"},
		"a further file": {"COPY --from", "COPY --from=build /x /y/\nCOPY --from"},
		"no entrypoint":  {"ENTRYPOINT", "#"},
	} {
		if r, err := readDockerfile(strings.Replace(string(text), change[0], change[1], 1)); err == nil {
			t.Errorf("%s is not noticed: %+v", what, r)
		}
	}
}
