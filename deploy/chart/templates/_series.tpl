{{/* Label matchers of a pool's pods in Prometheus: the operator names namespace and service of every target. */}}
{{- define "id3pm.series" -}}
namespace="{{ .root.Release.Namespace }}",service="{{ include "id3pm.name" (list .root .pool.name "pods") }}"
{{- end }}

{{/* Seconds of work in flight in all pods of a pool, in both stages. */}}
{{- define "id3pm.backlog" -}}
sum(id3pm_backlog_seconds{ {{- include "id3pm.series" . -}} })
{{- end }}
