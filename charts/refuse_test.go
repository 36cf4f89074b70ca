package charts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestRefusals(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		want    []string // in the message
	}{
		{"no VIP", []string{"--set", "gateway.vips=null"}, []string{"gateway", "vips"}},
		{"empty list of VIPs", []string{"--set-json", "gateway.vips=[]"}, []string{"/gateway/vips", "minItems"}},
		{"VIP not in a list", []string{"--set", "gateway.vips=192.0.2.10"}, []string{"/gateway/vips", "want array"}},
		{"VIP that is none", []string{"--set", "gateway.vips={here}"}, []string{"/gateway/vips/0", "'here'"}},
		{"VIP with a prefix length", []string{"--set", "gateway.vips={192.0.2.10/24}"}, []string{"/gateway/vips/0", "192.0.2.10/24"}},
		{"VIP out of range", []string{"--set", "gateway.vips={192.0.2.256}"}, []string{"gateway.vips: 192.0.2.256 is no IPv4 address"}},
		{"inside address out of range", []string{"--set", `gateway.vips={192.0.2.10\,via=10.0.0.999}`}, []string{"gateway.vips: 10.0.0.999 is no IPv4 address"}},
		{"IPv6 VIP", []string{"--set", "gateway.vips={2001:db8::10}"}, []string{"/gateway/vips/0", "2001:db8::10"}},
		{"loopback VIP", []string{"--set", "gateway.vips={127.0.0.1}"}, []string{"gateway.vips: 127.0.0.1 cannot be held"}},
		{"multicast VIP", []string{"--set", "gateway.vips={224.0.0.18}"}, []string{"gateway.vips: 224.0.0.18 cannot be held"}},
		{"link-local VIP", []string{"--set", "gateway.vips={169.254.0.1}"}, []string{"gateway.vips: 169.254.0.1 cannot be held"}},
		{"one VIP twice", []string{"--set", "gateway.vips={192.0.2.10,192.0.2.10}"}, []string{"/gateway/vips", "equal"}},
		{"one address in two VIPs", []string{"--set", "gateway.vips={192.0.2.10,192.0.2.10@eth0}"}, []string{`192.0.2.10 is in "192.0.2.10" and in "192.0.2.10@eth0"`}},
		{"a VIP inside of another", []string{"--set", `gateway.vips={192.0.2.10,192.0.2.11\,via=192.0.2.10}`}, []string{"gateway.vips: 192.0.2.10 is in"}},
		{"even replicas", []string{"--set", "gateway.replicas=2"}, []string{"2 gateways survive no more failures than 1", "gateway.acceptEvenReplicas=true"}},
		{"no replicas", []string{"--set", "gateway.replicas=0"}, []string{"/gateway/replicas", "minimum"}},
		{"timing that is none", []string{"--set", "gateway.timing=slow"}, []string{"/gateway/timing", "'fast', 'default', 'wan'"}},
		{"gossip on the tunnel's port", []string{"--set", "gossip.port=4793"}, []string{"gossip.port and tunnel.port are both 4793"}},
		{"two HTTP endpoints on one port", []string{"--set", "agent.httpPort=9871"}, []string{"agent.httpPort and gateway.httpPort are both 9871"}},
		{"gossip on an HTTP port", []string{"--set", "gossip.port=9872"}, []string{"agent.httpPort and gossip.port are both 9872"}},
		{"replication on the gossip's port", []string{"--set", "replication.port=7964"}, []string{"gossip.port and replication.port are both 7964"}},
		{"the allowlist on the gossip's port", []string{"--set", "allowlist.port=7964"}, []string{"allowlist.port and gossip.port are both 7964"}},
		{"a Service of no such type", []string{"--set", "allowlist.serviceType=ExternalName"}, []string{"/allowlist/serviceType", "'NodePort'"}},
		{"port 0", []string{"--set", "tunnel.port=0"}, []string{"/tunnel/port", "minimum"}},
		{"port beyond", []string{"--set", "gossip.port=65536"}, []string{"/gossip/port", "maximum"}},
		{"VNI beyond", []string{"--set", "tunnel.vni=16777216"}, []string{"/tunnel/vni", "maximum"}},
		{"device of another's name", []string{"--set", "tunnel.device=vxlan0"}, []string{"/tunnel/device", "vxlan0"}},
		{"mark mask with a gap", []string{"--set-string", "kernel.markMask=0x5"}, []string{"/kernel/markMask", "0x5"}},
		{"mark mask of one bit", []string{"--set-string", "kernel.markMask=0x100"}, []string{"/kernel/markMask", "0x100"}},
		{"mark mask of 40 bits", []string{"--set-string", "kernel.markMask=0xff00000000"}, []string{"/kernel/markMask"}},
		{"mark mask as a number", []string{"--set", "kernel.markMask=16128"}, []string{"/kernel/markMask", "want string"}},
		{"rule priority after main", []string{"--set", "kernel.rulePriority=32766"}, []string{"/kernel/rulePriority", "maximum"}},
		{"zone 0", []string{"--set", "gateway.conntrackZone=0"}, []string{"/gateway/conntrackZone", "minimum"}},
		{"packet filter that is none", []string{"--set", "kernel.netfilter=ebpf"}, []string{"/kernel/netfilter", "'nftables'"}},
		{"range that is none", []string{"--set", "cluster.internalCIDRs={10.96.0.0}"}, []string{"/cluster/internalCIDRs/0", "10.96.0.0"}},
		{"pod range that is none", []string{"--set", "cluster.podCIDRs={10.244.0.0/33}"}, []string{"/cluster/podCIDRs/0", "10.244.0.0/33"}},
		{"node ports backwards", []string{"--set", "cluster.nodePorts=32767-30000"}, []string{"cluster.nodePorts: 32767-30000"}},
		{"node ports that are none", []string{"--set", "cluster.nodePorts=all"}, []string{"/cluster/nodePorts", "'all'"}},
		{"log level that is none", []string{"--set", "logLevel=verbose"}, []string{"/logLevel", "'debug'"}},
		{"digest that is none", []string{"--set", "image.digest=sha256:1"}, []string{"/image/digest", "sha256:1"}},
		{"tag that YAML takes for a number", []string{"--set", "image.tag=1"}, []string{"/image/tag", "want string"}},
		{"argument that is none", []string{"--set", "agent.extraArgs={debug}"}, []string{"/agent/extraArgs/0", "debug"}},
		{"CNI folder that is no path", []string{"--set", "agent.cni.binDir=opt/cni/bin"}, []string{"/agent/cni/binDir", "opt/cni/bin"}},
		{"CNI folders of which one is missing", []string{"--set", "agent.cni.confDir="}, []string{"agent.cni: confDir and binDir belong together"}},
		{"CNI plugin without folders", []string{"--set", "agent.cni.confDir=,agent.cni.binDir="}, []string{"agent.cni: without confDir and binDir", "agent.cni.enabled=false"}},
		{"a fast path of words", []string{"--set-string", "agent.fastPath=yes"}, []string{"/agent/fastPath"}},
		{"SYN retry without a unit", []string{"--set-string", "agent.synRetry=100"}, []string{"/agent/synRetry", "100"}},
		{"SYN retry that is too soon", []string{"--set", "agent.synRetry=49ms"}, []string{"/agent/synRetry", "49ms"}},
		{"state in the root", []string{"--set", "stateDir=/"}, []string{"/stateDir"}},
		{"state in a folder that others use", []string{"--set", "stateDir=/var"}, []string{"/stateDir"}},
		{"negative rotation", []string{"--set", "gossip.rotation=-1"}, []string{"/gossip/rotation", "minimum"}},
		{"audit log to where none is", []string{"--set", "gateway.audit.output=syslog"}, []string{"/gateway/audit/output", "'stdout'"}},
		{"audit log of nothing", []string{"--set", "gateway.audit.output=file,replication.enabled=false"}, []string{"gateway.audit.output", "replication.enabled=true"}},
		{"room without a unit", []string{"--set-string", "gateway.audit.keep=1000"}, []string{"/gateway/audit/keep", "1000"}},
		{"days, which are no unit", []string{"--set", "gateway.audit.keepFor=30d"}, []string{"/gateway/audit/keepFor", "30d"}},
		{"audit queue of none", []string{"--set", "gateway.audit.queue=0"}, []string{"/gateway/audit/queue", "minimum"}},
		{"alerts about what nobody reaches", []string{"--set", "alerts.enabled=true"}, []string{"alerts.enabled", "http.expose=true"}},
		{"monitor of what nobody reaches", []string{"--set", "podMonitor.enabled=true"}, []string{"podMonitor.enabled", "http.expose=true"}},
		{"more replicas than vote", []string{"--set", "gateway.replicas=11"}, []string{"/gateway/replicas", "maximum"}},
		{"priority that is none", []string{"--set", "gateway.priority=high"}, []string{"/gateway/priority", "'realtime'"}},
		{"audit queue beyond", []string{"--set", "gateway.audit.queue=16777217"}, []string{"/gateway/audit/queue", "maximum"}},
		{"hand-over without a wait", []string{"--set", "gateway.handoverSeconds=0"}, []string{"/gateway/handoverSeconds", "minimum"}},
		{"hand-over that waits for ever", []string{"--set", "gateway.handoverSeconds=301"}, []string{"/gateway/handoverSeconds", "maximum"}},
		{"zone beyond", []string{"--set", "gateway.conntrackZone=65536"}, []string{"/gateway/conntrackZone", "maximum"}},
		{"gateway's HTTP port 0", []string{"--set", "gateway.httpPort=0"}, []string{"/gateway/httpPort", "minimum"}},
		{"gateway's HTTP port beyond", []string{"--set", "gateway.httpPort=65536"}, []string{"/gateway/httpPort", "maximum"}},
		{"agent's HTTP port 0", []string{"--set", "agent.httpPort=0"}, []string{"/agent/httpPort", "minimum"}},
		{"agent's HTTP port beyond", []string{"--set", "agent.httpPort=65536"}, []string{"/agent/httpPort", "maximum"}},
		{"gossip's port 0", []string{"--set", "gossip.port=0"}, []string{"/gossip/port", "minimum"}},
		{"tunnel's port beyond", []string{"--set", "tunnel.port=65536"}, []string{"/tunnel/port", "maximum"}},
		{"VNI 0", []string{"--set", "tunnel.vni=0"}, []string{"/tunnel/vni", "minimum"}},
		{"replication's port 0", []string{"--set", "replication.port=0"}, []string{"/replication/port", "minimum"}},
		{"replication's port beyond", []string{"--set", "replication.port=65536"}, []string{"/replication/port", "maximum"}},
		{"the allowlist's port 0", []string{"--set", "allowlist.port=0"}, []string{"/allowlist/port", "minimum"}},
		{"the allowlist's port beyond", []string{"--set", "allowlist.port=65536"}, []string{"/allowlist/port", "maximum"}},
		{"tables from 0", []string{"--set", "kernel.tableBase=0"}, []string{"/kernel/tableBase", "minimum"}},
		{"tables beyond", []string{"--set", "kernel.tableBase=2147483648"}, []string{"/kernel/tableBase", "maximum"}},
		{"rule priority 0", []string{"--set", "kernel.rulePriority=0"}, []string{"/kernel/rulePriority", "minimum"}},
		{"gateway's argument that is none", []string{"--set", "gateway.extraArgs={debug}"}, []string{"/gateway/extraArgs/0", "debug"}},
		{"CNI plugins' folder in the root", []string{"--set", "agent.cni.confDir=/"}, []string{"/agent/cni/confDir", "pattern"}},
		{"an upgrade of no agent at a time", []string{"--set", "agent.maxUnavailable=0"}, []string{"/agent/maxUnavailable", "minimum"}},
		{"an upgrade of more agents than there are", []string{"--set", "agent.maxUnavailable=101%"}, []string{"/agent/maxUnavailable", "101%"}},
		{"an image without a name", []string{"--set", "image.repository="}, []string{"/image/repository", "minLength"}},
		{"a pull policy that is none", []string{"--set", "image.pullPolicy=Sometimes"}, []string{"/image/pullPolicy", "'IfNotPresent'"}},
		{"a pull secret without a name", []string{"--set-json", `image.pullSecrets=[""]`}, []string{"/image/pullSecrets/0", "minLength"}},
		{"a key of a Secret that cannot be", []string{"--set", "gossip.existingSecretKey=the key"}, []string{"/gossip/existingSecretKey", "the key"}},
		{"a Secret's name that cannot be", []string{"--set", "http.tokenSecret=The_Token"}, []string{"/http/tokenSecret", "The_Token"}},
		{"an interval without a unit", []string{"--set-string", "podMonitor.interval=30"}, []string{"/podMonitor/interval", "30"}},
		{"an uninstall without time", []string{"--set", "uninstall.timeoutSeconds=59"}, []string{"/uninstall/timeoutSeconds", "minimum"}},
		{"nodes that are absent at once", []string{"--set", "uninstall.absentAfterSeconds=0"}, []string{"/uninstall/absentAfterSeconds", "minimum"}},
		{"an unknown value", []string{"--set", "gateways.replicas=3"}, []string{"'gateways' not allowed"}},
		{"an unknown value further in", []string{"--set", "gateway.vip=192.0.2.10"}, []string{"/gateway", "'vip' not allowed"}},
		{"an unknown value in every part", []string{"--set", "gateway.audit.x=1,agent.x=1,agent.cni.x=1,image.x=1,gossip.x=1,tunnel.x=1,kernel.x=1,cluster.x=1,http.x=1,allowlist.x=1,crds.x=1,uninstall.x=1,podMonitor.x=1,alerts.x=1,grafanaDashboard.x=1,replication.x=1"}, []string{"'x' not allowed"}},
	}
	var mu sync.Mutex
	var said []string
	t.Cleanup(func() {
		if len(said) == len(tests) { // not only some were run
			everyRuleHasRefused(t, said)
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := rendering(t, tt.options...)
			if err == nil {
				t.Fatal("was not refused")
			}
			mu.Lock()
			said = append(said, err.Error())
			mu.Unlock()
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the message has not %q:\n%v", want, err)
				}
			}
		})
	}
}

// words by which Helm tells of a keyword of the schema.
var words = map[string]string{
	"minimum": "minimum: ", "maximum": "maximum: ", "minItems": "minItems: ", "minLength": "minLength: ", "pattern": "does not match pattern",
	"enum": "value must be one of", "uniqueItems": "are equal", "required": "missing propert", "additionalProperties": "additional properties",
}

// schema is one value's part of values.schema.json.
type schema map[string]json.RawMessage

// rules are what a value must keep to, each as what Helm says when it does not.
func (s schema) rules(t *testing.T, at string, definitions map[string]schema) (rules []string) {
	t.Helper()
	read := func(text json.RawMessage, into any) {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
	}
	for key, text := range s {
		switch key {
		case "additionalProperties":
			if string(text) != "false" { // of labels and annotations: what they are is a type
				continue
			}
			fallthrough
		case "minimum", "maximum", "minItems", "minLength", "pattern", "enum", "uniqueItems", "required":
			rules = append(rules, fmt.Sprintf("at '%s': %s", at, words[key]))
		case "properties":
			var subs map[string]schema
			read(text, &subs)
			for name, sub := range subs {
				rules = append(rules, sub.rules(t, at+"/"+name, definitions)...)
			}
		case "items":
			var sub schema
			read(text, &sub)
			rules = append(rules, sub.rules(t, at+"/0", definitions)...)
		case "allOf", "anyOf":
			var subs []schema
			read(text, &subs)
			for _, sub := range subs {
				rules = append(rules, sub.rules(t, at, definitions)...)
			}
		case "$ref":
			name := strings.TrimPrefix(strings.Trim(string(text), `"`), "#/definitions/")
			if definitions[name] == nil {
				t.Fatalf("%s: %s leads nowhere", at, text)
			}
			rules = append(rules, definitions[name].rules(t, at, definitions)...)
		case "type", "title", "description", "default", "$schema", "definitions":
		default:
			t.Errorf("%s: say here how Helm tells of %s", at, key)
		}
	}
	return rules
}

// everyRuleHasRefused: who adds a rule to the schema adds a mistake that it is for.
func everyRuleHasRefused(t *testing.T, said []string) {
	t.Helper()
	text, err := os.ReadFile(chart + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var all schema
	var parts struct{ Definitions map[string]schema }
	if err := errors.Join(json.Unmarshal(text, &all), json.Unmarshal(text, &parts)); err != nil {
		t.Fatal(err)
	}
	rules := all.rules(t, "", parts.Definitions)
	slices.Sort(rules)
	if rules = slices.Compact(rules); len(rules) < 70 {
		t.Errorf("%d rules: look where the others went", len(rules))
	}
	for _, rule := range rules {
		at, what, _ := strings.Cut(rule, ": ")
		refused := regexp.MustCompile("(?m)" + regexp.QuoteMeta(at) + ": .*" + regexp.QuoteMeta(what))
		if !slices.ContainsFunc(said, refused.MatchString) {
			t.Errorf("nothing was refused %s: %s", at, what)
		}
	}
}

func TestAnOldKubernetesIsRefused(t *testing.T) {
	if _, err := helm(t, "template", "egress", chart, "--set", "gateway.vips={192.0.2.10}", "--kube-version", "1.30.9"); err == nil || !strings.Contains(err.Error(), ">=1.31") {
		t.Errorf("%v", err)
	}
}

// What looks like the mistakes above and is none.
func TestAccepted(t *testing.T) {
	for _, options := range [][]string{
		{"--set", `gateway.vips={192.0.2.10@eth0\,via=10.0.0.10@eth1,192.0.2.255}`},
		{"--set", "gateway.replicas=2,gateway.acceptEvenReplicas=true"},
		{"--set", "gateway.replicas=1"},
		{"--set-string", "kernel.markMask=0x3"},
		{"--set-string", "kernel.markMask=0x6"},
		{"--set-string", "kernel.markMask=0x1F8000"},
		{"--set-string", "kernel.markMask=0xffffffff"},
		{"--set", "cluster.nodePorts=none,cluster.internalCIDRs={10.96.0.0/12},cluster.podCIDRs={10.244.0.0/16}"},
		{"--set", "podMonitor.enabled=true,http.expose=true,grafanaDashboard.enabled=true"},
		{"--set", "crds.install=false,gossip.existingSecret=theirs"},
		{"--set", "agent.maxUnavailable=3"},
		{"--set", "gateway.audit.output=stdout,gateway.audit.keep=500Mi,gateway.audit.keepFor=720h,gateway.audit.starts=true"},
		{"--set", "replication.enabled=false"},
		{"--set", "allowlist.expose=true,allowlist.port=80,allowlist.serviceType=LoadBalancer,allowlist.serviceAnnotations.a=b"},
	} {
		t.Run(options[1], func(t *testing.T) {
			t.Parallel()
			render(t, options...)
		})
	}
}
