{{/* Name of the objects of this release. A pod's name and labels are derived from it, so it stays short. */}}
{{- define "datasite.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "datasite.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end }}

{{/* Image of one of our programs. Call with (dict "root" $ "name" "agent"). */}}
{{- define "datasite.image" -}}
{{- printf "%s/%s:%s" (trimSuffix "/" .root.Values.image.registry) .name (include "datasite.tag" .root) -}}
{{- end }}

{{- define "datasite.jobImage" -}}
{{- default (include "datasite.image" (dict "root" . "name" "job")) .Values.jobs.image -}}
{{- end }}

{{- define "datasite.jobsNamespace" -}}
{{- default (printf "%s-jobs" .Release.Namespace) .Values.jobs.namespace -}}
{{- end }}

{{/* Labels that select pods of this release. */}}
{{- define "datasite.selector" -}}
app.kubernetes.io/name: datasite
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "datasite.labels" -}}
{{ include "datasite.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: syftmesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* A quantity in binary units (64Mi) as bytes. */}}
{{- define "datasite.bytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[KMG]i$" . -}}
{{- mul $number (get (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824) $unit) -}}
{{- end }}

{{/* Port that the hub's URL names. */}}
{{- define "datasite.hubPort" -}}
{{- default "443" (regexFind ":[0-9]+$" (trimSuffix "/" .Values.hub.url) | trimPrefix ":") -}}
{{- end }}

{{/* Namespace of a hub in this cluster: as given, or as its URL https://SERVICE.NAMESPACE.svc... tells. */}}
{{- define "datasite.hubNamespace" -}}
{{- $host := .Values.hub.url | trimPrefix "https://" | trimSuffix "/" | regexFind "^[^:/]+" -}}
{{- $told := ternary (index (splitList "." (printf "%s.." $host)) 1) "" (regexMatch `^[^.]+\.[^.]+\.svc(\..+)?$` $host) -}}
{{- default $told .Values.networkPolicy.hub.inCluster.namespace -}}
{{- end }}

{{- define "datasite.hasToken" -}}
{{- if or .Values.joinToken.value .Values.joinToken.existingSecret }}true{{ end -}}
{{- end }}

{{- define "datasite.hasCa" -}}
{{- if or .Values.hub.ca .Values.hub.caConfigMap.name .Values.hub.caSecret.name }}true{{ end -}}
{{- end }}
