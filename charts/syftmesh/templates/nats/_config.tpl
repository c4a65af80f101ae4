{{- define "syftmesh.nats.tls" -}}
tls {
  cert_file: /etc/syftmesh/tls/tls.crt
  key_file: /etc/syftmesh/tls/tls.key
  ca_file: /etc/syftmesh/tls/ca.crt
  verify: true
  timeout: 5
}
{{- end }}

{{/* Configuration of nats-server. Files are included by names relative to it: all lie in one folder. */}}
{{- define "syftmesh.nats.config" -}}
{{- $full := include "syftmesh.fullname" . -}}
{{- $domain := printf "%s-nats-pods.%s.svc.%s" $full .Release.Namespace .Values.clusterDomain -}}
server_name: $POD_NAME
port: 4222
http_port: 8222
pid_file: /tmp/nats.pid
max_payload: 1MB
lame_duck_grace_period: 2s
lame_duck_duration: 30s

# Nothing is acknowledged before it is on disk.
jetstream {
  store_dir: /data/jetstream
  sync_interval: always
  max_file_store: {{ .Values.nats.maxFileStore }}
  max_memory_store: 16MB
}

{{ include "syftmesh.nats.tls" . }}

include ./users.conf
{{- if gt (int .Values.nats.replicas) 1 }}

cluster {
  name: {{ $full }}
  port: 6222
  {{- include "syftmesh.nats.tls" . | nindent 2 }}
  routes: [
    {{- range $index := until (int .Values.nats.replicas) }}
    nats://{{ $full }}-nats-{{ $index }}.{{ $domain }}:6222
    {{- end }}
  ]
}
{{- end }}
{{- end }}

{{/* The monitoring port of every server, separated by commas. */}}
{{- define "syftmesh.natsMonitors" -}}
{{- $full := include "syftmesh.fullname" . -}}
{{- $urls := list -}}
{{- range $index := until (int .Values.nats.replicas) -}}
{{- $urls = append $urls (printf "http://%s-nats-%d.%s-nats-pods:8222" $full $index $full) -}}
{{- end -}}
{{ join "," $urls }}
{{- end }}
