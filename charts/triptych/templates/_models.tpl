{{/*
The volume of models. A service reads /models: the image's own folder, a volume, or the cache on the node's disk, which an init
container fills from /source.
*/}}

{{/* triptych.modelMount takes a pod's settings and is the mount of the service, if there is one. */}}
{{- define "triptych.modelMount" -}}
{{- /* Writable, since a service marks what it serves as used: a container that starts again then finds its models. */ -}}
{{- if .cache.enabled -}}
- {name: cache, mountPath: /models}
{{- else if ne .model.source "none" -}}
- {name: models, mountPath: /models, readOnly: true{{ include "triptych.modelSubPath" .model }}}
{{- end -}}
{{- end -}}

{{/* triptych.modelSubPath takes the value model. */}}
{{- define "triptych.modelSubPath" -}}
{{- with dig .source "subPath" "" . }}, subPath: {{ . | quote }}{{ end -}}
{{- end -}}

{{/* triptych.manifest is the name of the object with the manifest of downloads; it takes {root, name, settings}. */}}
{{- define "triptych.manifest" -}}
{{- default (printf "%s-%s-models" (include "triptych.fullname" .root) .name) .settings.model.download.existingSecret -}}
{{- end -}}

{{/* triptych.downloadsToCache takes a pod's settings: without a claim to keep what was downloaded, the node's disk is the place for it. */}}
{{- define "triptych.downloadsToCache" -}}
{{- and .cache.enabled (eq .model.source "download") (not .model.download.existingClaim) -}}
{{- end -}}

{{/* triptych.modelInit takes {root, name, settings, models} and is a list of init containers. */}}
{{- define "triptych.modelInit" -}}
{{- $s := .settings -}}
{{- $straight := include "triptych.downloadsToCache" $s -}}
{{- if eq $s.model.source "download" }}
- name: fetch
  {{- include "triptych.containerImage" .root | nindent 2 }}
  args:
    - fetch
    - --manifest=/etc/triptych/models/manifest.json
    - --into=/models
    {{- with .models }}
    - --model={{ join "," . }}
    {{- end }}
  {{- $env := $s.model.download.extraEnv }}
  {{- with $s.model.download.tokenSecret }}
  {{- if .name }}
  {{- $env = append $env (dict "name" "TRIPTYCH_FETCH_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" .name "key" .key))) }}
  {{- end }}
  {{- end }}
  {{- include "triptych.environment" $env | nindent 2 }}
  {{- include "triptych.containerSecurity" .root | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: {{ ternary "cache" "models" (eq $straight "true") }}, mountPath: /models}
    - {name: manifest, mountPath: /etc/triptych/models, readOnly: true}
{{- end }}
{{- if and $s.cache.enabled (ne $straight "true") }}
- name: cache
  {{- include "triptych.containerImage" .root | nindent 2 }}
  args:
    - cache
    - --from=/source
    - --into=/models
    {{- with .models }}
    - --model={{ join "," . }}
    {{- end }}
    {{- with $s.cache.limit }}
    - --limit={{ . }}
    {{- end }}
  {{- include "triptych.environment" (list) | nindent 2 }}
  {{- include "triptych.containerSecurity" .root | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: models, mountPath: /source, readOnly: true{{ include "triptych.modelSubPath" $s.model }}}
    - {name: cache, mountPath: /models}
{{- end }}
{{- end -}}

{{/* triptych.modelVolumes takes {root, name, settings} and is a list of volumes. */}}
{{- define "triptych.modelVolumes" -}}
{{- $model := .settings.model -}}
{{- $cache := .settings.cache -}}
{{- if eq $model.source "pvc" }}
- name: models
  persistentVolumeClaim: {claimName: {{ $model.pvc.existingClaim | quote }}, readOnly: true}
{{- else if eq $model.source "image" }}
- name: models
  image: {reference: {{ $model.image.reference | quote }}, pullPolicy: {{ $model.image.pullPolicy }}}
{{- else if eq $model.source "download" }}
{{- if $model.download.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ $model.download.existingClaim | quote }}}
{{- else if not $cache.enabled }}
- name: models
  emptyDir: {{ with $model.download.sizeLimit }}{sizeLimit: {{ . | quote }}}{{ else }}{}{{ end }}
{{- end }}
- name: manifest
  {{- if $model.download.existingSecret }}
  secret: {secretName: {{ include "triptych.manifest" . | quote }}}
  {{- else }}
  configMap: {name: {{ include "triptych.manifest" . | quote }}}
  {{- end }}
{{- end }}
{{- if $cache.enabled }}
- name: cache
  {{- include "triptych.nodeVolume" $cache | nindent 2 }}
{{- end }}
{{- end -}}

{{/* triptych.nodeVolume takes {existingClaim, hostPath}: a volume on the node's own disk. A hostPath is never made, since its maker would be root. */}}
{{- define "triptych.nodeVolume" -}}
{{- if .existingClaim -}}
persistentVolumeClaim: {claimName: {{ .existingClaim | quote }}}
{{- else -}}
hostPath: {path: {{ .hostPath | quote }}, type: Directory}
{{- end -}}
{{- end -}}
