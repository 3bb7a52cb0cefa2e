"""What the chart promises of the pods and of what is around them."""

from __future__ import annotations

import json

import click
import pytest
import yaml
from helm import SETS, Helm, Render
from objects import argument, container, everything, of_kind, pods, seconds
from schemas import NEWEST, check

from id3pm import cli
from id3pm.serving.protocol.limits import DRAIN_S

OPEN = ("--set", "insecure=true")


@pytest.mark.parametrize("name", SETS)
def test_pods_have_no_rights(rendered: Render, name: str) -> None:
    for pod in pods(rendered(name)).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            rights = each["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True and rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostPath", "privileged"} & {key for key, _ in everything(pod)}


@pytest.mark.parametrize("name", SETS)
def test_what_a_container_writes_to_is_a_volume(rendered: Render, name: str) -> None:
    for pod in pods(rendered(name)).values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container(pod)["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
        assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
        writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
        assert writable <= {"/dev/shm", "/tmp", "/data"}


@pytest.mark.parametrize("name", SETS)
def test_a_pod_that_leaves_loses_no_work(rendered: Render, name: str) -> None:
    for found in of_kind(rendered(name), "Deployment").values():
        pod = found["spec"]["template"]["spec"]
        drain = float(argument(pod, "drain-timeout") or DRAIN_S)
        sleep = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep >= 1 and pod["terminationGracePeriodSeconds"] >= sleep + drain + 30


def test_a_longer_grace_period_is_kept(helm: Helm) -> None:
    objects = helm.objects(*OPEN, "--set", "shutdown.terminationGracePeriodSeconds=3600")
    (pod,) = pods(objects).values()
    assert pod["terminationGracePeriodSeconds"] == 3600


@pytest.mark.parametrize(("name", "scheme"), [("gpu", "HTTP"), ("pull", "HTTPS")])
def test_probes_ask_the_services_own_endpoints(rendered: Render, name: str, scheme: str) -> None:
    for found in of_kind(rendered(name), "Deployment").values():
        pod = found["spec"]["template"]["spec"]
        probes = {kind: container(pod)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
        paths = {kind: probe["httpGet"] for kind, probe in probes.items()}
        assert {kind: place["path"] for kind, place in paths.items()} == {
            "startup": "/v2/health/ready",
            "readiness": "/v2/health/ready",
            "liveness": "/v2/health/live",
        }
        assert {place["scheme"] for place in paths.values()} == {scheme}
        assert {place["port"] for place in paths.values()} == {"http"}
        # A start that takes too long is ended by `id3pm serve`, which says why, before Kubernetes ends it.
        assert seconds(probes["startup"]) >= float(argument(pod, "start-timeout") or 0) + 30


def parsed(words: list[str]) -> tuple[str, dict]:
    """Name and options of a command of `id3pm`, as far as that needs no files."""
    command: click.Command = cli.cli
    name = []
    while isinstance(command, click.Group):
        name.append(words[0])
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no {name}"
        command, words = found, words[1:]
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(list(words))
    assert not rest and {parameter.name for parameter in command.params if parameter.required} <= set(given)
    return " ".join(name), given


def test_containers_get_commands_that_id3pm_has(rendered: Render) -> None:
    runtimes = {
        found["metadata"]["name"]: found["spec"]
        for name in SETS
        for found in rendered(name)
        if found["kind"] == "ServingRuntime"
    }
    run = set()
    for pod in [pod for name in SETS for pod in pods(rendered(name)).values()] + list(runtimes.values()):
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            assert "command" not in each  # the image's entry point is `id3pm`
            command, given = parsed(each["args"])
            run.add(command)
            if command == "serve":
                assert given["host"] == "0.0.0.0"
                assert [port["containerPort"] for port in each["ports"]] == [8000, 8001, 8002]
                assert ("tokens" in given) != ("insecure" in given)
    assert run == {"serve", "pull", "dataset run"}


def test_tokens_and_certificate_come_from_secrets(rendered: Render) -> None:
    for found in of_kind(rendered("pull"), "Deployment").values():
        pod = found["spec"]["template"]["spec"]
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets.items() >= {"tokens": "callers", "tls": "certificate"}.items()
        assert argument(pod, "tokens") == "/secrets/tokens/callers.toml"
        assert argument(pod, "tls-certificate") == "/secrets/tls/tls.crt"
        assert argument(pod, "tls-key") == "/secrets/tls/tls.key"
        assert "--insecure" not in container(pod)["args"]
    assert "insecure" in str(of_kind(rendered("cpu"), "Deployment"))


def test_a_pool_has_its_own_gpu_nodes_and_engines(rendered: Render) -> None:
    found = {name: made["spec"]["template"]["spec"] for name, made in of_kind(rendered("gpu"), "Deployment").items()}
    first, second, mig = (found[f"rel-id3pm-{name}"] for name in ("h100", "h100-next", "mig"))
    assert container(first)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container(mig)["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert "nvidia.com/gpu" not in container(mig)["resources"]["limits"]
    assert first["nodeSelector"] != mig["nodeSelector"]
    assert [container(pod)["image"] for pod in (first, second)] == [
        "registry.example/id3pm:1.0",
        "registry.example/id3pm:1.1",
    ]
    assert argument(first, "repository") == "/engines" and argument(mig, "repository") == "/engines/repository"
    volume = {volume["name"]: volume for volume in mig["volumes"]}["engines"]
    assert volume["persistentVolumeClaim"] == {"claimName": "engines-a100", "readOnly": True}


def test_a_pool_of_cpus_asks_for_no_gpu(rendered: Render) -> None:
    (pod,) = pods(rendered("cpu")).values()
    assert set(container(pod)["resources"]["limits"]) == {"cpu", "memory"}
    assert argument(pod, "threads") == "2"


def test_engines_are_pulled_before_the_service_starts(rendered: Render) -> None:
    pod = pods(rendered("pull"))["Deployment rel-id3pm-spot"]
    pulls = {each["name"]: each for each in pod["initContainers"]}
    for what in ("engines", "bundle"):
        command, address, folder = pulls[f"pull-{what}"]["args"]
        assert command == "pull" and "@" in address and folder == f"/{what}/pulled"
    # `id3pm pull` compares engines with the GPU.
    gpus = {name: pull["resources"]["limits"].get("nvidia.com/gpu") for name, pull in pulls.items()}
    assert gpus == {"pull-engines": 1, "pull-bundle": None}
    assert argument(pod, "repository") == "/engines/pulled"


def test_pods_find_their_pool_and_no_other(rendered: Render) -> None:
    objects = rendered("gpu")
    labels = {
        name: made["spec"]["template"]["metadata"]["labels"] for name, made in of_kind(objects, "Deployment").items()
    }
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for name, found in of_kind(objects, kind).items():
            selector = found["spec"]["selector"]
            wanted = selector.get("matchLabels", selector).items()
            assert [pool for pool, each in labels.items() if wanted <= each.items()] == [name.removesuffix("-pods")]
    assert set(of_kind(objects, "PodDisruptionBudget")) == {"rel-id3pm-h100", "rel-id3pm-mig"}  # one asked for none


def test_a_data_sets_pods_serve_nobody(rendered: Render) -> None:
    objects = rendered("pull")
    (job,) = of_kind(objects, "Job").values()
    labels = job["spec"]["template"]["metadata"]["labels"].items()
    for found in [*of_kind(objects, "Service").values(), *of_kind(objects, "Deployment").values()]:
        selector = found["spec"]["selector"]
        assert not selector.get("matchLabels", selector).items() <= labels


def test_services_lead_to_ports_of_the_container(rendered: Render) -> None:
    for name in SETS:
        objects = rendered(name)
        served = [container(found["spec"]["template"]["spec"]) for found in of_kind(objects, "Deployment").values()]
        ports = {port["name"] for each in served for port in each["ports"]}
        for service_name, found in of_kind(objects, "Service").items():
            assert {port["targetPort"] for port in found["spec"]["ports"]} <= ports
            headless = found["spec"].get("clusterIP") == "None"
            assert headless == service_name.endswith("-pods")
            assert headless or "metrics" not in {port["name"] for port in found["spec"]["ports"]}


def test_only_the_monitoring_namespace_reads_metrics(rendered: Render) -> None:
    (policy,) = of_kind(rendered("gpu"), "NetworkPolicy").values()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    rules = {tuple(port["port"] for port in rule["ports"]): rule["from"] for rule in policy["spec"]["ingress"]}
    assert set(rules) == {("http", "grpc"), ("metrics",)}
    assert rules["metrics",] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_a_scaled_pool_leaves_the_number_of_pods_to_keda(rendered: Render) -> None:
    objects = rendered("gpu")
    deployments, scaled = of_kind(objects, "Deployment"), of_kind(objects, "ScaledObject")
    assert set(scaled) == {"rel-id3pm-h100"}
    for name, found in deployments.items():
        assert ("replicas" in found["spec"]) == (name not in scaled)
    assert scaled["rel-id3pm-h100"]["spec"]["scaleTargetRef"]["name"] in deployments
    assert of_kind(rendered("pull"), "ScaledObject")["rel-id3pm-spot"]["spec"]["minReplicaCount"] == 0


def test_a_canary_gets_its_share_and_callers_can_pick_a_pool(rendered: Render) -> None:
    objects = rendered("gpu")
    services = of_kind(objects, "Service")
    for kind, port in (("HTTPRoute", 8000), ("GRPCRoute", 8001)):
        rules = of_kind(objects, kind)["rel-id3pm-faces"]["spec"]["rules"]
        shares = {backend["name"]: backend["weight"] for backend in rules[-1]["backendRefs"]}
        assert shares == {"rel-id3pm-h100": 90, "rel-id3pm-h100-next": 10}
        for rule, pool in zip(rules[:-1], ("h100", "h100-next"), strict=True):
            for match in rule["matches"]:
                assert match["headers"] == [{"type": "Exact", "name": "x-id3pm-pool", "value": pool}]
            assert [backend["name"] for backend in rule["backendRefs"]] == [f"rel-id3pm-{pool}"]
        for rule in rules:
            assert rule.get("timeouts", {"request": "0s", "backendRequest": "0s"}) == {
                "request": "0s",
                "backendRequest": "0s",
            }
            for backend in rule["backendRefs"]:
                assert backend["port"] == port
                assert port in {each["port"] for each in services[backend["name"]]["spec"]["ports"]}


def test_parts_of_a_data_set_are_the_indexes_of_a_job(rendered: Render) -> None:
    (job,) = of_kind(rendered("pull"), "Job").values()
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == 1000
    pod = job["spec"]["template"]["spec"]
    assert argument(pod, "parts") == "1000" and argument(pod, "part") is None  # it is in JOB_COMPLETION_INDEX


def test_pods_may_listen_on_ipv6(helm: Helm) -> None:
    """tests/integration/test_ipv6.py: all ports of such a service answer."""
    (pod,) = pods(helm.objects(*OPEN, "--set", "serve.host=::")).values()
    assert argument(pod, "host") == "::"
    assert "serve/host" in helm.refusal(*OPEN, "--set", "serve.host=127.0.0.1")


def test_long_names_fit_and_stay_apart(helm: Helm) -> None:
    pools = [{"name": "p" * 39 + end} for end in "ab"]
    values = {
        "insecure": True,
        "fullnameOverride": "n" * 63,
        "pools": pools,
        "prometheusRule": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "kserve": {"enabled": True},
        "gateway": {"parentRefs": [{"name": "public"}]},
        "routes": [
            {"name": "r" * 63, "http": {"hostnames": ["a.example"]}, "pools": [{"name": pools[0]["name"], "weight": 1}]}
        ],
        "dataset": {"enabled": True, "name": "d" * 63, "plan": "p", "out": "o", "claim": "c"},
    }
    arguments = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    objects = helm.objects(*arguments, release="r" * 53)
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(set(names)) == len(names)
    for found in objects:
        check(found, NEWEST)
        assert len(found["metadata"]["name"]) <= (46 if found["kind"] in ("Deployment", "Job") else 63)
        for key, labels in everything(found):
            if key in ("labels", "matchLabels"):
                assert all(len(value) <= 63 for value in labels.values())


def test_names_that_yaml_takes_for_something_else_stay_names(helm: Helm) -> None:
    pools = [{"name": "1e3"}, {"name": "null", "engines": {"source": "claim", "claim": {"name": "0x1"}}}]
    values = {
        "fullnameOverride": "true",
        "pools": pools,
        "tokens": {"secret": "123", "key": "1.5"},
        "image": {"tag": "1.0", "pullSecrets": ["1"]},
        "serviceAccountName": "7",
        "defaults": {"priorityClassName": "0"},
        "prometheusRule": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "gateway": {"parentRefs": [{"name": "1"}]},
        "routes": [
            {
                "name": "2",
                "mixedBits": True,
                "http": {"hostnames": ["1.2"]},
                "grpc": {"hostnames": ["3.4"]},
                "pools": [{"name": pool["name"], "weight": 1} for pool in pools],
            }
        ],
    }
    arguments = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    for found in helm.objects(*arguments, "--namespace", "42", release="1e5"):
        check(found, NEWEST)
        assert found["metadata"]["namespace"] == "42"


def test_pods_do_not_change_with_what_is_around_them(helm: Helm) -> None:
    """An upgrade that only adds monitoring or routes restarts nothing."""
    plain = pods(helm.objects(*OPEN))
    more = pods(
        helm.objects(
            *OPEN, "--set", "serviceMonitor.enabled=true,prometheusRule.enabled=true,networkPolicy.enabled=false"
        )
    )
    assert yaml.safe_dump(plain) == yaml.safe_dump(more)
