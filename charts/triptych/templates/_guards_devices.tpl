{{/* Guards of devices, memory and models. */}}

{{/* triptych.guards.gpu takes {root, path, workload}. */}}
{{- define "triptych.guards.gpu" -}}
{{- $pod := .workload.pod -}}
{{- $gpu := $pod.gpu -}}
{{- $device := include "triptych.device" $pod -}}
{{- if and (eq $gpu.mode "none") (hasPrefix "cuda" $device) -}}
{{- fail (printf "%s.device is %s, and gpu.mode none asks for no card: expected gpu.mode exclusive, shared, mig or dra" .path $device) -}}
{{- end -}}
{{- if and (eq $gpu.mode "mig") (not (regexMatch "/mig-" $gpu.resource)) -}}
{{- fail (printf "%s.gpu.resource: expected the name of a partition with gpu.mode mig, such as nvidia.com/mig-2g.20gb, got %q" .path $gpu.resource) -}}
{{- end -}}
{{- if and (eq $gpu.mode "shared") (ne ($gpu.count | int64) 1) -}}
{{- fail (printf "%s.gpu.count: expected 1 with gpu.mode shared, where more is no larger part of the card, got %d" .path ($gpu.count | int64)) -}}
{{- end -}}
{{- if and (eq $gpu.mode "dra") (semverCompare "<1.34.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "%s.gpu.mode dra: expected Kubernetes 1.34 or newer, which serves resource.k8s.io/v1, got %s" .path .root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq .root.Values.topology "colocated") (has $gpu.mode (list "exclusive" "mig")) -}}
{{- fail (printf "colocated.gpu.mode %s: a device plugin gives a card to one container, and three are to share it: expected dra (one claim for the pod) or shared (one slice for each container)" $gpu.mode) -}}
{{- end -}}
{{- range .workload.containers -}}
{{- range $name, $_ := default dict .settings.resources.limits -}}
{{- if regexMatch "/(gpu|mig-)" $name -}}
{{- fail (printf "%s.resources.limits has %s, which the release would not know of: expected gpu.mode, and gpu.resource if it has another name" $.path $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.claims takes {root, name, path, workload}: pods that share a card share its budget and the place where they agree on it. */}}
{{- define "triptych.guards.claims" -}}
{{- $pod := .workload.pod -}}
{{- $shared := or (eq $pod.gpu.mode "shared") (and (ne $pod.gpu.mode "none") (eq .root.Values.topology "colocated")) (eq (include "triptych.sharesNode" .) "true") -}}
{{- if and $shared (not (include "triptych.memoryBudget" .workload)) -}}
{{- fail (printf "%s.memoryBudget: expected what the stages on the card may hold together, such as 20GiB, since several share it" .path) -}}
{{- end -}}
{{- if eq (include "triptych.sharesNode" .) "true" -}}
{{- range $name, $w := include "triptych.workloads" .root | fromJson -}}
{{- $same := eq (printf "%s %s" (include "triptych.gpuResource" $w.pod.gpu) $w.pod.gpu.dra.existingClaim) (printf "%s %s" (include "triptych.gpuResource" $pod.gpu) $pod.gpu.dra.existingClaim) -}}
{{- if and (eq (include "triptych.sharesNode" (dict "root" $.root "workload" $w)) "true") $same (eq (toJson $w.pod.nodeSelector) (toJson $pod.nodeSelector)) -}}
{{- if ne (toJson $w.pod.gpu.claims) (toJson $pod.gpu.claims) -}}
{{- fail (printf "%s.gpu.claims and %s.gpu.claims differ, and their pods may share a card: expected one directory, in stageDefaults.gpu.claims, or nodeSelectors that keep them apart" $.path $w.path) -}}
{{- end -}}
{{- if ne (include "triptych.memoryBudget" $w) (include "triptych.memoryBudget" $.workload) -}}
{{- fail (printf "%s.memoryBudget and %s.memoryBudget differ, and their pods may share a card, on which the larger would hold for all: expected one, in stageDefaults.memoryBudget" $.path $w.path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.memory takes {path, workload}: on cpu the budget and warm memory are the container's memory, and more than its limit ends in a kill. */}}
{{- define "triptych.guards.memory" -}}
{{- $onCPU := hasPrefix "cpu" (include "triptych.device" .workload.pod) -}}
{{- $budget := include "triptych.memoryBudget" .workload -}}
{{- range .workload.containers -}}
{{- $limit := dig "limits" "memory" "" .settings.resources -}}
{{- if $limit -}}
{{- $bytes := include "triptych.bytes" $limit | int64 -}}
{{- $warm := include "triptych.bytes" (default "0" .settings.warmMemory) | int64 -}}
{{- if and $onCPU (eq (toString $.workload.pod.memoryBudget) "auto") (ge (mul $warm 4) (mul $bytes 3)) -}}
{{- fail (printf "%s.warmMemory is %s and leaves nothing of resources.limits.memory, %v, to memoryBudget: auto: expected less, or a larger limit" .path .settings.warmMemory $limit) -}}
{{- end -}}
{{- $held := $warm -}}
{{- if $onCPU }}{{ $held = add $warm (include "triptych.bytes" (default "0" $budget) | int64) }}{{ end -}}
{{- if and $onCPU $budget (gt $held $bytes) -}}
{{- fail (printf "%s.memoryBudget is %s%s, and the %s's container is killed beyond resources.limits.memory, %v: expected a limit with room for the process beside them, or memoryBudget: auto" $.path $budget (ternary (printf ", warmMemory %s" .settings.warmMemory) "" (gt $warm 0)) .kind $limit) -}}
{{- end -}}
{{- if gt $held $bytes -}}
{{- fail (printf "%s.warmMemory is %s, and its container is killed beyond resources.limits.memory, %v: expected less, or a larger limit" .path .settings.warmMemory $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* triptych.guards.models takes {root, path, workload}. */}}
{{- define "triptych.guards.models" -}}
{{- $model := .workload.pod.model -}}
{{- $cache := .workload.pod.cache -}}
{{- $download := $model.download -}}
{{- if and (eq $model.source "pvc") (not $model.pvc.existingClaim) -}}
{{- fail "model.pvc.existingClaim: expected the name of a PersistentVolumeClaim with model.source pvc, got nothing" -}}
{{- end -}}
{{- if eq $model.source "image" -}}
{{- if not $model.image.reference -}}
{{- fail "model.image.reference: expected the reference of an OCI image with model.source image, got nothing" -}}
{{- end -}}
{{- if semverCompare "<1.33.0-0" .root.Capabilities.KubeVersion.Version -}}
{{- fail (printf "model.source image: expected Kubernetes 1.33 or newer, which mounts images as volumes, got %s" .root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if eq $model.source "download" -}}
{{- if and $download.models $download.existingSecret -}}
{{- fail "model.download.models and model.download.existingSecret are both set: expected one of them" -}}
{{- end -}}
{{- if not (or $download.models $download.existingSecret) -}}
{{- fail "model.download: expected models or existingSecret with model.source download, got neither" -}}
{{- end -}}
{{- $names := list -}}
{{- range $download.models -}}
{{- if has .name $names }}{{ fail (printf "model.download.models has %s twice" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range .workload.containers -}}
{{- $path := .path -}}
{{- range .settings.models -}}
{{- if and $names (not (has . $names)) -}}
{{- fail (printf "%s.models names %s, which model.download.models does not have: expected one of %s" $path . (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $cache.enabled -}}
{{- if eq $model.source "none" -}}
{{- fail "cache.enabled, and model.source none has nothing to cache: expected model.source pvc, image or download" -}}
{{- end -}}
{{- if and $cache.limit (eq (include "triptych.downloadsToCache" .workload.pod) "true") -}}
{{- fail "cache.limit has no effect where models are downloaded straight to the cache: expected model.download.existingClaim as well, or no limit" -}}
{{- end -}}
{{- end -}}
{{- end -}}
