{{/*
Pools and workloads. A pool is an entry of stages with the defaults below it. A workload is a Deployment of stages: a pool with
topology separate, the one pod of all of them with topology colocated.
*/}}

{{/* triptych.pools is a map of pools by name. */}}
{{- define "triptych.pools" -}}
{{- $pools := dict -}}
{{- range $name, $pool := .Values.stages -}}
{{- if $pool -}}
{{- $merged := mergeOverwrite (deepCopy $.Values.stageDefaults) (deepCopy $pool) -}}
{{- $_ := set $merged "model" (mergeOverwrite (deepCopy $.Values.model) $merged.model) -}}
{{- $_ := set $merged "cache" (mergeOverwrite (deepCopy $.Values.cache) $merged.cache) -}}
{{- $_ := set $pools $name $merged -}}
{{- end -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* triptych.workloads is a map by name: {pod: settings, kind: only where it is one, containers: [{kind, path, settings}]}; path is where its values stand. */}}
{{- define "triptych.workloads" -}}
{{- $pools := include "triptych.pools" . | fromJson -}}
{{- $workloads := dict -}}
{{- if eq .Values.topology "colocated" -}}
{{- $containers := list -}}
{{- range $kind := list "encoder" "denoiser" "decoder" -}}
{{- range $name, $pool := $pools -}}
{{- if eq $pool.kind $kind -}}
{{- $containers = append $containers (dict "kind" $kind "path" (printf "stages.%s" $name) "settings" $pool) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $pod := mergeOverwrite (deepCopy .Values.stageDefaults) (deepCopy .Values.colocated) -}}
{{- $_ := set $pod "model" (mergeOverwrite (deepCopy .Values.model) $pod.model) -}}
{{- $_ := set $pod "cache" (mergeOverwrite (deepCopy .Values.cache) $pod.cache) -}}
{{- $_ := set $workloads "colocated" (dict "path" "colocated" "pod" $pod "containers" $containers) -}}
{{- else -}}
{{- range $name, $pool := $pools -}}
{{- $container := dict "kind" $pool.kind "path" (printf "stages.%s" $name) "settings" $pool -}}
{{- $_ := set $workloads $name (dict "path" (printf "stages.%s" $name) "kind" $pool.kind "pod" $pool "containers" (list $container)) -}}
{{- end -}}
{{- end -}}
{{- toJson $workloads -}}
{{- end -}}

{{/* triptych.ports is the ports of a kind of process: {grpc, health}. */}}
{{- define "triptych.ports" -}}
{{- $offset := get (dict "orchestrator" 0 "encoder" 1 "denoiser" 2 "decoder" 3) . -}}
{{- dict "grpc" (add 7420 $offset) "health" (add 7430 $offset) | toJson -}}
{{- end -}}

{{/* triptych.gpuResource takes the value gpu and is the name of its extended resource, if it has one. */}}
{{- define "triptych.gpuResource" -}}
{{- if ne .mode "dra" -}}
{{- default (get (dict "none" "" "exclusive" "nvidia.com/gpu" "shared" "nvidia.com/gpu.shared" "mig" "") .mode) .resource -}}
{{- end -}}
{{- end -}}

{{/* triptych.device takes a pod's settings and is the device it computes on. */}}
{{- define "triptych.device" -}}
{{- default (ternary "cpu:0" "cuda:0" (eq .gpu.mode "none")) .device -}}
{{- end -}}

{{/* triptych.memoryBudget takes a workload and is its budget as the program takes it. */}}
{{- define "triptych.memoryBudget" -}}
{{- if ne (toString .pod.memoryBudget) "auto" -}}
{{- .pod.memoryBudget -}}
{{- else if hasPrefix "cpu" (include "triptych.device" .pod) -}}
{{- $least := 0 -}}
{{- range .containers -}}
{{- $limit := include "triptych.bytes" (dig "limits" "memory" "" .settings.resources) | int64 -}}
{{- $rest := sub (div (mul $limit 3) 4) (include "triptych.bytes" (default "0" .settings.warmMemory) | int64) | max 1048576 -}}
{{- if and $limit (or (not $least) (lt $rest $least)) }}{{ $least = $rest }}{{ end -}}
{{- end -}}
{{- with $least }}{{ div . 1048576 }}MiB{{ end -}}
{{- end -}}
{{- end -}}

{{/* triptych.workloadModels takes a workload and is the names of its models as a JSON list; an empty one is all. */}}
{{- define "triptych.workloadModels" -}}
{{- $models := list -}}
{{- $all := false -}}
{{- range .containers -}}
{{- if .settings.models }}{{ $models = concat $models .settings.models }}{{ else }}{{ $all = true }}{{ end -}}
{{- end -}}
{{- ternary (list) ($models | uniq) $all | toJson -}}
{{- end -}}

{{/* triptych.manifestChecksum takes a pod's settings: what is to be downloaded makes new pods when it changes. */}}
{{- define "triptych.manifestChecksum" -}}
{{- if and (eq .model.source "download") (not .model.download.existingSecret) -}}
{{- toJson .model.download.models | sha256sum -}}
{{- end -}}
{{- end -}}
