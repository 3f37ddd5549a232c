{{- define "mailbus.name" -}}
{{- if contains "mailbus" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-mailbus" (.Release.Name | trunc 44 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "mailbus.selector" -}}
app.kubernetes.io/name: mailbus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mailbus.labels" -}}
{{ include "mailbus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "mailbus.httpPort" -}}
{{ splitList ":" .Values.settings.http.listen | last }}
{{- end }}

{{- /* A size as settings or Kubernetes write it, in bytes; 0 of what is none. */}}
{{- define "mailbus.bytes" -}}
{{- $text := ternary (printf "%.0f" .) (toString .) (kindIs "float64" .) }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text }}
{{- $units := dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := get $units (trimPrefix $number $text) }}
{{- if and $number $unit }}{{ mulf (float64 $number) $unit | int64 }}{{ else }}0{{ end }}
{{- end }}

{{- /* What is right by itself, and together makes pods that do not run. */}}
{{- define "mailbus.checked" -}}
{{- $listen := dig "http" "listen" "" .Values.settings | toString }}
{{- if not (regexMatch "^.+:[1-9][0-9]*$" $listen) }}
{{- fail (printf "settings.http.listen: %q: write 0.0.0.0 and a port, such as 0.0.0.0:8080" $listen) }}
{{- end }}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\]:)" $listen }}
{{- fail (printf "settings.http.listen: %s is the pod's own loopback, where no probe comes: write 0.0.0.0 or [::]" $listen) }}
{{- end }}
{{- $memory := dig "limits" "memory" "" .Values.settings | default "512MiB" }}
{{- $limit := dig "limits" "memory" "" (.Values.resources | default dict) }}
{{- $bytes := include "mailbus.bytes" $limit | int64 }}
{{- if and $bytes (lt $bytes (mul 2 (include "mailbus.bytes" $memory | int64))) }}
{{- fail (printf "resources.limits.memory: %v is less than twice settings.limits.memory (%s), the mail in hand: raise the one or lower the other" $limit $memory) }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas: %v is more than maxReplicas, %v" .minReplicas .maxReplicas) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mailbus.image" -}}
"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}"
{{- end }}

{{- define "mailbus.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
