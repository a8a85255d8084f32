{{/* triptych.warnings is a JSON list of sentences about what works and may not be meant; NOTES.txt shows them. */}}
{{- define "triptych.warnings" -}}
{{- $warnings := list -}}
{{- $o := .Values.orchestrator -}}
{{- $workloads := include "triptych.workloads" . | fromJson -}}
{{- if and (eq .Values.tls.mode "none") (ne $o.service.type "ClusterIP") -}}
{{- $warnings = append $warnings "the API is reachable from outside of the cluster in plaintext, by anybody: set tls.mode and tls.requireClientCertificate, or networkPolicy.callers." -}}
{{- end -}}
{{- if gt ($o.replicas | int64) 1 -}}
{{- $warnings = append $warnings "one of the two orchestrators is a standby, which is not ready until it takes over: `helm upgrade --wait` waits for it in vain, `--wait=legacy` does not." -}}
{{- end -}}
{{- $followed := dict -}}
{{- range $name, $w := $workloads -}}
{{- $as := $w.pod.autoscaling -}}
{{- if and (ne $w.pod.gpu.mode "none") (gt ($w.pod.gpu.count | int64) 1) -}}
{{- $warnings = append $warnings (printf "%s.gpu.count is %d, and a service computes on one device." $w.path ($w.pod.gpu.count | int64)) -}}
{{- end -}}
{{- if eq $as.kind "hpa" -}}
{{- $warnings = append $warnings (printf "%s-%s is scaled by %s, which something must serve: `kubectl get --raw /apis/external.metrics.k8s.io/v1beta1`." (include "triptych.fullname" $) $name $as.hpa.metric) -}}
{{- end -}}
{{- if and (eq $as.kind "keda") (eq ($as.minReplicas | int64) 0) (lt (include "triptych.seconds" $o.patience | int64) 60) -}}
{{- $warnings = append $warnings (printf "orchestrator.patience is %s, and %s may have to start from nothing: requests may fail before it is there." $o.patience $name) -}}
{{- end -}}
{{- if ne $as.kind "none" -}}
{{- range $w.containers -}}
{{- $kind := .kind -}}
{{- range default (list "") .settings.models -}}
{{- $key := printf "%s %s" $kind . -}}
{{- if or (hasKey $followed $key) (hasKey $followed (printf "%s " $kind)) -}}
{{- $warnings = append $warnings (printf "several pools of kind %s follow the same backlog and are all scaled for the whole of it: let `models` tell them apart, or double targetSeconds." $kind) -}}
{{- end -}}
{{- $_ := set $followed $key true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $w.containers -}}
{{- if not (dig "limits" "memory" "" .settings.resources) -}}
{{- $warnings = append $warnings (printf "%s.resources.limits.memory is not set: the pod may take all of its node's memory." .path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $warnings | uniq | toJson -}}
{{- end -}}
