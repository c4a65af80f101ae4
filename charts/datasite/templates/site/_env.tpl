{{/* Environment of the owner's commands, in `setup` and in `console`. */}}
{{- define "datasite.ownerEnv" -}}
- { name: HOME, value: /tmp }
- { name: SYFTMESH_STATE, value: /var/lib/syftmesh }
- { name: SYFTMESH_SITE_SOCKETS, value: /run/syftmesh }
- { name: SYFTMESH_SERVER, value: {{ .Values.hub.url | quote }} }
- { name: SYFTMESH_PROFILE, value: {{ .Values.email | quote }} }
{{- end }}

{{/* Settings of the agent: SYFTMESH_AGENT_*. */}}
{{- define "datasite.agentEnv" -}}
{{- $folder := printf "/var/lib/syftmesh/sites/%s/agent" .Values.email -}}
- { name: HOME, value: /tmp }
- { name: SYFTMESH_AGENT_FOLDER, value: {{ $folder }} }
- { name: SYFTMESH_AGENT_LISTEN, value: "unix:/run/syftmesh/agent.sock" }
- { name: SYFTMESH_AGENT_HEALTH_LISTEN, value: "0.0.0.0:8086" }
- { name: SYFTMESH_AGENT_HUB_URL, value: {{ .Values.hub.url | quote }} }
{{- if include "datasite.hasCa" . }}
- { name: SYFTMESH_AGENT_CA_FILE, value: /etc/syftmesh/hub/ca.crt }
{{- end }}
- { name: SYFTMESH_AGENT_JOIN_TOKEN_FILE, value: {{ $folder }}/join.token }
- { name: SYFTMESH_AGENT_RUNNER_SOCKET, value: /run/syftmesh/runner.sock }
- { name: SYFTMESH_AGENT_LOG_LEVEL, value: {{ .Values.logLevel }} }
- { name: SYFTMESH_AGENT_LOG_JSON, value: "true" }
{{- end }}

{{/* Settings of the runner: SYFTMESH_RUNNER_*. */}}
{{- define "datasite.runnerEnv" -}}
{{- $folder := printf "/var/lib/syftmesh/sites/%s/runner" .Values.email -}}
- { name: HOME, value: /tmp }
- { name: SYFTMESH_RUNNER_STATE_DIR, value: {{ $folder }} }
- { name: SYFTMESH_RUNNER_LOCAL_DIR, value: /run/syftmesh }
- { name: SYFTMESH_RUNNER_HEALTH_LISTEN, value: "0.0.0.0:8087" }
- { name: SYFTMESH_RUNNER_SERVER_URL, value: {{ .Values.hub.url | quote }} }
{{- if include "datasite.hasCa" . }}
- { name: SYFTMESH_RUNNER_CA_FILE, value: /etc/syftmesh/hub/ca.crt }
{{- end }}
- { name: SYFTMESH_RUNNER_JOIN_TOKEN_FILE, value: {{ $folder }}/join.token }
- { name: SYFTMESH_RUNNER_LOG_LEVEL, value: {{ .Values.logLevel }} }
- { name: SYFTMESH_RUNNER_LOG_JSON, value: "true" }
- { name: SYFTMESH_RUNNER_EXECUTOR, value: kubernetes }
- { name: SYFTMESH_RUNNER_JOBS_NAMESPACE, value: {{ include "datasite.jobsNamespace" . }} }
- { name: SYFTMESH_RUNNER_JOB_IMAGE, value: {{ include "datasite.jobImage" . }} }
- { name: SYFTMESH_RUNNER_JOB_PULL_POLICY, value: {{ .Values.jobs.pullPolicy }} }
- { name: SYFTMESH_RUNNER_JOB_SERVICE_ACCOUNT, value: job }
- { name: SYFTMESH_RUNNER_JOB_RUNTIME_CLASS, value: {{ .Values.jobs.runtimeClassName | quote }} }
- { name: SYFTMESH_RUNNER_JOB_HOST_USERS, value: {{ .Values.jobs.hostUsers | quote }} }
{{ include "datasite.boundsEnv" . }}
{{- end }}

{{/* What the owner allows: bounds on runs, on reviews, on answers. */}}
{{- define "datasite.boundsEnv" -}}
{{- $limits := .Values.jobs.limits -}}
- { name: SYFTMESH_RUNNER_PARALLEL, value: {{ .Values.jobs.parallel | int64 | quote }} }
- { name: SYFTMESH_RUNNER_JOB_CPU, value: {{ $limits.cpu | quote }} }
- { name: SYFTMESH_RUNNER_JOB_START_S, value: {{ .Values.jobs.startSeconds | int64 | quote }} }
- { name: SYFTMESH_RUNNER_MEMORY_BYTES, value: {{ include "datasite.bytes" $limits.memory | quote }} }
- { name: SYFTMESH_RUNNER_DISK_BYTES, value: {{ include "datasite.bytes" $limits.disk | quote }} }
- { name: SYFTMESH_RUNNER_OUTPUT_BYTES, value: {{ include "datasite.bytes" $limits.output | quote }} }
- { name: SYFTMESH_RUNNER_LOG_BYTES, value: {{ include "datasite.bytes" $limits.log | quote }} }
- { name: SYFTMESH_RUNNER_PROCESSES, value: {{ $limits.processes | int64 | quote }} }
- { name: SYFTMESH_RUNNER_REVIEWERS, value: {{ .Values.review.reviewers | toJson | squote }} }
- { name: SYFTMESH_RUNNER_REVIEW_S, value: {{ mul .Values.review.decideHours 3600 | quote }} }
- { name: SYFTMESH_RUNNER_APPROVAL_S, value: {{ mul .Values.review.approvalHours 3600 | quote }} }
- { name: SYFTMESH_RUNNER_MAX_UPDATE_BYTES, value: {{ include "datasite.bytes" .Values.federated.maxUpdate | quote }} }
- { name: SYFTMESH_RUNNER_MAX_NORM, value: {{ .Values.federated.maxNorm | quote }} }
- { name: SYFTMESH_RUNNER_MAX_METRICS, value: {{ .Values.federated.maxMetrics | int64 | quote }} }
{{- end }}
