{{/* Certificates. */}}

{{/* triptych.tlsSecret takes {root, name} and is the secret of a workload or of the orchestrator. */}}
{{- define "triptych.tlsSecret" -}}
{{- if eq .root.Values.tls.mode "secret" -}}
{{- get .root.Values.tls.secret (ternary "orchestrator" "stages" (eq .name "orchestrator")) -}}
{{- else -}}
{{ include "triptych.fullname" .root }}-{{ .name }}-tls
{{- end -}}
{{- end -}}

{{/* triptych.serviceNames takes {root, name} and is the DNS names of a Service as a JSON list. */}}
{{- define "triptych.serviceNames" -}}
{{- $ns := .root.Release.Namespace -}}
{{- list .name (printf "%s.%s" .name $ns) (printf "%s.%s.svc" .name $ns) (printf "%s.%s.svc.%s" .name $ns .root.Values.clusterDomain) | toJson -}}
{{- end -}}

{{/* triptych.podNames takes {root, name} and is the wildcards of a headless Service's pods as a JSON list. */}}
{{- define "triptych.podNames" -}}
{{- $ns := .root.Release.Namespace -}}
{{- list (printf "*.%s.%s.svc" .name $ns) (printf "*.%s.%s.svc.%s" .name $ns .root.Values.clusterDomain) | toJson -}}
{{- end -}}

{{/* triptych.callerArgs are the flags of a caller of the orchestrator; it takes {root, dir}, dir being where its secret is mounted. */}}
{{- define "triptych.callerArgs" -}}
{{- if ne .root.Values.tls.mode "none" -}}
- --server-ca={{ .dir }}/ca.crt
{{- if .root.Values.tls.requireClientCertificate }}
- --server-client-cert={{ .dir }}/tls.crt
- --server-client-key={{ .dir }}/tls.key
{{- end }}
{{- end -}}
{{- end -}}
