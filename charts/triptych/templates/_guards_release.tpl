{{/* Guards of the release as a whole, and of what every pod has. */}}

{{/* triptych.guards.release: the orchestrator and its Service. */}}
{{- define "triptych.guards.release" -}}
{{- $o := .Values.orchestrator -}}
{{- include "triptych.guards.labels" (dict "path" "commonLabels" "labels" .Values.commonLabels) -}}
{{- include "triptych.guards.labels" (dict "path" "orchestrator.podLabels" "labels" $o.podLabels) -}}
{{- include "triptych.guards.lifecycle" (dict "path" "orchestrator" "settings" $o) -}}
{{- include "triptych.guards.container" (dict "path" "orchestrator" "settings" $o "own" (list "listen" "health-listen" "metrics-listen" "scaler-listen" "encoder" "denoiser" "decoder" "min-replicas" "patience" "max-jobs" "checkpoint-every" "drain-timeout" "log-level" "log-format" "tls-cert" "tls-key" "tls-client-ca" "stage-ca" "stage-client-cert" "stage-client-key")) -}}
{{- $lasting := 0 -}}
{{- range $w := include "triptych.workloads" . | fromJson -}}
{{- if or (eq $w.pod.autoscaling.kind "none") (gt ($w.pod.autoscaling.minReplicas | int64) 0) }}{{ $lasting = add $lasting 1 }}{{ end -}}
{{- end -}}
{{- if and (gt ($o.replicas | int64) 1) (not $lasting) -}}
{{- fail "orchestrator.replicas is 2, and every pool may go to zero: who works and who stands by is decided at the stages, so that one of them must stay (autoscaling.minReplicas of at least 1), or orchestrator.replicas be 1" -}}
{{- end -}}
{{- if and (ne $o.service.type "LoadBalancer") (or $o.service.loadBalancerClass $o.service.loadBalancerSourceRanges) -}}
{{- fail (printf "orchestrator.service.loadBalancerClass and loadBalancerSourceRanges have no effect with type %s: expected type LoadBalancer" $o.service.type) -}}
{{- end -}}
{{- if and (eq $o.service.type "ClusterIP") $o.service.nodePort -}}
{{- fail "orchestrator.service.nodePort has no effect with type ClusterIP: expected type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "networkPolicy.metricsFrom is empty, and monitoring.podMonitor.enabled: expected who may read metrics, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]" -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.tls: certificates can be had. */}}
{{- define "triptych.guards.tls" -}}
{{- $tls := .Values.tls -}}
{{- if eq $tls.mode "secret" -}}
{{- range $name := list "orchestrator" "stages" -}}
{{- if not (get $tls.secret $name) -}}
{{- fail (printf "tls.secret.%s: expected the name of a Secret with tls.crt, tls.key and ca.crt with tls.mode secret, got nothing" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $tls.requireClientCertificate (eq $tls.mode "none") -}}
{{- fail "tls.requireClientCertificate has no effect with tls.mode none: expected tls.mode secret or certManager" -}}
{{- end -}}
{{- if eq $tls.mode "certManager" -}}
{{- if le (include "triptych.seconds" $tls.certManager.duration | int64) (include "triptych.seconds" $tls.certManager.renewBefore | int64) -}}
{{- fail (printf "tls.certManager.renewBefore: expected less than tls.certManager.duration, %s, got %s" $tls.certManager.duration $tls.certManager.renewBefore) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.pod takes {path, workload}. */}}
{{- define "triptych.guards.pod" -}}
{{- include "triptych.guards.lifecycle" (dict "path" .path "settings" .workload.pod) -}}
{{- include "triptych.guards.labels" (dict "path" (printf "%s.podLabels" .path) "labels" .workload.pod.podLabels) -}}
{{- range .workload.pod.extraVolumes -}}
{{- if has .name (list "tmp" "claims" "models" "manifest" "cache" "tls") -}}
{{- fail (printf "%s.extraVolumes: the name %s is the release's own, expected another" $.path .name) -}}
{{- end -}}
{{- end -}}
{{- range .workload.containers -}}
{{- include "triptych.guards.container" (dict "path" .path "settings" .settings "own" (list "listen" "health-listen" "host" "device" "device-claims" "drain-timeout" "memory-budget" "warm-memory" "precision" "models" "log-level" "log-format" "tls-cert" "tls-key" "tls-client-ca")) -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.lifecycle takes {path, settings}: a pod is not killed before it has drained. */}}
{{- define "triptych.guards.lifecycle" -}}
{{- $drain := include "triptych.seconds" .settings.drainTimeout | int64 -}}
{{- if not $drain }}{{ fail (printf "%s.drainTimeout: expected at least 1s, got %s" .path .settings.drainTimeout) }}{{ end -}}
{{- $needed := add (.settings.preStopSeconds | int64) $drain -}}
{{- $grace := include "triptych.grace" .settings | int64 -}}
{{- if le $grace $needed -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: expected more than preStopSeconds and drainTimeout together, %d, got %d: the pod would be killed while it drains" .path $needed $grace) -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.container takes {path, settings, own}: what the release sets is set once. */}}
{{- define "triptych.guards.container" -}}
{{- range .settings.extraArgs -}}
{{- $flag := regexReplaceAll "^--([a-z-]+).*$" . "${1}" -}}
{{- if has $flag $.own -}}
{{- fail (printf "%s.extraArgs has --%s, which the release sets itself: expected the value for it (helm show values)" $.path $flag) -}}
{{- end -}}
{{- end -}}
{{- range .settings.extraEnv -}}
{{- if has .name (list "POD_NAME" "NODE_NAME" "TMPDIR") -}}
{{- fail (printf "%s.extraEnv has %s, which the release sets itself: expected another name" $.path .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.labels takes {path, labels}: labels by which the release finds its own. */}}
{{- define "triptych.guards.labels" -}}
{{- range $key, $_ := .labels -}}
{{- if regexMatch "^(app\\.kubernetes\\.io|helm\\.sh|triptych\\.dev)/" $key -}}
{{- fail (printf "%s has %s, which the release sets itself: expected another name" $.path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
