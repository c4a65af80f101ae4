{{/*
One definition of what every pod of the hub has. The context of a component is a dict:
  root        the chart's own context
  name        the component, e.g. "sync"; also the name of its values, its image and its certificate
  values      its values
  store       whether it uses the object store
  bus         whether it uses the message bus
  single      whether there is never more than one pod of it
  foreign     whether its program is not ours, so that another version of the chart alone does not replace its pods
  env, mounts, volumes, containers, initContainers, ports   further items, as text
*/}}

{{- define "syftmesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "syftmesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where pods run, and what the operator adds to each. */}}
{{- define "syftmesh.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .root.Values.spread }}
    labelSelector:
      matchLabels:
        {{- include "syftmesh.selector" . | nindent 8 }}
{{- end }}

{{- define "syftmesh.podMetadata" -}}
labels:
  {{- include (ternary "syftmesh.selector" "syftmesh.labels" (default false .foreign)) . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.podAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What a container of our images has: image, security, and the reason of its end in `kubectl describe`. */}}
{{- define "syftmesh.container" -}}
image: {{ include "syftmesh.image" (dict "root" .root "name" .image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "syftmesh.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* "live" serves while the process can answer at all; the empty name only while its upstreams are there, too. */}}
{{- define "syftmesh.probes" -}}
startupProbe:
  grpc: {port: 8086, service: live}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
readinessProbe:
  grpc: {port: 8086}
  periodSeconds: {{ ternary 1 3 (default false .single) }}
  timeoutSeconds: 5
livenessProbe:
  grpc: {port: 8086, service: live}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Settings of the message bus for the program whose variables begin with "prefix". */}}
{{- define "syftmesh.busEnv" -}}
{{- $root := .root -}}
- name: {{ .prefix }}_NATS_URL
  value: {{ include "syftmesh.natsUrl" $root }}
- name: {{ .prefix }}_NATS_USER
  value: {{ .name }}
- name: {{ .prefix }}_NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      {{- if $root.Values.nats.enabled }}
      name: {{ include "syftmesh.fullname" $root }}-nats-{{ .name }}
      key: password
      {{- else }}
      name: {{ $root.Values.nats.external.existingSecret }}
      key: {{ .name }}
      {{- end }}
{{- end }}

{{/* The same for the object store, without its keys. */}}
{{- define "syftmesh.storeAddressEnv" -}}
- name: {{ .prefix }}_S3_ENDPOINT
  value: {{ include "syftmesh.storeEndpoint" .root }}
{{- if include "syftmesh.storeAuthority" .root }}
- name: {{ .prefix }}_S3_CA_FILE
  value: /etc/syftmesh/store/ca.crt
{{- end }}
- name: {{ .prefix }}_S3_SIGNING_HOST
  value: {{ include "syftmesh.storeHost" .root }}
{{- end }}

{{- define "syftmesh.storeEnv" -}}
{{ include "syftmesh.storeAddressEnv" . }}
- name: {{ .prefix }}_S3_BUCKET
  value: {{ include "syftmesh.storeBucket" .root }}
- name: {{ .prefix }}_S3_REGION
  value: {{ include "syftmesh.storeRegion" .root }}
- name: {{ .prefix }}_S3_URL_BASE
  value: /objects
- name: {{ .prefix }}_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ include "syftmesh.storeSecret" .root }}, key: access-key}}
- name: {{ .prefix }}_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "syftmesh.storeSecret" .root }}, key: secret-key}}
{{- end }}

{{- define "syftmesh.tlsEnv" -}}
- name: {{ .prefix }}_TLS_CERT_FILE
  value: /etc/syftmesh/tls/tls.crt
- name: {{ .prefix }}_TLS_KEY_FILE
  value: /etc/syftmesh/tls/tls.key
- name: {{ .prefix }}_TLS_CA_FILE
  value: /etc/syftmesh/tls/ca.crt
{{- end }}

{{- define "syftmesh.env" -}}
{{- $prefix := printf "SYFTMESH_%s" (upper .name) -}}
{{- $part := dict "root" .root "name" .name "prefix" $prefix -}}
- name: HOME
  value: /tmp
- name: {{ $prefix }}_HEALTH_LISTEN
  value: 0.0.0.0:8086
- name: {{ $prefix }}_ISSUER
  value: https://{{ .root.Values.hub.host }}
- name: {{ $prefix }}_LOG_LEVEL
  value: {{ .root.Values.hub.logLevel }}
- name: {{ $prefix }}_DRAIN_S
  value: {{ .root.Values.hub.drainSeconds | quote }}
{{ include "syftmesh.tlsEnv" $part }}
{{- if .bus }}
- name: {{ $prefix }}_LISTEN
  value: 0.0.0.0:8081
- name: {{ $prefix }}_TLS_PEERS
  value: gateway
{{ include "syftmesh.busEnv" $part }}
{{- if and .root.Values.nats.enabled (gt (int .root.Values.nats.replicas) 1) }}
- name: {{ $prefix }}_NATS_REPLICAS
  value: {{ min 3 .root.Values.nats.replicas | quote }}
{{- end }}
{{- end }}
{{- if .store }}
{{ include "syftmesh.storeEnv" $part }}
{{- end }}
{{- with .env }}
{{ . }}
{{- end }}
{{- range $key, $value := .values.settings }}
- name: {{ $prefix }}_{{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "syftmesh.mounts" -}}
- name: tls
  mountPath: /etc/syftmesh/tls
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if and (or .store .storeAddress) (include "syftmesh.storeAuthority" .root) }}
- name: store-ca
  mountPath: /etc/syftmesh/store
  readOnly: true
{{- end }}
{{- with .mounts }}
{{ . }}
{{- end }}
{{- end }}

{{- define "syftmesh.tlsVolume" -}}
name: {{ .volume | default "tls" }}
secret:
  secretName: {{ include "syftmesh.fullname" .root }}-tls-{{ .name }}
  defaultMode: 0440
  items:
    - {key: tls.crt, path: tls.crt}
    - {key: tls.key, path: tls.key}
    - {key: ca.crt, path: ca.crt}
{{- end }}

{{- define "syftmesh.storeAuthorityVolume" -}}
name: store-ca
secret:
  secretName: {{ include "syftmesh.storeAuthority" . }}
  defaultMode: 0440
  items:
    - {key: ca.crt, path: ca.crt}
{{- end }}

{{- define "syftmesh.volumes" -}}
- {{ include "syftmesh.tlsVolume" (dict "root" .root "name" .name) | nindent 2 | trim }}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if and (or .store .storeAddress) (include "syftmesh.storeAuthority" .root) }}
- {{ include "syftmesh.storeAuthorityVolume" .root | nindent 2 | trim }}
{{- end }}
{{- with .volumes }}
{{ . }}
{{- end }}
{{- end }}

{{- define "syftmesh.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .root.Values.hub.drainSeconds 15 }}
securityContext:
  {{- include "syftmesh.podSecurity" . | nindent 2 }}
{{ include "syftmesh.scheduling" . }}
{{- with .initContainers }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    {{- include "syftmesh.container" (dict "root" .root "image" .name) | nindent 4 }}
    ports:
      - {name: health, containerPort: 8086}
      {{- if .bus }}
      - {name: grpc, containerPort: 8081}
      {{- end }}
      {{- with .ports }}
      {{- . | nindent 6 }}
      {{- end }}
    env:
      {{- include "syftmesh.env" . | nindent 6 }}
    {{- include "syftmesh.probes" . | nindent 4 }}
    {{- if not .single }}
    # Until nobody is sent here any more; where there is no other pod to be sent to, waiting would only be longer.
    lifecycle:
      preStop:
        sleep: {seconds: 5}
    {{- end }}
    resources:
      {{- toYaml .values.resources | nindent 6 }}
    volumeMounts:
      {{- include "syftmesh.mounts" . | nindent 6 }}
  {{- with .containers }}
  {{- . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "syftmesh.volumes" . | nindent 2 }}
{{- end }}

{{- define "syftmesh.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "syftmesh.metadata" . | nindent 2 }}
spec:
  {{- if not .values.autoscaling.enabled }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "syftmesh.selector" . | nindent 6 }}
  template:
    metadata:
      {{- include "syftmesh.podMetadata" . | nindent 6 }}
    spec:
      {{- include "syftmesh.pod" . | nindent 6 }}
{{ include "syftmesh.scaling" . }}
{{- end }}

{{- define "syftmesh.scaling" -}}
{{- $scaled := .values.autoscaling }}
{{- if $scaled.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "syftmesh.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "syftmesh.fullname" .root }}-{{ .name }}
  minReplicas: {{ $scaled.minReplicas }}
  maxReplicas: {{ $scaled.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $scaled.targetCpuPercent }}}
{{- end }}
{{- if gt (int (ternary $scaled.minReplicas .values.replicas $scaled.enabled)) 1 }}
---
{{ include "syftmesh.budget" . }}
{{- end }}
{{- end }}

{{- define "syftmesh.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "syftmesh.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "syftmesh.selector" . | nindent 6 }}
{{- end }}

{{- define "syftmesh.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "syftmesh.metadata" . | nindent 2 }}
spec:
  {{- if .single }}
  # Found as soon as it listens: until it is ready it says so itself, and there is no other to go to.
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "syftmesh.selector" . | nindent 4 }}
  ports:
    {{- if .bus }}
    - {name: grpc, port: 8081, targetPort: grpc}
    {{- end }}
    {{- with .servicePorts }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* A claim of storage for a StatefulSet. */}}
{{- define "syftmesh.claim" -}}
metadata:
  name: {{ .claim }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storage.className }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage.size }}
{{- end }}

