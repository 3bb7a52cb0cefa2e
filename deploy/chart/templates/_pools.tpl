{{/* Pools with their defaults, and what the schema cannot check: rules between values.

(list $ out) sets out.pools, a list; every template that renders for a pool begins with it, so that no rule is passed by.
*/}}

{{- define "id3pm.pools" -}}
{{- $root := first . -}}
{{- $out := last . -}}
{{- $pools := list -}}
{{- range $root.Values.pools -}}
{{- $pool := mergeOverwrite (deepCopy $root.Values.defaults) . -}}
{{- $pools = append $pools (set $pool "engineSet" (default $pool.name $pool.engineSet)) -}}
{{- end -}}
{{- $_ := set $out "pools" $pools -}}
{{- include "id3pm.checks" (list $root $pools) -}}
{{- end }}

{{- define "id3pm.poolNames" -}}
{{- $names := list -}}
{{- range . -}}{{- $names = append $names .name -}}{{- end -}}
{{- join ", " $names -}}
{{- end }}

{{/* The pool of a name, as YAML; of an empty name the first: (list pools name where). */}}
{{- define "id3pm.poolNamed" -}}
{{- $pools := index . 0 -}}
{{- $name := index . 1 -}}
{{- $found := dict -}}
{{- range $pools -}}
{{- if and (not $found) (has $name (list "" .name)) -}}{{- $found = . -}}{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "%s=%s: there is no such pool; pools are %s" (index . 2) $name (include "id3pm.poolNames" $pools)) -}}
{{- end -}}
{{- toYaml $found -}}
{{- end }}

{{- define "id3pm.gracePeriod" -}}
{{- $least := add .Values.shutdown.preStopSeconds .Values.serve.drainTimeoutSeconds 30 -}}
{{- $given := .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $least -}}
{{- else if lt (int64 $given) $least -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds=%d: must be at least %d: preStopSeconds %d + drainTimeoutSeconds %d + 30" (int64 $given) $least (int64 .Values.shutdown.preStopSeconds) (int64 .Values.serve.drainTimeoutSeconds)) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end }}

{{- define "id3pm.checks" -}}
{{- $root := first . -}}
{{- $pools := last . -}}
{{- $values := $root.Values -}}
{{- $_ := include "id3pm.gracePeriod" $root -}}
{{- if and (not $values.tokens.secret) (not $values.insecure) -}}
{{- fail "without tokens every caller that reaches the ports may use the service: give tokens.secret, or set insecure=true if something else protects it" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "id3pm.fullname" $root)) -}}
{{- fail (printf "%s: names of Services begin with a letter; set fullnameOverride" (include "id3pm.fullname" $root)) -}}
{{- end -}}
{{- $names := list -}}
{{- range $pools -}}
{{- if has .name $names -}}{{- fail (printf "pools: two have the name %s" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- include "id3pm.checkArtifact" (list $root . "engines") -}}
{{- include "id3pm.checkArtifact" (list $root . "bundle") -}}
{{- include "id3pm.checkScaling" (list $root .) -}}
{{- if and (has (toString .rollout.maxSurge) (list "0" "0%")) (has (toString .rollout.maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "pool %s: rollout.maxSurge=0 and maxUnavailable=0: a rollout could neither add a pod nor take one" .name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.serve.traceUrl (not $values.networkPolicy.egress) -}}
{{- fail "serve.traceUrl needs a way out: add its rule to networkPolicy.egress" -}}
{{- end -}}
{{- if $values.dataset.enabled -}}
{{- include "id3pm.checkDataset" $root -}}
{{- end -}}
{{- if and $values.routes $values.tls.secret (not $values.gateway.backendTls) -}}
{{- fail "tls.secret and routes: a Gateway speaks plain text to Services unless a BackendTLSPolicy says otherwise. End TLS at the Gateway, or make that policy and set gateway.backendTls=true" -}}
{{- end -}}
{{- $routes := list -}}
{{- range $values.routes -}}
{{- if has .name $routes -}}{{- fail (printf "routes: two have the name %s" .name) -}}{{- end -}}
{{- $routes = append $routes .name -}}
{{- include "id3pm.checkRoute" (list . $pools) -}}
{{- include "id3pm.checkHostnames" (list $root .) -}}
{{- end -}}
{{- end }}

{{- define "id3pm.checkDataset" -}}
{{- range $field := list "name" "plan" "out" -}}
{{- if not (get $.Values.dataset $field) -}}{{- fail (printf "dataset.enabled needs dataset.%s" $field) -}}{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.dataset.claim) (not .Values.networkPolicy.egress) -}}
{{- fail "dataset without dataset.claim writes to a store over the network: add its rule to networkPolicy.egress" -}}
{{- end -}}
{{- end }}

{{- define "id3pm.checkScaling" -}}
{{- $root := first . -}}
{{- $pool := last . -}}
{{- $scaling := $pool.autoscaling -}}
{{- if $scaling.enabled -}}
{{- if not $root.Values.keda.serverAddress -}}
{{- fail (printf "pool %s: autoscaling needs keda.serverAddress, the address of Prometheus" $pool.name) -}}
{{- end -}}
{{- if lt (int64 $scaling.maxReplicas) (int64 $scaling.minReplicas) -}}
{{- fail (printf "pool %s: autoscaling.maxReplicas=%d is less than minReplicas=%d" $pool.name (int64 $scaling.maxReplicas) (int64 $scaling.minReplicas)) -}}
{{- end -}}
{{- if and (eq (int64 $scaling.minReplicas) 0) (not $scaling.extraTriggers) -}}
{{- fail (printf "pool %s: autoscaling.minReplicas=0: the backlog is a metric of the pods, so without a pod there is none and the first would never start; give at least 1, or extraTriggers with a metric of something else, such as the Gateway" $pool.name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "id3pm.checkRoute" -}}
{{- $route := first . -}}
{{- $pools := last . -}}
{{- $weights := 0 -}}
{{- $sets := list -}}
{{- $names := list -}}
{{- range $backend := $route.pools -}}
{{- $found := false -}}
{{- range $pools -}}
{{- if eq .name $backend.name -}}
{{- $found = true -}}
{{- $sets = append $sets .engineSet -}}
{{- if and (gt (int64 $backend.weight) 0) (eq (int64 .replicas) 0) (not .autoscaling.enabled) -}}
{{- fail (printf "route %s: pool %s has 0 replicas and weight %d: its requests would fail" $route.name .name (int64 $backend.weight)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "route %s: there is no pool %s; pools are %s" $route.name $backend.name (include "id3pm.poolNames" $pools)) -}}
{{- end -}}
{{- if has $backend.name $names -}}{{- fail (printf "route %s names pool %s twice" $route.name $backend.name) -}}{{- end -}}
{{- $names = append $names $backend.name -}}
{{- $weights = add $weights $backend.weight -}}
{{- end -}}
{{- if eq (int64 $weights) 0 -}}
{{- fail (printf "route %s: all weights are 0, so a Gateway would refuse every request" $route.name) -}}
{{- end -}}
{{- if and (gt (len (uniq $sets)) 1) (not $route.mixedBits) -}}
{{- fail (printf "route %s mixes the engine sets %s: the same seed would give other bits from one request to the next. Give each its own route, or set mixedBits=true" $route.name (uniq $sets | join ", ")) -}}
{{- end -}}
{{- end }}
