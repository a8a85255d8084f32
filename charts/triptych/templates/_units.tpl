{{/* Numbers out of what people write. */}}

{{/* triptych.bytes is the number of bytes of 2Gi, 2GiB, 2GB, 2G, 512Mi, 1.5GiB or 100. Nothing where it is none of them. */}}
{{- define "triptych.bytes" -}}
{{- $text := toString . -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?([KkMGTP]i?)?B?$" $text -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" | trimSuffix "B" -}}
{{- $factors := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "Ki" 1024 "ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- mulf $number (index $factors $unit) | floor | int64 -}}
{{- end -}}
{{- end -}}

{{/* triptych.seconds is the number of seconds of 20s, 5m or 1h. */}}
{{- define "triptych.seconds" -}}
{{- $text := toString . -}}
{{- $factor := get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[smh]$" $text) -}}
{{- mul (regexFind "^[0-9]+" $text | int64) $factor -}}
{{- end -}}

{{/* triptych.grace takes preStopSeconds, drainTimeout and terminationGracePeriodSeconds and is the seconds until a pod is killed. */}}
{{- define "triptych.grace" -}}
{{- if .terminationGracePeriodSeconds -}}
{{- .terminationGracePeriodSeconds | int64 -}}
{{- else -}}
{{- add (.preStopSeconds | int64) (include "triptych.seconds" .drainTimeout | int64) 10 -}}
{{- end -}}
{{- end -}}
