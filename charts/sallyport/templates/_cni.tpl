{{/* The folders of the node's CNI, for agents and cleaning pods. */}}

{{- define "sallyport.cni.args" -}}
- --cni-conf-dir={{ .Values.agent.cni.confDir }}
- --cni-bin-dir={{ .Values.agent.cni.binDir }}
{{- end }}

{{- define "sallyport.cni.mounts" -}}
{{- with .Values.agent.cni.confDir }}
- name: cni-conf
  mountPath: {{ . }}
{{- end }}
{{- with .Values.agent.cni.binDir }}
- name: cni-bin
  mountPath: {{ . }}
{{- end }}
{{- end }}

{{- define "sallyport.cni.volumes" -}}
{{- with .Values.agent.cni.confDir }}
- name: cni-conf
  hostPath:
    path: {{ . }}
    type: DirectoryOrCreate
{{- end }}
{{- with .Values.agent.cni.binDir }}
- name: cni-bin
  hostPath:
    path: {{ . }}
    type: DirectoryOrCreate
{{- end }}
{{- end }}
