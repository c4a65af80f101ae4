{{/*
One allowed flow between two components: a rule at either end, with its reason.
  root, name (unique), from, to (lists of components), ports, reason
*/}}
{{- define "syftmesh.flow" -}}
{{- $labels := dict "app.kubernetes.io/name" "syftmesh" "app.kubernetes.io/instance" .root.Release.Name -}}
{{- $from := dict "matchLabels" $labels "matchExpressions" (list (dict "key" "app.kubernetes.io/component" "operator" "In" "values" .from)) -}}
{{- $to := dict "matchLabels" $labels "matchExpressions" (list (dict "key" "app.kubernetes.io/component" "operator" "In" "values" .to)) -}}
{{- $ports := list -}}
{{- range .ports }}{{ $ports = append $ports (dict "protocol" "TCP" "port" .) }}{{ end -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "syftmesh.policyMetadata" (dict "root" .root "name" (printf "%s-in" .name) "reason" .reason) | nindent 2 }}
spec:
  podSelector: {{ $to | toJson }}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {{ $from | toJson }}}]
      ports: {{ $ports | toJson }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "syftmesh.policyMetadata" (dict "root" .root "name" (printf "%s-out" .name) "reason" .reason) | nindent 2 }}
spec:
  podSelector: {{ $from | toJson }}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {{ $to | toJson }}}]
      ports: {{ $ports | toJson }}
{{- end }}

{{/* One allowed flow to addresses outside of the release: root, name, from, cidrs, ports, reason. */}}
{{- define "syftmesh.outside" -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "syftmesh.policyMetadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: syftmesh
      app.kubernetes.io/instance: {{ .root.Release.Name }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ .from | toJson }}}
  policyTypes: [Egress]
  egress:
    - to:
        {{- range .cidrs }}
        - ipBlock: {cidr: {{ . | quote }}}
        {{- end }}
      ports:
        {{- range .ports }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
{{- end }}

{{- define "syftmesh.policyMetadata" -}}
name: {{ include "syftmesh.fullname" .root }}-{{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  app.kubernetes.io/name: syftmesh
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
annotations:
  syftmesh.org/reason: {{ .reason | quote }}
{{- end }}
