{{/* What a schema cannot compare. Every message names the value and the cure. */}}
{{- define "sallyport.validate" -}}
{{- $v := .Values }}

{{- if and (eq (mod (int $v.gateway.replicas) 2) 0) (not $v.gateway.acceptEvenReplicas) }}
{{- fail (printf "gateway.replicas: %d gateways survive no more failures than %d: give an odd number, or set gateway.acceptEvenReplicas=true" (int $v.gateway.replicas) (sub $v.gateway.replicas 1)) }}
{{- end }}

{{- $ports := dict }}
{{- range $name, $port := dict "gateway.httpPort" $v.gateway.httpPort "agent.httpPort" $v.agent.httpPort "gossip.port" $v.gossip.port "replication.port" $v.replication.port "allowlist.port" $v.allowlist.port "tunnel.port" $v.tunnel.port }}
{{- $key := int $port | toString }}
{{- with get $ports $key }}
{{- fail (printf "%s and %s are both %s: on one host each needs a port of its own" . $name $key) }}
{{- end }}
{{- $_ := set $ports $key $name }}
{{- end }}

{{- $addresses := dict }}
{{- range $vip := $v.gateway.vips }}
{{- range $part := splitList "," $vip }}
{{- $address := splitList "@" (trimPrefix "via=" $part) | first }}
{{- range splitList "." $address }}
{{- if gt (atoi .) 255 }}
{{- fail (printf "gateway.vips: %s is no IPv4 address: give one as in 192.0.2.10 or 192.0.2.10@eth0" $address) }}
{{- end }}
{{- end }}
{{- if regexMatch "^(0|127|22[4-9]|2[3-5][0-9]|169\\.254)\\." $address }}
{{- fail (printf "gateway.vips: %s cannot be held by a host and be reached by others: give a unicast address of the gateways' segment" $address) }}
{{- end }}
{{- with get $addresses $address }}
{{- fail (printf "gateway.vips: %s is in %q and in %q: remove one of the two" $address . $vip) }}
{{- end }}
{{- $_ := set $addresses $address $vip }}
{{- end }}
{{- end }}

{{- if ne $v.cluster.nodePorts "none" }}
{{- $first := splitList "-" $v.cluster.nodePorts | first | atoi }}
{{- $last := splitList "-" $v.cluster.nodePorts | last | atoi }}
{{- if or (lt $first 2048) (lt $last $first) (gt $last 60000) }}
{{- fail (printf "cluster.nodePorts: %s: give FIRST-LAST between 2048 and 60000, such as 30000-32767, or none" $v.cluster.nodePorts) }}
{{- end }}
{{- end }}

{{- if and $v.podMonitor.enabled (not $v.http.expose) }}
{{- fail "podMonitor.enabled: the programs listen on loopback, where Prometheus does not reach them: set http.expose=true as well" }}
{{- end }}
{{- if and (ne $v.gateway.audit.output "none") (not $v.replication.enabled) }}
{{- fail "gateway.audit.output: what is recorded is what the gateways tell each other of connections, and they tell nothing: set replication.enabled=true as well" }}
{{- end }}
{{- if and $v.alerts.enabled (not $v.http.expose) }}
{{- fail "alerts.enabled: the programs listen on loopback, where Prometheus does not reach them, and no alert would ever fire: set http.expose=true as well" }}
{{- end }}

{{- $cni := $v.agent.cni }}
{{- if or (and $cni.confDir (not $cni.binDir)) (and $cni.binDir (not $cni.confDir)) }}
{{- fail "agent.cni: confDir and binDir belong together: give both, or make both empty" }}
{{- end }}
{{- if and $cni.enabled (not $cni.confDir) }}
{{- fail "agent.cni: without confDir and binDir no plugin can be installed: give them as the container runtime has them, or set agent.cni.enabled=false" }}
{{- end }}

{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-gateway" (include "sallyport.fullname" .)) }}
{{- $before := dig "metadata" "annotations" "sallyport.dev/electorate" "" . }}
{{- $now := include "sallyport.electorate" $ }}
{{- if and $before (ne $before $now) (gt (dig "spec" "replicas" 1 . | int) 0) }}
{{- fail (printf "gateway: %s cannot become %s while gateways run: for a moment both groups could hold the VIP. Stop all first: kubectl -n %s scale statefulset %s --replicas=0, wait until its pods are gone, and upgrade again; nothing leaves by a VIP meanwhile" $before $now $.Release.Namespace .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
