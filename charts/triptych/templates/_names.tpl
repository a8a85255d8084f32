{{/* Names of the objects and their labels. */}}

{{/* triptych.fullname is the release's name with "triptych" in it; it begins with a letter, as the name of a Service must. */}}
{{- define "triptych.fullname" -}}
{{- $base := default "triptych" .Values.nameOverride -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if not (contains $base $name) -}}
{{- $name = ternary (printf "%s-%s" $base $name) (printf "%s-%s" $name $base) (regexMatch "^[0-9]" $name) -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* triptych.serviceAccountName is the service account of every pod. */}}
{{- define "triptych.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "triptych.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* triptych.selector takes (dict "root" $ "component" NAME). */}}
{{- define "triptych.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{/* triptych.labels takes (dict "root" $ "component" NAME), "kind" where the object is of one kind of stage, and "more" labels. The chart's version is not among them: pods have them too, and would all be replaced for it. */}}
{{- define "triptych.labels" -}}
{{ include "triptych.selector" . }}
app.kubernetes.io/version: {{ default .root.Chart.AppVersion .root.Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- with .kind }}
triptych.dev/kind: {{ . | quote }}
{{- end }}
{{- range $key, $value := merge (deepCopy (default dict .more)) .root.Values.commonLabels }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* triptych.metadata takes what triptych.labels takes, and "name". */}}
{{- define "triptych.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "triptych.labels" . | nindent 2 }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* triptych.image is the reference of the image. */}}
{{- define "triptych.image" -}}
{{- $image := .Values.image -}}
{{- with default (dig "imageRegistry" "" (default dict .Values.global)) $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* triptych.host takes (dict "root" $ "name" SERVICE) and is its full name. The dot at its end keeps the search domains of a pod out of it. */}}
{{- define "triptych.host" -}}
{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}.
{{- end -}}
