{{/* Alerts of a pool. A pool that is meant to have no pods has none of the first. */}}
{{- define "id3pm.alerts" -}}
{{- $series := include "id3pm.series" . -}}
{{- $limits := .root.Values.prometheusRule -}}
{{- $pool := .pool.name -}}
{{- if or .pool.autoscaling.enabled (gt (int64 .pool.replicas) 0) }}
- alert: Id3pmNoPodReady
  expr: (sum(id3pm_gateway_up{ {{- $series -}} }) or vector(0)) == 0
  for: 2m
  labels: {severity: critical, pool: {{ $pool | quote }}}
  annotations:
    summary: No pod of pool {{ $pool }} takes requests.
{{- end }}
- alert: Id3pmPodNotReady
  expr: id3pm_gateway_up{ {{- $series -}} } == 0
  for: {{ int64 $limits.notReadyMinutes }}m
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `Pod {{ $labels.pod }} takes no requests.` }}'
    description: It is starting, draining, or its Triton is being replaced; its log says which.
- alert: Id3pmTritonRestarts
  expr: increase(id3pm_gateway_restarts_total{ {{- $series -}} }[15m]) > {{ $limits.restartsIn15Minutes }}
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `Triton in pod {{ $labels.pod }} was replaced {{ $value | printf "%.0f" }} times in 15 minutes.` }}'
    description: Every replacement is one line in the pod's log, with its reason.
# Needs kube-state-metrics: a container that was restarted counts its own restarts from 0.
- alert: Id3pmContainerRestarts
  expr: increase(kube_pod_container_status_restarts_total{namespace="{{ .root.Release.Namespace }}",container="id3pm",pod=~"{{ include "id3pm.name" (list .root $pool) }}-[a-z0-9]+-[a-z0-9]+"}[15m]) > {{ $limits.restartsIn15Minutes }}
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `Pod {{ $labels.pod }} was restarted {{ $value | printf "%.0f" }} times in 15 minutes.` }}'
- alert: Id3pmBacklog
  expr: {{ include "id3pm.backlog" . }} / sum(id3pm_gateway_up{ {{- $series -}} }) > {{ $limits.backlogSecondsPerPod }}
  for: 10m
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `Each ready pod has {{ $value | printf "%.0f" }} s of work in flight; at 120 s a stage refuses more.` }}'
- alert: Id3pmImagesFail
  expr: |-
    sum(rate(id3pm_requests_total{ {{- $series -}} ,outcome="failed"}[10m]))
      / sum(rate(id3pm_requests_total{ {{- $series -}} }[10m])) > {{ $limits.failedShare }}
  for: 5m
  labels: {severity: critical, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `{{ $value | humanizePercentage }}` }} of the requests of pool {{ $pool }} fail by a fault of the server.'
- alert: Id3pmRequestsRefused
  expr: |-
    sum(rate(id3pm_requests_total{ {{- $series -}} ,outcome="rejected"}[10m]))
      / sum(rate(id3pm_requests_total{ {{- $series -}} }[10m])) > {{ $limits.refusedShare }}
  for: 10m
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `{{ $value | humanizePercentage }}` }} of the requests of pool {{ $pool }} are refused, because its queues are full.'
- alert: Id3pmQueueIsSlow
  expr: histogram_quantile(0.95, sum by (le) (rate(id3pm_queue_seconds_bucket{ {{- $series -}} }[10m]))) > {{ $limits.queueP95Seconds }}
  for: 10m
  labels: {severity: warning, pool: {{ $pool | quote }}}
  annotations:
    summary: '{{ `One image in 20 waits more than {{ $value | printf "%.0f" }} s for its first step.` }}'
{{- end }}
