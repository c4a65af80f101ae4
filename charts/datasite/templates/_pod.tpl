{{/* What every pod of the chart has, so that the Pod Security level `restricted` takes it. */}}
{{- define "datasite.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "datasite.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a pod runs. */}}
{{- define "datasite.placement" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Head of a container. Call with (dict "root" $ "name" NAME "image" IMAGE). */}}
{{- define "datasite.container" -}}
name: {{ .name }}
image: {{ include "datasite.image" (dict "root" .root "name" .image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- /* The last line of a program that ended says why and what to do; `kubectl describe pod` shows it. */}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "datasite.containerSecurity" . | nindent 2 }}
{{- end }}

{{/*
Probes of a program that serves gRPC health on a port of its own. `live` is served from the first moment to the last: a
hub that is away makes a site not ready, and no restart would bring the hub back.
*/}}
{{- define "datasite.probes" -}}
startupProbe:
  grpc: { port: {{ . }}, service: live }
  periodSeconds: 1
  failureThreshold: 120
readinessProbe:
  grpc: { port: {{ . }} }
  periodSeconds: 2
  timeoutSeconds: 2
livenessProbe:
  grpc: { port: {{ . }}, service: live }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Volume and mount of the hub's authority. */}}
{{- define "datasite.caVolume" -}}
{{- if .Values.hub.caSecret.name -}}
- name: hub-ca
  secret:
    secretName: {{ .Values.hub.caSecret.name }}
    items: [{ key: {{ .Values.hub.caSecret.key | quote }}, path: ca.crt }]
{{- else if include "datasite.hasCa" . -}}
- name: hub-ca
  configMap:
    name: {{ default (printf "%s-hub-ca" (include "datasite.fullname" .)) .Values.hub.caConfigMap.name }}
    items: [{ key: {{ ternary .Values.hub.caConfigMap.key "ca.crt" (ne .Values.hub.caConfigMap.name "") | quote }}, path: ca.crt }]
{{- end }}
{{- end }}

{{- define "datasite.caMount" -}}
{{- if include "datasite.hasCa" . -}}
- { name: hub-ca, mountPath: /etc/syftmesh/hub, readOnly: true }
{{- end }}
{{- end }}
