"""Custom resources that the chart makes, as JSON schemas of the fields that it uses: any other field is an error.

Written after the published definitions: Prometheus operator 0.93, KEDA 2.20, Gateway API 1.6 (standard channel),
KServe 0.20, Envoy Gateway (v1alpha1) of August 2026.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import kubernetes_validate

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}


def record(required: str = "", **fields: Schema) -> Schema:
    """An object with these fields alone; `required` names some, separated by spaces."""
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": fields}


def many(item: Schema, most: int | None = None) -> Schema:
    """A list with at least one item."""
    return {"type": "array", "items": item, "minItems": 1, **({} if most is None else {"maxItems": most})}


def one_of(*values: str) -> Schema:
    """One of some words."""
    return {"enum": list(values)}


SELECTOR = record("matchLabels", matchLabels=TEXTS)
SERVICE_MONITOR = record(
    "endpoints selector",
    selector=SELECTOR,
    namespaceSelector=record(matchNames=many(TEXT), any=BOOLEAN),
    endpoints=many(record("port", port=TEXT, path=TEXT, interval=DURATION, scheme=one_of("http", "https"))),
)
PROMETHEUS_RULE = record(
    "groups",
    groups=many(
        record(
            "name",
            name=TEXT,
            rules=many(
                record("alert expr", alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": DURATION})
            ),
        )
    ),
)
SCALED_OBJECT = record(
    "scaleTargetRef triggers",
    scaleTargetRef=record("name", apiVersion=TEXT, kind=TEXT, name=NAME),
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    pollingInterval=COUNT,
    cooldownPeriod=COUNT,
    fallback=record(
        "failureThreshold replicas",
        failureThreshold=COUNT,
        replicas=COUNT,
        behavior=one_of("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"),
    ),
    advanced=record(
        horizontalPodAutoscalerConfig=record(
            behavior=record(
                scaleUp=record(stabilizationWindowSeconds={**COUNT, "maximum": 3600}),
                scaleDown=record(
                    stabilizationWindowSeconds={**COUNT, "maximum": 3600},
                    policies=many(
                        record(
                            "type value periodSeconds", type=one_of("Pods", "Percent"), value=COUNT, periodSeconds=COUNT
                        )
                    ),
                ),
            )
        )
    ),
    triggers=many(
        record(
            "type metadata",
            type=TEXT,
            name=TEXT,
            metadata=TEXTS,
            metricType=one_of("AverageValue", "Value", "Utilization"),
            useCachedMetrics=BOOLEAN,
            authenticationRef=record(
                "name", name=NAME, kind=one_of("TriggerAuthentication", "ClusterTriggerAuthentication")
            ),
        )
    ),
)
PARENTS = many(record("name", group=TEXT, kind=TEXT, name=NAME, namespace=NAME, sectionName=NAME, port=COUNT), 32)
HEADERS = many(record("name value", type=one_of("Exact", "RegularExpression"), name=TEXT, value=TEXT), 16)
BACKENDS = many(record("name port", name=NAME, port=COUNT, weight={**COUNT, "maximum": 1_000_000}), 16)
HTTP_ROUTE = record(
    "parentRefs rules",
    parentRefs=PARENTS,
    hostnames=many(NAME, 16),
    rules=many(
        record(
            matches=many(
                record(
                    path=record("type value", type=one_of("Exact", "PathPrefix", "RegularExpression"), value=TEXT),
                    headers=HEADERS,
                )
            ),
            timeouts=record(request=DURATION, backendRequest=DURATION),
            backendRefs=BACKENDS,
        ),
        16,
    ),
)
GRPC_ROUTE = record(
    "parentRefs rules",
    parentRefs=PARENTS,
    hostnames=many(NAME, 16),
    rules=many(
        record(
            matches=many(
                record(
                    method=record(type=one_of("Exact", "RegularExpression"), service=TEXT, method=TEXT), headers=HEADERS
                )
            ),
            backendRefs=BACKENDS,
        ),
        16,
    ),
)
TRAFFIC_POLICY = record(
    "targetRefs",
    targetRefs=many(record("group kind name", group=TEXT, kind=TEXT, name=NAME)),
    loadBalancer=record(
        "type",
        type=one_of("ConsistentHash", "LeastRequest", "Random", "RoundRobin"),
        consistentHash=record(
            "type", type=one_of("SourceIP", "Header", "Headers", "Cookie"), header=record("name", name=TEXT)
        ),
    ),
    timeout=record(http=record(requestTimeout=DURATION, streamIdleTimeout=DURATION, maxStreamDuration=DURATION)),
    retry=record(
        numRetries=COUNT,
        retryOn=record(
            triggers=many(
                one_of("connect-failure", "refused-stream", "unavailable", "retriable-status-codes", "reset")
            ),
            httpStatusCodes=many(COUNT),
        ),
    ),
)
# Containers, volumes and fields of pods are Kubernetes' own: `_as_pod` has them checked.
ANY: Schema = {}
SERVING_RUNTIME = record(
    "containers",
    annotations=TEXTS,
    labels=TEXTS,
    supportedModelFormats=many(
        record("name", name=TEXT, version=TEXT, autoSelect=BOOLEAN, priority={"type": "integer", "minimum": 1})
    ),
    protocolVersions=many(one_of("v1", "v2", "grpc-v1", "grpc-v2")),
    multiModel={"const": False},
    imagePullSecrets=ANY,
    nodeSelector=ANY,
    tolerations=ANY,
    affinity=ANY,
    containers=ANY,
    volumes=ANY,
)
MODEL = {
    "modelFormat": record("name", name=TEXT, version=TEXT),
    "protocolVersion": one_of("v1", "v2", "grpc-v2"),
    "runtime": NAME,
    "storageUri": {"type": "string", "pattern": "^(pvc|oci|s3|gs|hf|https)://"},
}
PREDICTOR = {"minReplicas": COUNT, "maxReplicas": COUNT, "model": record("modelFormat", **MODEL)}
INFERENCE_SERVICE = record("predictor", predictor={"type": "object", "required": ["model"], "properties": PREDICTOR})
MODELS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): SERVICE_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED_OBJECT,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): GRPC_ROUTE,
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): TRAFFIC_POLICY,
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): SERVING_RUNTIME,
    ("serving.kserve.io/v1beta1", "InferenceService"): INFERENCE_SERVICE,
}


def is_custom(found: dict) -> bool:
    """Whether an object is of a kind that is modelled here."""
    return (found.get("apiVersion"), found.get("kind")) in MODELS


def check_custom(found: dict, version: str) -> None:
    """Checks an object against its model, and the parts of pods in it against Kubernetes.

    Args:
        found: The object.
        version: Of Kubernetes.

    Raises:
        jsonschema.ValidationError: A field is unknown, missing or of a wrong form.
    """
    metadata = record("name", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS)
    model = MODELS[found["apiVersion"], found["kind"]]
    whole = record("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=model)
    jsonschema.validate(found, whole, cls=jsonschema.Draft202012Validator)
    if (pod := _as_pod(found)) is not None:
        kubernetes_validate.validate(pod, version, strict=True)


def _as_pod(found: dict) -> dict | None:
    """The pod that KServe makes of a runtime or of a predictor, as far as the object says."""
    spec = copy.deepcopy(found["spec"])
    if found["kind"] == "ServingRuntime":
        for name in ("annotations", "labels", "supportedModelFormats", "protocolVersions", "multiModel"):
            spec.pop(name, None)
    elif found["kind"] == "InferenceService":
        spec = spec["predictor"]
        for name in PREDICTOR:
            spec.pop(name, None)
        spec["containers"] = [{"name": "kserve-container", "image": "image"}]
    else:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
