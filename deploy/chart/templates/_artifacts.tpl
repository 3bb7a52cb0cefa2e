{{/* Engines and bundles from the container, an image volume, a claim, or pulled by an init container. */}}

{{- define "id3pm.checkArtifact" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $what := index . 2 -}}
{{- $artifact := get $pool $what -}}
{{- $where := printf "pool %s: %s" $pool.name $what -}}
{{- if eq $artifact.source "image" -}}
{{- if not $artifact.image.reference -}}{{- fail (printf "%s.source=image needs %s.image.reference" $where $what) -}}{{- end -}}
{{- if semverCompare "<1.33.0-0" $root.Capabilities.KubeVersion.Version -}}
{{- fail (printf "%s.source=image: volumes of type image need Kubernetes 1.33, this is %s; use claim or pull" $where $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- else if eq $artifact.source "claim" -}}
{{- if not $artifact.claim.name -}}{{- fail (printf "%s.source=claim needs %s.claim.name, a PersistentVolumeClaim" $where $what) -}}{{- end -}}
{{- else if eq $artifact.source "pull" -}}
{{- if not $artifact.pull.address -}}{{- fail (printf "%s.source=pull needs %s.pull.address" $where $what) -}}{{- end -}}
{{- if and $root.Values.networkPolicy.enabled (not $root.Values.networkPolicy.egress) -}}
{{- fail (printf "%s.source=pull needs a way out: add a rule to networkPolicy.egress" $where) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Folder of the model repository in the container. */}}
{{- define "id3pm.repository" -}}
{{- if eq .engines.source "container" -}}
{{- default "/opt/id3pm/triton_repo" .engines.path -}}
{{- else -}}
{{- list "/engines" (ternary "pulled" "" (eq .engines.source "pull")) .engines.path | compact | join "/" -}}
{{- end -}}
{{- end }}

{{/* Folder of the bundle in the container; empty where the pool has none. */}}
{{- define "id3pm.bundle" -}}
{{- if ne .bundle.source "none" -}}
{{- list "/bundle" (ternary "pulled" "" (eq .bundle.source "pull")) .bundle.path | compact | join "/" -}}
{{- end -}}
{{- end }}

{{- define "id3pm.artifactVolumes" -}}
{{- $pool := . -}}
{{- range $what := list "engines" "bundle" }}
{{- $artifact := get $pool $what }}
{{- if eq $artifact.source "image" }}
- name: {{ $what }}
  image:
    reference: {{ $artifact.image.reference | quote }}
    pullPolicy: {{ $artifact.image.pullPolicy }}
{{- else if eq $artifact.source "claim" }}
- name: {{ $what }}
  persistentVolumeClaim:
    claimName: {{ $artifact.claim.name | quote }}
    readOnly: true
{{- else if eq $artifact.source "pull" }}
- name: {{ $what }}
  emptyDir:
    sizeLimit: {{ $artifact.pull.sizeLimit }}
{{- with $artifact.pull.registry }}
- name: {{ $what }}-registry
  secret:
    secretName: {{ . | quote }}
    items:
      - {key: .dockerconfigjson, path: config.json}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "id3pm.artifactMounts" -}}
{{- $pool := . -}}
{{- range $what := list "engines" "bundle" }}
{{- if not (has (get $pool $what).source (list "container" "none")) }}
- name: {{ $what }}
  mountPath: /{{ $what }}
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/* Init containers that pull: (dict "root" $ "pool" pool). */}}
{{- define "id3pm.initContainers" -}}
{{- $context := . -}}
{{- range $what := list "engines" "bundle" }}
{{- $artifact := get $context.pool $what }}
{{- if eq $artifact.source "pull" }}
- name: pull-{{ $what }}
  image: {{ include "id3pm.image" $context | quote }}
  imagePullPolicy: {{ include "id3pm.pullPolicy" $context }}
  args: [pull, {{ $artifact.pull.address | quote }}, /{{ $what }}/pulled]
  env:
    - {name: HOME, value: /tmp}
    {{- with $artifact.pull.token.secret }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef: {name: {{ . | quote }}, key: {{ $artifact.pull.token.key | quote }}}
    {{- end }}
    {{- if $artifact.pull.registry }}
    - {name: DOCKER_CONFIG, value: /registry}
    {{- end }}
  # Engines are compared with the GPU that they were built for, which the pod's container then gets.
  {{- $gpu := ternary $context.pool.gpu (dict "count" 0) (eq $what "engines") }}
  resources:
    {{- include "id3pm.resources" (dict "pool" (dict "gpu" $gpu "resources" (dict "requests" (dict "cpu" "500m" "memory" "512Mi") "limits" (dict "memory" "2Gi")))) | nindent 4 }}
  securityContext:
    {{- include "id3pm.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: {{ $what }}, mountPath: /{{ $what }}}
    - {name: tmp, mountPath: /tmp}
    {{- if $artifact.pull.registry }}
    - {name: {{ $what }}-registry, mountPath: /registry, readOnly: true}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
