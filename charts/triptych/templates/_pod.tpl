{{/* What every pod has. */}}

{{/* triptych.podSecurity is the account and the security context of a pod. */}}
{{- define "triptych.podSecurity" -}}
serviceAccountName: {{ include "triptych.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with concat (default list (dig "imagePullSecrets" list (default dict .Values.global))) .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurity.user }}
  runAsUser: {{ . | int64 }}
  runAsGroup: {{ . | int64 }}
  {{- end }}
  {{- with .Values.podSecurity.fsGroup }}
  fsGroup: {{ . | int64 }}
  {{- end }}
  fsGroupChangePolicy: {{ .Values.podSecurity.fsGroupChangePolicy }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* triptych.podMetadata takes {root, component, kind, settings, checksum}. Its emptyDirs keep nothing that a node autoscaler should keep a node for. */}}
{{- define "triptych.podMetadata" -}}
{{- $annotations := merge (deepCopy .settings.podAnnotations) (dict "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes" "tmp,claims,models") -}}
{{- with .checksum }}{{ $_ := set $annotations "checksum/models" . }}{{ end -}}
labels:
  {{- include "triptych.labels" (merge (dict "more" .settings.podLabels) .) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- range $key, $value := . }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* triptych.placement takes {root, component, settings, priority}: where a pod runs, and before whom. */}}
{{- define "triptych.placement" -}}
{{- $classes := .root.Values.priorityClasses -}}
{{- with default (ternary (include "triptych.priorityClass" .) "" $classes.create) .settings.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .settings.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- range $key, $value := . }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- $tolerations := .settings.tolerations -}}
{{- with .settings.gpu }}{{ if ne .mode "none" }}{{ $tolerations = concat $tolerations .tolerations }}{{ end }}{{ end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.spreadOver }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "triptych.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* triptych.priorityClass takes {root, priority} and is the name of the release's class; it carries the namespace, since classes are the cluster's. */}}
{{- define "triptych.priorityClass" -}}
{{ .root.Release.Namespace }}-{{ include "triptych.fullname" .root }}-{{ .priority }}
{{- end -}}
