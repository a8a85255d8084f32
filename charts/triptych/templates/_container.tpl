{{/* What every container has. */}}

{{/* triptych.containerSecurity is the security context of the restricted pod security standard. */}}
{{- define "triptych.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* triptych.containerImage is a container's image. */}}
{{- define "triptych.containerImage" -}}
image: {{ include "triptych.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* triptych.environment takes a container's extraEnv. */}}
{{- define "triptych.environment" -}}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - {name: TMPDIR, value: /tmp}
{{- with . }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{/* triptych.probes takes {port, startupSeconds, livenessPeriod, livenessFailures}. The kubelet has no client certificate, so that it asks at a plaintext port. */}}
{{- define "triptych.probes" -}}
startupProbe:
  grpc: {port: {{ .port }}, service: startup}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div (add (.startupSeconds | int64) 1) 2 }}
readinessProbe:
  grpc: {port: {{ .port }}, service: readiness}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  grpc: {port: {{ .port }}, service: liveness}
  periodSeconds: {{ .livenessPeriod | int64 }}
  timeoutSeconds: 5
  failureThreshold: {{ .livenessFailures | int64 }}
{{- end -}}

{{/* triptych.preStop takes the seconds to sleep, which the kubelet does itself. */}}
{{- define "triptych.preStop" -}}
{{- with . | int64 -}}
lifecycle:
  preStop: {sleep: {seconds: {{ . }}}}
{{- end -}}
{{- end -}}
