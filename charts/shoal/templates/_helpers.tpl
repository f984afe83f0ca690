{{- /* There is one Shoal in a cluster, so names do not come from the release: a second one is refused by Helm. */}}
{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/component: operator
{{- end }}

{{- define "shoal.labels" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A policy of Shoal's own refuses to let its kinds be deleted, unless they say that it is wanted. */}}
{{- define "shoal.crdAnnotations" -}}
{{- if .Values.crds.keep -}}
helm.sh/resource-policy: keep
{{- else -}}
shoal.storage/allow-deletion: crds.keep is false
{{- end }}
{{- end }}

{{- /* Beside the kinds that stay they go on guarding what is locked. */}}
{{- define "shoal.policyAnnotations" -}}
{{- if .Values.crds.keep -}}
helm.sh/resource-policy: keep
{{- else -}}
{}
{{- end }}
{{- end }}

{{- define "shoal.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .repository -}}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* Of what belongs to the test. Helm makes the Pod after all other kinds. */}}
{{- define "shoal.test" -}}
labels:
  {{- include "shoal.labels" . | nindent 2 }}
annotations:
  helm.sh/hook: test
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- /* A container that runs kubectl, of the root context and its arguments. */}}
{{- define "shoal.testStep" -}}
{{- $values := (first .).Values -}}
image: {{ $values.test.image }}
args: {{ toJson (last .) }}
env:
  - name: KUBECACHEDIR
    value: /cache
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
volumeMounts:
  - name: test
    mountPath: /test
    readOnly: true
  - name: cache
    mountPath: /cache
{{- end }}
