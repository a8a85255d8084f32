{{/* The arguments of the orchestrator. */}}

{{/* triptych.orchestratorArgs is a list. */}}
{{- define "triptych.orchestratorArgs" -}}
{{- $o := .Values.orchestrator -}}
- orchestrator
- --listen=:7420
- --health-listen=:7430
- --metrics-listen=:7440
- --scaler-listen=:7450
{{- range $name, $w := include "triptych.workloads" . | fromJson }}
{{- range $w.containers }}
- --{{ .kind }}=dns:///{{ include "triptych.host" (dict "root" $ "name" (printf "%s-%s" (include "triptych.fullname" $) $name)) }}:{{ (include "triptych.ports" .kind | fromJson).grpc }}
{{- end }}
{{- end }}
{{- range $kind, $fewest := include "triptych.fewest" . | fromJson }}
{{- if not $fewest }}
- --min-replicas={{ $kind }}=0
{{- end }}
{{- end }}
- --patience={{ $o.patience }}
- --max-jobs={{ $o.maxJobs | int64 }}
- --checkpoint-every={{ $o.checkpointEvery | int64 }}
- --drain-timeout={{ $o.drainTimeout }}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- if ne .Values.tls.mode "none" }}
- --tls-cert=/etc/triptych/tls/tls.crt
- --tls-key=/etc/triptych/tls/tls.key
{{- if .Values.tls.requireClientCertificate }}
- --tls-client-ca=/etc/triptych/tls/ca.crt
{{- end }}
- --stage-ca=/etc/triptych/tls/ca.crt
- --stage-client-cert=/etc/triptych/tls/tls.crt
- --stage-client-key=/etc/triptych/tls/tls.key
{{- end }}
{{- range $o.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* triptych.fewest is the replicas that each kind of stage has at least, by kind. */}}
{{- define "triptych.fewest" -}}
{{- $fewest := dict -}}
{{- range $w := include "triptych.workloads" . | fromJson -}}
{{- $least := ternary $w.pod.replicas $w.pod.autoscaling.minReplicas (eq $w.pod.autoscaling.kind "none") | int64 -}}
{{- range $w.containers -}}
{{- $_ := set $fewest .kind (add $least (get $fewest .kind | default 0)) -}}
{{- end -}}
{{- end -}}
{{- toJson $fewest -}}
{{- end -}}

{{/* triptych.apiPort is the port of the API in a Service. */}}
{{- define "triptych.apiPort" -}}
name: grpc
port: 7420
targetPort: grpc
protocol: TCP
{{- if eq .Values.tls.mode "none" }}
appProtocol: kubernetes.io/h2c
{{- end }}
{{- end -}}
