{{/* The document that says what the bootstrap Job makes; see syftmesh_cluster.plan. */}}
{{- define "syftmesh.plan" -}}
{{- $full := include "syftmesh.fullname" . -}}
{{- $plan := dict "days" (int .Values.certificates.days) "signing_key" (dict "secret" (printf "%s-signing-key" $full)) -}}
{{- if not .Values.certificates.certManager.enabled -}}
{{- $leaves := list -}}
{{- range $name := include "syftmesh.certified" . | fromJsonArray -}}
{{- $names := include "syftmesh.names" (dict "root" $ "name" $name) | fromJsonArray -}}
{{- $leaves = append $leaves (dict "secret" (printf "%s-tls-%s" $full $name) "names" $names) -}}
{{- end -}}
{{- if not .Values.tls.existingSecret -}}
{{- $names := include "syftmesh.hubNames" . | fromJsonArray -}}
{{- $leaves = append $leaves (dict "secret" (include "syftmesh.hubSecret" .) "names" $names "client" false) -}}
{{- end -}}
{{- $_ := set $plan "ca" (dict "secret" (include "syftmesh.authoritySecret" .)) -}}
{{- $_ := set $plan "leaves" $leaves -}}
{{- end -}}
{{- if .Values.nats.enabled -}}
{{- $users := dict -}}
{{- range $name := include "syftmesh.busUsers" . | fromJsonArray -}}
{{- $_ := set $users $name (printf "%s-nats-%s" $full $name) -}}
{{- end -}}
{{- $_ := set $plan "nats" (dict "secret" (printf "%s-nats-server" $full) "users" $users) -}}
{{- end -}}
{{- if .Values.objectStore.enabled -}}
{{- $_ := set $plan "store" (dict "secret" (printf "%s-store" $full)) -}}
{{- end -}}
{{ $plan | toJson }}
{{- end }}

{{/* The Secrets that the Job reads and fills, as a JSON list. */}}
{{- define "syftmesh.filledSecrets" -}}
{{- $plan := include "syftmesh.plan" . | fromJson -}}
{{- $names := list $plan.signing_key.secret -}}
{{- with $plan.ca }}{{ $names = append $names .secret }}{{ end -}}
{{- range $plan.leaves }}{{ $names = append $names .secret }}{{ end -}}
{{- with $plan.nats }}{{ $names = concat $names (values .users | sortAlpha) (list .secret) }}{{ end -}}
{{- with $plan.store }}{{ $names = append $names .secret }}{{ end -}}
{{ $names | toJson }}
{{- end }}
