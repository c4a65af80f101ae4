{{/* Names, labels and addresses. "root" is the chart's own context, "name" a component. */}}

{{- define "syftmesh.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- define "syftmesh.selector" -}}
app.kubernetes.io/name: syftmesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "syftmesh.labels" -}}
{{ include "syftmesh.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: syftmesh
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "syftmesh.metadata" -}}
name: {{ include "syftmesh.fullname" .root }}-{{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "syftmesh.labels" . | nindent 2 }}
{{- end }}

{{- define "syftmesh.image" -}}
{{ .root.Values.image.registry }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Every name under which a component is called inside of the cluster, as a JSON list. */}}
{{- define "syftmesh.names" -}}
{{- $service := printf "%s-%s" (include "syftmesh.fullname" .root) .name -}}
{{- $ns := .root.Release.Namespace -}}
{{- $names := list .name $service (printf "%s.%s" $service $ns) (printf "%s.%s.svc" $service $ns) -}}
{{- $names = append $names (printf "%s.%s.svc.%s" $service $ns .root.Values.clusterDomain) -}}
{{- if eq .name "nats" -}}
{{- $names = append $names (printf "*.%s-pods.%s.svc.%s" $service $ns .root.Values.clusterDomain) -}}
{{- end -}}
{{ append $names "localhost" | toJson }}
{{- end }}

{{/* Every name under which the hub is called by clients, as a JSON list. */}}
{{- define "syftmesh.hubNames" -}}
{{- $own := include "syftmesh.names" (dict "root" . "name" "gateway") | fromJsonArray -}}
{{- concat (list .Values.hub.host) .Values.hub.extraHosts (without $own "gateway") (list "127.0.0.1") | uniq | toJson -}}
{{- end }}

{{/* The components that have a certificate of the hub's own authority, as a JSON list. */}}
{{- define "syftmesh.certified" -}}
{{- $names := list "identity" "sync" "permissions" "crypto" "router" "superlink" "gateway" "tools" -}}
{{- if .Values.nats.enabled }}{{ $names = append $names "nats" }}{{ end -}}
{{- if .Values.objectStore.enabled }}{{ $names = append $names "store" }}{{ end -}}
{{ $names | toJson }}
{{- end }}

{{/* The components that have a user at the message bus, as a JSON list. */}}
{{- define "syftmesh.busUsers" -}}
["identity","sync","permissions","crypto","router","superlink","tools"]
{{- end }}

{{- define "syftmesh.authoritySecret" -}}
{{ .Values.certificates.authoritySecret | default (printf "%s-ca" (include "syftmesh.fullname" .)) }}
{{- end }}

{{- define "syftmesh.hubSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-hub-tls" (include "syftmesh.fullname" .)) }}
{{- end }}

{{/* Whether clients need a file to verify the hub's public certificate: "yes" or nothing. */}}
{{- define "syftmesh.hubHasAuthority" -}}
{{- if .Values.tls.existingSecret -}}
{{- if .Values.tls.privateAuthority }}yes{{ end -}}
{{- else if not .Values.certificates.certManager.publicIssuer.name -}}yes{{ end -}}
{{- end }}

{{- define "syftmesh.natsUrl" -}}
{{- if .Values.nats.enabled }}tls://{{ include "syftmesh.fullname" . }}-nats:4222{{ else }}{{ .Values.nats.external.url }}{{ end -}}
{{- end }}

{{- define "syftmesh.storeEndpoint" -}}
{{- if .Values.objectStore.enabled }}https://{{ include "syftmesh.fullname" . }}-store:9000{{ else }}{{ .Values.objectStore.external.endpoint }}{{ end -}}
{{- end }}

{{- define "syftmesh.storeHost" -}}
{{ (urlParse (include "syftmesh.storeEndpoint" .)).host }}
{{- end }}

{{- define "syftmesh.storeSecret" -}}
{{- if .Values.objectStore.enabled }}{{ include "syftmesh.fullname" . }}-store{{ else }}{{ .Values.objectStore.external.existingSecret }}{{ end -}}
{{- end }}

{{/* The Secret whose ca.crt verifies the store; nothing: the system's authorities do. */}}
{{- define "syftmesh.storeAuthority" -}}
{{- if .Values.objectStore.enabled }}{{ include "syftmesh.fullname" . }}-tls-tools{{ else }}{{ .Values.objectStore.external.caSecret }}{{ end -}}
{{- end }}

{{- define "syftmesh.storeBucket" -}}
{{- if .Values.objectStore.enabled }}syftmesh{{ else }}{{ .Values.objectStore.external.bucket }}{{ end -}}
{{- end }}

{{- define "syftmesh.storeRegion" -}}
{{- if .Values.objectStore.enabled }}us-east-1{{ else }}{{ .Values.objectStore.external.region }}{{ end -}}
{{- end }}

{{/* Options that contradict one another; what a schema can say of one option stands in values.schema.json. */}}
{{- define "syftmesh.check" -}}
{{- $manager := .Values.certificates.certManager -}}
{{- if gt (len (include "syftmesh.fullname" .)) 40 -}}
{{- fail "The release's name has more than 40 characters. Choose a shorter one, or set fullnameOverride." -}}
{{- end -}}
{{- if and .Values.certificates.authoritySecret $manager.enabled -}}
{{- fail "certificates.authoritySecret and certificates.certManager.enabled both say who signs. Set one of them." -}}
{{- end -}}
{{- if and (or $manager.issuer.name $manager.publicIssuer.name) (not $manager.enabled) -}}
{{- fail "certificates.certManager names an issuer, but certificates.certManager.enabled is false. Set it to true." -}}
{{- end -}}
{{- if and .Values.tls.existingSecret $manager.publicIssuer.name -}}
{{- fail "tls.existingSecret and certificates.certManager.publicIssuer both give the public certificate. Set one of them." -}}
{{- end -}}
{{- if and .Values.tls.privateAuthority (not .Values.tls.existingSecret) -}}
{{- fail "tls.privateAuthority is said of a Secret, but tls.existingSecret names none. Name it." -}}
{{- end -}}
{{- if and .Values.service.nodePort (eq .Values.service.type "ClusterIP") -}}
{{- fail "service.nodePort needs service.type NodePort or LoadBalancer." -}}
{{- end -}}
{{- if and (eq .Values.service.externalTrafficPolicy "Local") (eq .Values.service.type "ClusterIP") -}}
{{- fail "service.externalTrafficPolicy needs service.type NodePort or LoadBalancer." -}}
{{- end -}}
{{- if not .Values.nats.enabled -}}
{{- if not (and .Values.nats.external.url .Values.nats.external.existingSecret) -}}
{{- fail "nats.enabled is false: nats.external.url and nats.external.existingSecret must say where the message bus is and how to log in." -}}
{{- end -}}
{{- if not (or .Values.certificates.authoritySecret $manager.issuer.name) -}}
{{- fail "nats.enabled is false: the bus must know the hub's authority. Name it in certificates.authoritySecret or certificates.certManager.issuer." -}}
{{- end -}}
{{- else if .Values.nats.external.url -}}
{{- fail "nats.external.url is set, but nats.enabled is true. Set nats.enabled to false to use it." -}}
{{- end -}}
{{- if not .Values.objectStore.enabled -}}
{{- if not (and .Values.objectStore.external.endpoint .Values.objectStore.external.existingSecret) -}}
{{- fail "objectStore.enabled is false: objectStore.external.endpoint and objectStore.external.existingSecret must say where the store is and its keys." -}}
{{- end -}}
{{- else if .Values.objectStore.external.endpoint -}}
{{- fail "objectStore.external.endpoint is set, but objectStore.enabled is true. Set objectStore.enabled to false to use it." -}}
{{- end -}}
{{- include "syftmesh.checkLogin" . -}}
{{- range $name := list "identity" "sync" "permissions" "crypto" "router" "gateway" -}}
{{- $scaled := (index $.Values $name).autoscaling -}}
{{- if and $scaled.enabled (gt (int $scaled.minReplicas) (int $scaled.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas is greater than maxReplicas." $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The same for the ways of logging in. */}}
{{- define "syftmesh.checkLogin" -}}
{{- $mail := .Values.identity.mail -}}
{{- if $mail.host -}}
{{- if not $mail.from -}}
{{- fail "identity.mail.host is set: identity.mail.from must say which address codes come from." -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not $mail.cidrs) -}}
{{- fail "identity.mail.host is set: identity.mail.cidrs must say where it is, or the network policy keeps identity from it." -}}
{{- end -}}
{{- else if or $mail.from $mail.existingSecret $mail.caSecret $mail.cidrs -}}
{{- fail "identity.mail says how mails are sent, but identity.mail.host names no server. Name it." -}}
{{- end -}}
{{- $providers := .Values.identity.providers -}}
{{- range $given := $providers.list -}}
{{- if not (or $given.public $providers.existingSecret) -}}
{{- fail (printf "identity.providers.list: the hub needs a secret at %s. Name its Secret in identity.providers.existingSecret, or say `public: true`." $given.name) -}}
{{- end -}}
{{- end -}}
{{- if $providers.list -}}
{{- if and .Values.networkPolicy.enabled (not $providers.cidrs) -}}
{{- fail "identity.providers.list is set: identity.providers.cidrs must say where they are, or the network policy keeps identity from them." -}}
{{- end -}}
{{- else if or $providers.existingSecret $providers.caSecret $providers.cidrs -}}
{{- fail "identity.providers says how providers are asked, but identity.providers.list names none. Name one." -}}
{{- end -}}
{{- end }}
