{{/* Names: at most 63 characters, unique where they had to be cut. */}}

{{- define "id3pm.cut" -}}
{{- $most := .most | default 63 | int -}}
{{- if gt (len .name) $most -}}
{{- printf "%s-%s" (trunc (int (sub $most 9)) .name | trimSuffix "-") (sha256sum .name | trunc 8) -}}
{{- else -}}
{{- .name -}}
{{- end -}}
{{- end }}

{{- define "id3pm.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- include "id3pm.cut" (dict "name" (default $full .Values.fullnameOverride | replace "." "-")) -}}
{{- end }}

{{/*
Name of an object of a pool, or of another part: (list $ "pool name" "suffix"). At most 46 characters: Kubernetes adds up
to 17 for pods of a Deployment, the index for those of a Job, and cuts pods' names that are too long without a hash.
*/}}
{{- define "id3pm.name" -}}
{{- $parts := prepend (rest . | compact) (include "id3pm.fullname" (first .)) -}}
{{- include "id3pm.cut" (dict "name" (join "-" $parts) "most" 46) -}}
{{- end }}

{{- define "id3pm.commonSelector" -}}
app.kubernetes.io/name: {{ include "id3pm.cut" (dict "name" (default .Chart.Name .Values.nameOverride)) | quote }}
app.kubernetes.io/instance: {{ include "id3pm.cut" (dict "name" .Release.Name) | quote }}
{{- end }}

{{/* Labels by which a pool's pods are found: (dict "root" $ "pool" pool). */}}
{{- define "id3pm.selector" -}}
{{ include "id3pm.commonSelector" .root }}
app.kubernetes.io/component: serving
id3pm/pool: {{ .pool.name | quote }}
{{- end }}

{{- define "id3pm.labels" -}}
{{ include "id3pm.commonSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ include "id3pm.cut" (dict "name" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")) }}
{{- end }}

{{- define "id3pm.image" -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) .pool.image -}}
{{- if and .pool.image.tag (not .pool.image.digest) -}}
{{- $_ := set $image "digest" "" -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "id3pm.pullPolicy" -}}
{{- dig "pullPolicy" .root.Values.image.pullPolicy .pool.image -}}
{{- end }}

{{- define "id3pm.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
