{{/* Parts of a pod that Deployment, Job and ServingRuntime share; each takes (dict "root" $ "pool" pool). */}}

{{- define "id3pm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "id3pm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "id3pm.resources" -}}
{{- $resources := deepCopy .pool.resources -}}
{{- if gt (int64 .pool.gpu.count) 0 -}}
{{- $_ := set $resources "limits" (merge (dict .pool.gpu.resource (int64 .pool.gpu.count)) (default dict $resources.limits)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{- define "id3pm.scheduling" -}}
{{- with .pool.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "id3pm.podPlacement" -}}
{{- include "id3pm.scheduling" . }}
{{- with .pool.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .pool.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Arguments of `id3pm serve`; "repository" is the model repository. */}}
{{- define "id3pm.serveArguments" -}}
{{- $serve := .root.Values.serve -}}
- --repository={{ .repository }}
- "--host={{ $serve.host }}"
- --accept={{ $serve.accept }}
- --max-body={{ $serve.maxBodyMiB }}
- --max-bodies={{ $serve.maxBodiesMiB }}
- --start-timeout={{ int64 $serve.startTimeoutSeconds }}
- --drain-timeout={{ int64 $serve.drainTimeoutSeconds }}
{{- if .root.Values.tokens.secret }}
- --tokens=/secrets/tokens/{{ .root.Values.tokens.key }}
{{- else }}
- --insecure
{{- end }}
{{- if .root.Values.tls.secret }}
- --tls-certificate=/secrets/tls/tls.crt
- --tls-key=/secrets/tls/tls.key
{{- end }}
{{- range $serve.allowOrigins }}
- {{ printf "--allow-origin=%s" . | quote }}
{{- end }}
{{- with $serve.traceUrl }}
- {{ printf "--trace-url=%s" . | quote }}
{{- end }}
{{- if $serve.accessLog }}
- --access-log=-
{{- end }}
{{- if $serve.verbose }}
- --verbose
{{- end }}
{{- with .pool.threads }}
- --threads={{ . }}
{{- end }}
{{- end }}

{{/* Startup lasts until the engines are loaded; `id3pm serve` gives up by itself after startTimeoutSeconds. */}}
{{- define "id3pm.probes" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (ne .root.Values.tls.secret "") -}}
startupProbe:
  httpGet: {path: /v2/health/ready, port: http, scheme: {{ $scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ add (div (int64 .root.Values.serve.startTimeoutSeconds) 5) 12 }}
readinessProbe:
  httpGet: {path: /v2/health/ready, port: http, scheme: {{ $scheme }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /v2/health/live, port: http, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}

{{/* The container of the service, without its engines: name, image and what does not depend on who starts it. */}}
{{- define "id3pm.container" -}}
image: {{ include "id3pm.image" . | quote }}
imagePullPolicy: {{ include "id3pm.pullPolicy" . }}
args:
  - serve
  {{- include "id3pm.serveArguments" . | nindent 2 }}
env:
  - {name: HOME, value: /tmp}
ports:
  - {name: {{ .httpPort | default "http" }}, containerPort: 8000}
  - {name: {{ .grpcPort | default "grpc" }}, containerPort: 8001}
  - {name: metrics, containerPort: 8002}
resources:
  {{- include "id3pm.resources" . | nindent 2 }}
securityContext:
  {{- include "id3pm.containerSecurity" . | nindent 2 }}
lifecycle:
  preStop:
    sleep: {seconds: {{ int64 .root.Values.shutdown.preStopSeconds }}}
{{- end }}

{{- define "id3pm.commonMounts" -}}
- {name: shm, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "id3pm.commonVolumes" -}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .pool.sharedMemory }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end }}

{{- define "id3pm.secretMounts" -}}
{{- if .Values.tokens.secret }}
- {name: tokens, mountPath: /secrets/tokens, readOnly: true}
{{- end }}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /secrets/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "id3pm.secretVolumes" -}}
{{- with .Values.tokens }}
{{- if .secret }}
- name: tokens
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 288 # 0440
    items:
      - {key: {{ .key | quote }}, path: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- with .Values.tls.secret }}
- name: tls
  secret: {secretName: {{ . | quote }}, defaultMode: 288}
{{- end }}
{{- end }}
