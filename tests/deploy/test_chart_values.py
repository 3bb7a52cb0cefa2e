"""Values that are wrong are refused, with the value and the rule."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from helm import Helm
from objects import pods

OPEN = ("--set", "insecure=true")
TWO = 'pools=[{"name":"a"},{"name":"b"}]'
DIGEST = "sha256:" + "1" * 64


MISSPELT = {
    "replica": 1,
    "image": {"repo": "x"},
    "tokens": {"secretName": "x"},
    "serve": {"drainTimeout": 1},
    "shutdown": {"gracePeriod": 1},
    "defaults": {
        "replicaCount": 1,
        "gpu": {"kind": "x"},
        "engines": {"pvc": "x", "pull": {"url": "x"}},
        "resources": {"limit": {}},
        "autoscaling": {"minimum": 1},
        "tolerations": [{"keys": "x"}],
    },
    "pools": [{"name": "a", "threadCount": 1}],
    "networkPolicy": {"ingress": [], "callers": [{"pods": {}}]},
    "prometheusRule": {"p95": 1},
    "keda": {"server": "x"},
    "gateway": {"parents": []},
    "routes": [{"name": "r", "weights": [], "pools": [{"name": "a", "weight": 1, "percent": 1}]}],
    "dataset": {"shard": 1},
    "kserve": {"enable": True},
}
WRONG = {
    "podLabels": {"id3pm/pool": "x"},
    "image": {"digest": "sha256:123", "repository": "Registry Example"},
    "serve": {"accept": "all", "drainTimeoutSeconds": -1},
    "shutdown": {"preStopSeconds": 0},
    "keda": {"serverAddress": "prometheus:9090"},
    "defaults": {
        "replicas": -1,
        "gpu": {"count": 2},
        "engines": {"source": "pvc", "path": "../secrets"},
        "sharedMemory": "lots",
        "autoscaling": {"backlogSecondsPerPod": 0},
    },
    "pools": [
        {"name": "UPPER"},
        {"name": "a", "engines": {"pull": {"address": "hf://id3pm/demo"}}},
        {"name": "b", "engines": {"pull": {"address": "hf://id3pm/demo@main"}}},
        {"name": "c", "engines": {"pull": {"address": "oci://registry.example/engines:v1"}}},
    ],
}


def leaves(values: object, path: str = "") -> list[str]:
    """The paths of all values that hold no others, as Helm writes them."""
    if isinstance(values, dict) and values:
        return [leaf for key, part in values.items() for leaf in leaves(part, f"{path}/{key}")]
    if isinstance(values, list) and values:
        return [leaf for index, part in enumerate(values) for leaf in leaves(part, f"{path}/{index}")]
    return [path]


def refused(helm: Helm, folder: Path, values: dict) -> str:
    (folder / "values.yaml").write_text(json.dumps({"insecure": True, **values}))
    return helm.refusal("-f", str(folder / "values.yaml"))


def test_a_misspelt_value_is_refused(helm: Helm, tmp_path: Path) -> None:
    refusal = refused(helm, tmp_path, MISSPELT)
    # Helm 4: additional properties 'a', 'b' not allowed; Helm 3.18: Additional property a is not allowed
    parts = re.findall("dditional propert(?:ies|y) (.*?) (?:is )?not allowed", refusal)
    names = [name.strip("'") for part in parts for name in part.split(", ")]
    right = {"a", "r", "name", "weight", "pools"}
    assert set(names) == {leaf.rpartition("/")[2] for leaf in leaves(MISSPELT)} - right


def test_a_value_outside_its_rule_is_refused(helm: Helm, tmp_path: Path) -> None:
    refusal = refused(helm, tmp_path, WRONG)
    paths = set(re.findall("- at '(/[^']+)'", refusal))  # Helm 4
    paths |= {f"/{path.replace('.', '/')}" for path in re.findall("^- (\\S+): ", refusal, re.MULTILINE)}  # Helm 3.18
    right = {"/pools/1/name", "/pools/2/name", "/pools/3/name", "/podLabels/id3pm/pool"}
    assert set(leaves(WRONG)) - right <= paths
    assert "id3pm/pool" in refusal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give tokens.secret, or set insecure=true"),
        ([*OPEN, "--set", "shutdown.terminationGracePeriodSeconds=99"], "must be at least 100"),
        ([*OPEN, "--set", "serve.drainTimeoutSeconds=200,shutdown.terminationGracePeriodSeconds=200"], "at least 240"),
        ([*OPEN, "--set", "defaults.autoscaling.enabled=true"], "needs keda.serverAddress"),
        (
            [
                *OPEN,
                "--set",
                "defaults.autoscaling.enabled=true,keda.serverAddress=http://p,defaults.autoscaling.minReplicas=0",
            ],
            "without a pod there is none and the first would never start",
        ),
        (
            [
                *OPEN,
                "--set",
                "defaults.autoscaling.enabled=true,keda.serverAddress=http://p,defaults.autoscaling.minReplicas=9",
            ],
            "maxReplicas=4 is less than minReplicas=9",
        ),
        ([*OPEN, "--set-json", 'pools=[{"name":"a"},{"name":"a"}]'], "two have the name a"),
        ([*OPEN, "--set", "defaults.rollout.maxSurge=0"], "a rollout could neither add a pod nor take one"),
        ([*OPEN, "--set", "defaults.engines.source=image"], "needs engines.image.reference"),
        ([*OPEN, "--set", "defaults.engines.source=claim"], "needs engines.claim.name"),
        ([*OPEN, "--set", "defaults.bundle.source=pull"], "needs bundle.pull.address"),
        (
            [*OPEN, "--set", f"defaults.engines.source=pull,defaults.engines.pull.address=oci://r.example/e@{DIGEST}"],
            "needs a way out",
        ),
        (
            [
                *OPEN,
                "--kube-version",
                "1.32.0",
                "--set",
                "defaults.engines.source=image,defaults.engines.image.reference=e",
            ],
            "need Kubernetes 1.33, this is v1.32.0",
        ),
        ([*OPEN, "--kube-version", "1.29.0"], "kubeVersion"),
        ([*OPEN, "--set", "serve.traceUrl=http://collector:4318/v1/traces"], "networkPolicy.egress"),
        ([*OPEN, "--set", "kserve.enabled=true,kserve.pool=none"], "there is no such pool; pools are main"),
        ([*OPEN, "--set", "dataset.enabled=true,dataset.name=d,dataset.plan=p"], "needs dataset.out"),
        (
            [*OPEN, "--set", "dataset.enabled=true,dataset.name=d,dataset.plan=p,dataset.out=s3://b/o"],
            "networkPolicy.egress",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(helm: Helm, arguments: list[str], words: str) -> None:
    assert words in helm.refusal(*arguments)


def route(**fields: object) -> str:
    """A route of pools a and b as `--set-json` takes it."""
    whole = {"name": "r", "http": {"hostnames": ["a.example"]}, "pools": [{"name": "a", "weight": 1}], **fields}
    return f"routes={json.dumps([whole])}"


GATEWAY = (*OPEN, "--set-json", TWO, "--set-json", 'gateway.parentRefs=[{"name":"public"}]')


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (route(pools=[{"name": "c", "weight": 1}]), "there is no pool c; pools are a, b"),
        (route(pools=[{"name": "a", "weight": 0}, {"name": "b", "weight": 0}], mixedBits=True), "all weights are 0"),
        (route(pools=[{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]), "mixes the engine sets a, b"),
        (route(pools=[{"name": "a", "weight": 1}, {"name": "a", "weight": 1}]), "names pool a twice"),
        (route(grpc={"hostnames": ["a.example"]}), "a Gateway takes only one"),
        (route(pools=[]), "pools"),
        (route(http={"hostnames": []}), "hostnames"),
    ],
)
def test_a_route_that_would_not_work_is_refused(helm: Helm, route: str, words: str) -> None:
    assert words in helm.refusal(*GATEWAY, "--set-json", route)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set-json", "gateway.parentRefs=[]"], "needs parentRefs"),
        (["--set", "tls.secret=certificate"], "BackendTLSPolicy"),
        (["--set-json", 'pools=[{"name":"a","replicas":0}]'], "pool a has 0 replicas and weight 1"),
    ],
)
def test_a_route_needs_what_it_leads_to(helm: Helm, more: list[str], words: str) -> None:
    assert words in helm.refusal(*GATEWAY, "--set-json", route(), *more)


def test_a_canary_may_have_no_weight_or_all_of_it(helm: Helm) -> None:
    for weights in ((0, 100), (100, 0)):
        pools = [{"name": name, "weight": weight} for name, weight in zip("ab", weights, strict=True)]
        objects = helm.objects(*GATEWAY, "--set-json", route(pools=pools, mixedBits=True))
        (found,) = [each for each in objects if each["kind"] == "HTTPRoute"]
        assert [backend["weight"] for backend in found["spec"]["rules"][-1]["backendRefs"]] == list(weights)


def test_a_pool_without_pods_has_no_alert_that_there_are_none(helm: Helm) -> None:
    objects = helm.objects(*OPEN, "--set", "defaults.replicas=0,prometheusRule.enabled=true")
    text = yaml.safe_dump(objects)
    assert "replicas: 0" in text and "Id3pmNoPodReady" not in text and "Id3pmPodNotReady" in text


def test_numbers_may_be_given_as_numbers(helm: Helm) -> None:
    (pod,) = pods(helm.objects(*OPEN, "--set", "defaults.resources.limits.cpu=2")).values()
    assert pod["containers"][0]["resources"]["limits"]["cpu"] == 2


def test_a_canarys_tag_is_not_hidden_by_the_digest_of_all(helm: Helm) -> None:
    arguments = [
        "--set",
        f"image.digest={DIGEST}",
        "--set-json",
        'pools=[{"name":"a"},{"name":"b","image":{"tag":"2"}}]',
    ]
    images = [pod["containers"][0]["image"] for pod in pods(helm.objects(*OPEN, *arguments)).values()]
    assert images == [f"id3pm@{DIGEST}", "id3pm:2"]


def test_a_release_whose_name_no_service_may_have_is_refused_or_changed(helm: Helm) -> None:
    done = helm.template(*OPEN, release="1st")
    assert done.returncode != 0 and "begin with a letter" in done.stderr
    names = [found["metadata"]["name"] for found in helm.objects(*OPEN, release="v1.2")]
    assert names and not any("." in name for name in names)


def test_a_large_number_stays_a_number(helm: Helm) -> None:
    objects = helm.objects(
        *OPEN,
        "--set",
        "dataset.enabled=true,dataset.name=d,dataset.plan=p,dataset.out=o,dataset.claim=c,dataset.parts=100000",
    )
    (job,) = [found for found in objects if found["kind"] == "Job"]
    assert job["spec"]["completions"] == 100_000
