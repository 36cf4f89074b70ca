{{/* What gateway, agent and cleanup pods share. */}}

{{- define "sallyport.podSpec" -}}
# The host's network is what is changed. In a namespace that enforces a Pod Security
# Standard, it has to be privileged: that is what Kubernetes calls hostNetwork and hostPath.
hostNetwork: true
priorityClassName: {{ .Values.priorityClassName }}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  # Added capabilities reach a process only when it starts as root: Kubernetes has no
  # ambient ones. All the others that root has are dropped.
  runAsUser: 0
  runAsGroup: 0
  seccompProfile:
    type: RuntimeDefault
  {{- with .Values.seLinuxOptions }}
  seLinuxOptions:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Called with the list of capabilities. */}}
{{- define "sallyport.securityContext" -}}
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [{{ join ", " . }}]
{{- end }}

{{- define "sallyport.image.fields" -}}
image: {{ include "sallyport.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Who this is: the node's name and its address, which the tunnel and the gossip use. */}}
{{- define "sallyport.nodeEnv" -}}
- name: SALLYPORT_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: SALLYPORT_NODE_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- end }}

{{- define "sallyport.commonArgs" -}}
- --source=kube
- --log-level={{ .Values.logLevel }}
- --state-dir={{ .Values.stateDir }}
- --netfilter={{ .Values.kernel.netfilter }}
- --mark-mask={{ .Values.kernel.markMask }}
- --table-base={{ int .Values.kernel.tableBase }}
- --rule-priority={{ int .Values.kernel.rulePriority }}
- --tunnel-port={{ int .Values.tunnel.port }}
- --tunnel-vni={{ int .Values.tunnel.vni }}
- --tunnel-device={{ .Values.tunnel.device }}
{{- with .Values.cluster.internalCIDRs }}
- --internal-cidr={{ join "," . }}
{{- end }}
{{- end }}

{{/* Called with root and port. */}}
{{- define "sallyport.httpArg" -}}
- --http={{ ternary "0.0.0.0" "127.0.0.1" .root.Values.http.expose }}:{{ int .port }}
{{- if .root.Values.http.tokenSecret }}
- --http-token-file=/etc/sallyport/http/token
{{- end }}
{{- end }}

{{/* The pod has its node's network, so the kubelet reaches its loopback. Called with the
path; the port is named, so that the scheduler keeps two that want it apart. */}}
{{- define "sallyport.probe" -}}
httpGet:
  host: 127.0.0.1
  port: http
  path: {{ . }}
{{- end }}

{{- define "sallyport.mounts" -}}
- name: state
  mountPath: {{ .Values.stateDir }}
{{- if .Values.http.tokenSecret }}
- name: http-token
  mountPath: /etc/sallyport/http
  readOnly: true
{{- end }}
{{ include "sallyport.lockMount" . }}
{{- end }}

{{- define "sallyport.volumes" -}}
- name: state
  hostPath:
    path: {{ .Values.stateDir }}
    type: DirectoryOrCreate
{{- if .Values.http.tokenSecret }}
- name: http-token
  secret:
    secretName: {{ .Values.http.tokenSecret }}
    defaultMode: 0400
{{- end }}
{{ include "sallyport.lockVolume" . }}
{{- end }}

{{/* iptables takes this lock, and so do kube-proxy and the CNI plugin. */}}
{{- define "sallyport.lockMount" -}}
- name: xtables-lock
  mountPath: /run/xtables.lock
{{- end }}

{{- define "sallyport.lockVolume" -}}
- name: xtables-lock
  hostPath:
    path: /run/xtables.lock
    type: FileOrCreate
{{- end }}
