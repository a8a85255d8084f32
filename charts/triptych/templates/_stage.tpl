{{/* The container of one stage. */}}

{{/* triptych.stageArgs takes {root, workload, container} and is a list. */}}
{{- define "triptych.stageArgs" -}}
{{- $s := .container.settings -}}
{{- $pod := .workload.pod -}}
{{- $ports := include "triptych.ports" .container.kind | fromJson -}}
- {{ .container.kind }}
- --listen=:{{ $ports.grpc }}
- --health-listen=:{{ $ports.health }}
- --host={{ ternary "$(NODE_NAME)" "$(POD_NAME)" (eq (include "triptych.sharesNode" (dict "root" .root "workload" .workload)) "true") }}
- --device={{ include "triptych.device" $pod }}
- --device-claims=/run/triptych/claims
- --drain-timeout={{ $pod.drainTimeout }}
{{- with include "triptych.memoryBudget" .workload }}
- --memory-budget={{ . }}
{{- end }}
{{- with $s.warmMemory }}
- --warm-memory={{ . }}
{{- end }}
{{- with $s.precision }}
- --precision={{ . }}
{{- end }}
- --models={{ include "triptych.modelFolders" $s }}
- --log-level={{ .root.Values.log.level }}
- --log-format={{ .root.Values.log.format }}
{{- if ne .root.Values.tls.mode "none" }}
- --tls-cert=/etc/triptych/tls/tls.crt
- --tls-key=/etc/triptych/tls/tls.key
- --tls-client-ca=/etc/triptych/tls/ca.crt
{{- end }}
{{- range $s.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* triptych.sharesNode takes {root, workload} and is true where pods of the node share the device, which then is the node's. */}}
{{- define "triptych.sharesNode" -}}
{{- $gpu := .workload.pod.gpu -}}
{{- or (and (eq $gpu.mode "shared") (ne .root.Values.topology "colocated")) (and (eq $gpu.mode "dra") (ne $gpu.dra.existingClaim "")) -}}
{{- end -}}

{{/* triptych.modelFolders takes a pool and is the value of --models. */}}
{{- define "triptych.modelFolders" -}}
{{- if .models -}}
{{- $folders := list -}}
{{- range .models }}{{ $folders = append $folders (printf "/models/%s" .) }}{{ end -}}
{{- join "," $folders -}}
{{- else -}}
/models
{{- end -}}
{{- end -}}

{{/* triptych.stageResources takes {workload, container}. */}}
{{- define "triptych.stageResources" -}}
{{- $gpu := .workload.pod.gpu -}}
{{- $resources := deepCopy .container.settings.resources -}}
{{- with include "triptych.gpuResource" $gpu -}}
{{- $_ := set $resources "limits" (merge (dict . ($gpu.count | int64)) (default dict $resources.limits)) -}}
{{- end -}}
{{- if eq $gpu.mode "dra" -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* triptych.stageContainer takes {root, workload, container}. */}}
{{- define "triptych.stageContainer" -}}
{{- $s := .container.settings -}}
{{- $pod := .workload.pod -}}
{{- $ports := include "triptych.ports" .container.kind | fromJson -}}
name: {{ .container.kind }}
{{ include "triptych.containerImage" .root }}
args:
  {{- include "triptych.stageArgs" . | nindent 2 }}
{{ include "triptych.environment" $s.extraEnv }}
ports:
  - {name: {{ .container.kind }}, containerPort: {{ $ports.grpc }}}
  - {name: {{ .container.kind }}-health, containerPort: {{ $ports.health }}}
{{ include "triptych.probes" (dict "port" $ports.health "startupSeconds" $pod.startup.timeoutSeconds "livenessPeriod" $pod.liveness.periodSeconds "livenessFailures" $pod.liveness.failureThreshold) }}
{{ with include "triptych.preStop" $pod.preStopSeconds }}{{ . }}
{{ end -}}
{{ include "triptych.containerSecurity" .root }}
resources:
  {{- include "triptych.stageResources" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: claims, mountPath: /run/triptych/claims}
  {{- with include "triptych.modelMount" $pod }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if ne .root.Values.tls.mode "none" }}
  - {name: tls, mountPath: /etc/triptych/tls, readOnly: true}
  {{- end }}
  {{- with $s.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
