{{/* What both autoscalers share. */}}

{{/* triptych.scalingBehavior takes the value autoscaling: fast up, slow down. */}}
{{- define "triptych.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationSeconds | int64 }}
  selectPolicy: Max
  policies:
    - {type: Pods, value: {{ .scaleUp.pods | int64 }}, periodSeconds: {{ .scaleUp.periodSeconds | int64 }}}
    - {type: Percent, value: 100, periodSeconds: {{ .scaleUp.periodSeconds | int64 }}}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationSeconds | int64 }}
  policies:
    - {type: Pods, value: {{ .scaleDown.pods | int64 }}, periodSeconds: {{ .scaleDown.periodSeconds | int64 }}}
{{- end -}}

{{/* triptych.backlogSelector takes {kind, hpa, models} and selects the series of a pool. */}}
{{- define "triptych.backlogSelector" -}}
{{- if .hpa.selector -}}
matchLabels:
  {{- range $key, $value := .hpa.selector }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
{{- else -}}
matchLabels: {kind: {{ .kind | quote }}}
{{- with .models }}
matchExpressions:
  # The label is empty while a request's model is not known yet.
  - {key: model, operator: In, values: {{ append . "" | toJson }}}
{{- end }}
{{- end -}}
{{- end -}}

{{/* triptych.usesKeda is true where KEDA owns the replicas of any workload, else nothing. */}}
{{- define "triptych.usesKeda" -}}
{{- range $w := include "triptych.workloads" . | fromJson -}}
{{- if eq $w.pod.autoscaling.kind "keda" }}true{{ end -}}
{{- end -}}
{{- end -}}
