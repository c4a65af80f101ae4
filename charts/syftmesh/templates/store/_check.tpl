{{/* The check of the object store as a container; "name" is the container's, "once" takes a store that passed before. */}}
{{- define "syftmesh.storeCheck" -}}
- name: {{ .name }}
  {{- include "syftmesh.container" (dict "root" .root "image" "tools") | nindent 2 }}
  command: [python, -m, syftmesh_cluster.storage_check]
  env:
    - {name: HOME, value: /tmp}
    - {name: SYFTMESH_WAIT_S, value: {{ .root.Values.storageCheck.waitSeconds | quote }}}
    {{- if .once }}
    - {name: SYFTMESH_ONCE, value: "true"}
    {{- end }}
    {{- include "syftmesh.storeEnv" (dict "root" .root "prefix" "SYFTMESH") | nindent 4 }}
  resources:
    {{- toYaml .root.Values.tools.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- if include "syftmesh.storeAuthority" .root }}
    - {name: store-ca, mountPath: /etc/syftmesh/store, readOnly: true}
    {{- end }}
{{- end }}

{{/* Sync does not start on a store that fails the check; without sync nobody is handed a request to the store. */}}
{{- define "syftmesh.storeWait" -}}
{{- if .Values.storageCheck.enabled -}}
{{ include "syftmesh.storeCheck" (dict "root" . "name" "storage-check" "once" true) }}
{{- end -}}
{{- end }}
