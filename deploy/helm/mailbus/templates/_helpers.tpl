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
{{ splitList ":" (((.Values.settings).http).listen | default "0.0.0.0:8080") | last }}
{{- end }}

{{- define "mailbus.image" -}}
"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}"
{{- end }}

{{- define "mailbus.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
