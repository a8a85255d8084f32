{{/* What monitoring has in common. */}}

{{/* triptych.seriesOf selects the series of the release's orchestrators, whoever scraped them. */}}
{{- define "triptych.seriesOf" -}}
namespace={{ .Release.Namespace | quote }},pod=~"{{ include "triptych.fullname" . }}-orchestrator-.+"
{{- end -}}

{{/* triptych.lasting is the kinds of stages that always have a replica, as a regular expression. */}}
{{- define "triptych.lasting" -}}
{{- $kinds := list -}}
{{- range $kind, $fewest := include "triptych.fewest" . | fromJson -}}
{{- if $fewest }}{{ $kinds = append $kinds $kind }}{{ end -}}
{{- end -}}
{{- join "|" $kinds -}}
{{- end -}}
