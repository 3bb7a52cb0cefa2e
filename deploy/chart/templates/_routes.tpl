{{/* Backends of a route: (list $ backends port). */}}
{{- define "id3pm.backends" -}}
{{- $root := index . 0 -}}
{{- $port := index . 2 -}}
{{- range index . 1 }}
- name: {{ include "id3pm.name" (list $root .name) | quote }}
  port: {{ $port }}
  weight: {{ int64 .weight }}
{{- end }}
{{- end }}

{{/* Gateway and hostnames of one protocol of a route: (list $ protocol), where protocol is route.http or route.grpc. */}}
{{- define "id3pm.routeHead" -}}
{{- $protocol := last . -}}
parentRefs:
  {{- toYaml (default (first .).Values.gateway.parentRefs $protocol.parentRefs) | nindent 2 }}
hostnames:
  {{- toYaml $protocol.hostnames | nindent 2 }}
{{- end }}

{{/* The header by which a caller picks a pool: (list header pool). */}}
{{- define "id3pm.pinned" -}}
headers:
  - {type: Exact, name: {{ first . | quote }}, value: {{ last . | quote }}}
{{- end }}

{{/* A Gateway takes no HTTPRoute and GRPCRoute of one hostname on one listener, so it would ignore the younger one. */}}
{{- define "id3pm.checkHostnames" -}}
{{- $root := first . -}}
{{- $route := last . -}}
{{- range $kind := list "http" "grpc" -}}
{{- with get $route $kind -}}
{{- if not (or .parentRefs $root.Values.gateway.parentRefs) -}}
{{- fail (printf "route %s: %s needs parentRefs, or gateway.parentRefs: the Gateway that it belongs to" $route.name $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $route.http $route.grpc -}}
{{- $parents := $root.Values.gateway.parentRefs -}}
{{- if eq (default $parents $route.http.parentRefs | toJson) (default $parents $route.grpc.parentRefs | toJson) -}}
{{- range $route.http.hostnames -}}
{{- if has . $route.grpc.hostnames -}}
{{- fail (printf "route %s: %s is a hostname of both http and grpc on one listener, of which a Gateway takes only one: give another hostname, or parentRefs with another sectionName" $route.name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
