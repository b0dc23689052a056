{{/*
The release's name for its objects: "edgecloud", or "x-edgecloud" for a release that doesn't have it in its name. A
Service's name has no dot and begins with a letter, a release's need not: "a.b" is "a-b-edgecloud", "7" "edgecloud-7".
It has at most 50 characters, for more follow.
*/}}
{{- define "edgecloud.name" -}}
{{- $release := .Release.Name | replace "." "-" }}
{{- $chart := include "edgecloud.chart" . }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if regexMatch "^[0-9]" $release }}{{ printf "%s-%s" $chart $release | trunc 50 | trimSuffix "-" }}
{{- else if contains $chart $release }}{{ $release | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" ($release | trunc (int (sub 49 (len $chart))) | trimSuffix "-") $chart }}{{ end }}
{{- end }}

{{- define "edgecloud.chart" -}}
{{- .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/* What the Deployment and the Service select by; never to change. */}}
{{- define "edgecloud.selector" -}}
app.kubernetes.io/name: {{ include "edgecloud.chart" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "edgecloud.labels" -}}
{{ include "edgecloud.selector" . }}
app.kubernetes.io/version: {{ .Chart.Version | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with include "edgecloud.commonLabels" . }}
{{ . }}
{{- end }}
{{- end }}

{{/* What the user has every object bear, without what it bears anyway. */}}
{{- define "edgecloud.commonLabels" -}}
{{- $common := .Values.commonLabels | default dict }}
{{- range list "name" "instance" "component" "version" "managed-by" }}
{{- $common = omit $common (printf "app.kubernetes.io/%s" .) }}
{{- end }}
{{- with omit $common "helm.sh/chart" }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "edgecloud.serviceAccount" -}}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) }}
{{- fail "serviceAccount.name: name the ServiceAccount to use, or let serviceAccount.create be true" }}
{{- end }}
{{- .Values.serviceAccount.name | default (include "edgecloud.name" .) }}
{{- end }}

{{/* An image's full name from {repository, tag, digest}: list $ .Values.image */}}
{{- define "edgecloud.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- $name := list $root.Values.registry $image.repository | compact | join "/" }}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}
{{- else }}{{ $name }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The same on one line, as the API takes a selector. */}}
{{- define "edgecloud.podSelector" -}}
app.kubernetes.io/name={{ include "edgecloud.chart" . }},app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=operator
{{- end }}

{{- define "edgecloud.tlsSecret" -}}
{{- .Values.tls.secretName | default (printf "%s-coordinator-%s" (include "edgecloud.name" .) (ternary "ca" "tls" (eq .Values.tls.mode "secret"))) }}
{{- end }}

{{- define "edgecloud.coordinatorAddress" -}}
{{- $scheme := ternary "http" "https" (eq .Values.tls.mode "off") }}
{{- with .Values.coordinator.address }}
{{- if not (hasPrefix (printf "%s://" $scheme) .) }}
{{- fail (printf "coordinator.address: %s does not go with tls.mode: %s; begin it with %s://, or set tls.mode to %s" . $.Values.tls.mode $scheme (ternary "secret, certManager or existing" "off" (eq $scheme "http"))) }}
{{- end }}
{{- end }}
{{- .Values.coordinator.address | default (printf "%s://%s-coordinator.%s.svc:%d" $scheme (include "edgecloud.name" .) .Release.Namespace (int .Values.coordinator.port)) }}
{{- end }}

{{/* What the operator does in its own namespace: the election, the sign for the Service, the certificate authority. */}}
{{- define "edgecloud.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "edgecloud.name" . }}]
  verbs: [get, update]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
{{- if eq .Values.tls.mode "secret" }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "edgecloud.tlsSecret" . | quote }}]
  verbs: [get, update]
{{- end }}
{{- end }}

{{/* What the operator does with jobs, and no more. */}}
{{- define "edgecloud.rules" -}}
- apiGroups: [edgecloud.io]
  resources: [trainingjobs]
  verbs: [list, watch, delete]
- apiGroups: [edgecloud.io]
  resources: [trainingjobs/status]
  verbs: [update]
# Children name their job as an owner that waits for them, which clusters with owner reference checks ask this for.
- apiGroups: [edgecloud.io]
  resources: [trainingjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end }}
