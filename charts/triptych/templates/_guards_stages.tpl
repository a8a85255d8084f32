{{/* Guards of the pools and of how they are scaled. */}}

{{/* triptych.guards.pools: every kind of stage is there. */}}
{{- define "triptych.guards.pools" -}}
{{- $kinds := dict -}}
{{- range $name, $pool := include "triptych.pools" . | fromJson -}}
{{- if has $name (list "orchestrator" "colocated" "authority" "self-signed" "scaler" "release" "test" "external") -}}
{{- fail (printf "stages.%s: the name is the release's own, expected another" $name) -}}
{{- end -}}
{{- $_ := set $kinds $pool.kind $name -}}
{{- end -}}
{{- range $kind := list "encoder" "denoiser" "decoder" -}}
{{- if not (hasKey $kinds $kind) -}}
{{- fail (printf "stages: no pool is of kind %s, and no picture is made without one: expected stages.NAME.kind: %s" $kind $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.topology: a value stands where it has an effect. */}}
{{- define "triptych.guards.topology" -}}
{{- $container := list "kind" "resources" "precision" "warmMemory" "models" "extraArgs" "extraEnv" "extraVolumeMounts" -}}
{{- if eq .Values.topology "separate" -}}
{{- if .Values.colocated -}}
{{- fail (printf "colocated.%s has no effect with topology separate: expected it in stageDefaults or stages.NAME, or topology: colocated" (keys .Values.colocated | sortAlpha | first)) -}}
{{- end -}}
{{- else -}}
{{- $kinds := dict -}}
{{- range $name, $pool := .Values.stages -}}
{{- if $pool -}}
{{- if hasKey $kinds $pool.kind -}}
{{- fail (printf "stages.%s: a second pool of kind %s, and the pod of topology colocated has one container of each kind: expected one of stages.%s and stages.%s" $name $pool.kind (get $kinds $pool.kind) $name) -}}
{{- end -}}
{{- $_ := set $kinds $pool.kind $name -}}
{{- range $key := keys $pool | sortAlpha -}}
{{- if not (has $key $container) -}}
{{- fail (printf "stages.%s.%s has no effect with topology colocated, where it is the pod's: expected colocated.%s" $name $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.autoscaling takes {path, workload}. */}}
{{- define "triptych.guards.autoscaling" -}}
{{- $as := .workload.pod.autoscaling -}}
{{- $fewest := $as.minReplicas | int64 -}}
{{- if ne $as.kind "none" -}}
{{- if gt $fewest ($as.maxReplicas | int64) -}}
{{- fail (printf "%s.autoscaling.minReplicas: expected at most maxReplicas, %d, got %d" .path ($as.maxReplicas | int64) $fewest) -}}
{{- end -}}
{{- if and (eq $fewest 0) (ne $as.kind "keda") -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0, and an HorizontalPodAutoscaler wakes nothing from zero: expected autoscaling.kind: keda, or at least 1" .path) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $as.kind "keda") .root.Values.networkPolicy.enabled (not .root.Values.networkPolicy.scalerFrom) -}}
{{- fail (printf "networkPolicy.scalerFrom is empty, and %s.autoscaling.kind is keda: expected who may ask the scaler, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: keda}}}]" .path) -}}
{{- end -}}
{{- if and (eq $as.kind "hpa") (gt ($as.hpa.cpuUtilization | int64) 0) -}}
{{- range .workload.containers -}}
{{- if not (dig "requests" "cpu" "" .settings.resources) -}}
{{- fail (printf "%s.resources.requests.cpu: expected a request, of which autoscaling.hpa.cpuUtilization is a part" .path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
