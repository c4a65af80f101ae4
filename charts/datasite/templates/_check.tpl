{{/* What the schema cannot say: values that contradict each other, or the cluster. */}}
{{- define "datasite.check" -}}
{{- $jobs := include "datasite.jobsNamespace" . -}}
{{- if eq $jobs .Release.Namespace }}
{{- fail (printf "jobs.namespace: runs need a namespace of their own, not the release's (%s); leave it empty for %s-jobs." $jobs .Release.Namespace) }}
{{- end }}
{{- $given := 0 }}
{{- range list .Values.hub.ca .Values.hub.caConfigMap.name .Values.hub.caSecret.name }}
{{- if . }}{{ $given = add1 $given }}{{ end }}
{{- end }}
{{- if gt $given 1 }}
{{- fail "hub: give at most one of ca, caConfigMap.name and caSecret.name." }}
{{- end }}
{{- if and .Values.joinToken.value .Values.joinToken.existingSecret }}
{{- fail "joinToken: give value or existingSecret, not both." }}
{{- end }}
{{- if and .Release.IsInstall (not (include "datasite.hasToken" .)) }}
{{- /* A site that was uninstalled left its volume, in which it has joined already. */}}
{{- if not (lookup "v1" "PersistentVolumeClaim" .Release.Namespace (printf "state-%s-0" (include "datasite.fullname" .))) }}
{{- fail "joinToken: a new site needs the token that the hub's operator made for its e-mail: --set-file joinToken.value=FILE, or joinToken.existingSecret." }}
{{- end }}
{{- end }}
{{- include "datasite.checkQuota" . }}
{{- include "datasite.checkRuntimeClass" . }}
{{- end }}

{{- define "datasite.checkQuota" -}}
{{- $limits := .Values.jobs.limits }}
{{- $memory := include "datasite.bytes" $limits.memory | int64 }}
{{- $scratch := add (include "datasite.bytes" $limits.disk | int64) (include "datasite.bytes" $limits.output | int64) }}
{{- if gt ($scratch | int64) $memory }}
{{- fail "jobs.limits: disk and output live in memory, so memory must be at least their sum." }}
{{- end }}
{{- $quota := get .Values.jobs.quota "limits.memory" | default "" | toString }}
{{- if regexMatch "^[0-9]+[KMG]i$" $quota }}
{{- /* Beside the run itself: its carrier of 128Mi, its launcher of 32Mi and four times what is kept of its logs. */}}
{{- $run := add $memory 167772160 (mul 4 (include "datasite.bytes" $limits.log | int64)) }}
{{- if gt (mul .Values.jobs.parallel $run | int64) (include "datasite.bytes" $quota | int64) }}
{{- fail (printf "jobs.quota: limits.memory %s is less than %v runs (jobs.parallel) of jobs.limits.memory %s and 160Mi take." $quota .Values.jobs.parallel $limits.memory) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "datasite.checkRuntimeClass" -}}
{{- with .Values.jobs.runtimeClassName }}
{{- /* Without a cluster (helm template) the lookup gives nothing at all. */}}
{{- $found := lookup "node.k8s.io/v1" "RuntimeClass" "" "" }}
{{- if $found }}
{{- $names := list }}
{{- range $found.items }}{{ $names = append $names .metadata.name }}{{ end }}
{{- if not (has . $names) }}
{{- fail (printf "jobs.runtimeClassName: this cluster has no RuntimeClass %q (it has: %s)." . (default "none" (join ", " $names))) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
