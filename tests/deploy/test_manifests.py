"""What the chart renders is what Kubernetes and the operators take."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm import CHART, SETS, VALUES, Helm, Render
from schemas import NEWEST, OLDEST, VERSIONS, WITH_IMAGE_VOLUMES, check

INFERENCE_SERVICE = yaml.safe_load((CHART.parent / "kserve" / "inference-service.yaml").read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_every_object_is_valid(rendered: Render, name: str, version: str) -> None:
    objects = rendered(name)
    has_image_volumes = any("'image': {" in str(found.get("spec")) for found in objects)
    if has_image_volumes and float(version) < float(WITH_IMAGE_VOLUMES):
        pytest.skip("volumes of type image are newer; the chart refuses them there")
    assert len(objects) > 4
    for found in objects:
        check(found, version)
        assert found["metadata"]["namespace"] == "faces"


def test_the_examples_make_every_kind(rendered: Render) -> None:
    made = {found["kind"] for name in SETS for found in rendered(name)}
    assert made == {
        "BackendTrafficPolicy",
        "Deployment",
        "GRPCRoute",
        "HTTPRoute",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "ScaledObject",
        "Service",
        "ServiceMonitor",
        "ServingRuntime",
    }


def test_names_are_unique(rendered: Render) -> None:
    for name in SETS:
        names = [(found["kind"], found["metadata"]["name"]) for found in rendered(name)]
        assert len(set(names)) == len(names)


def test_the_example_of_kserve_is_valid_and_keeps_the_charts_promises(rendered: Render) -> None:
    check(INFERENCE_SERVICE, NEWEST)
    (runtime,) = [found for found in rendered("pull") if found["kind"] == "ServingRuntime"]
    predictor = INFERENCE_SERVICE["spec"]["predictor"]
    assert predictor["automountServiceAccountToken"] is False
    assert predictor["securityContext"]["runAsNonRoot"] is True
    assert predictor["terminationGracePeriodSeconds"] >= 10 + 60 + 30
    served = {form["name"] for form in runtime["spec"]["supportedModelFormats"]}
    assert predictor["model"]["modelFormat"]["name"] in served
    assert "--repository=/mnt/models" in runtime["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_an_unknown_field_or_kind_is_an_error(rendered: Render, version: str) -> None:
    objects = {found["kind"]: found for name in SETS for found in rendered(name)}
    objects["InferenceService"] = INFERENCE_SERVICE
    for found in objects.values():
        wrong = copy.deepcopy(found)
        wrong["spec"]["misspelt"] = 1
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, version)
    for group in ("example.org/v1", "apps/v1", "keda.sh/v1"):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            check({**objects["ScaledObject"], "apiVersion": group}, version)


def test_parts_of_pods_in_custom_resources_are_checked_too(rendered: Render) -> None:
    (runtime,) = [found for found in rendered("pull") if found["kind"] == "ServingRuntime"]
    for path in (("containers", 0, "livenessProb"), ("volumes", 0, "emptydir")):
        wrong = copy.deepcopy(runtime)
        wrong["spec"][path[0]][path[1]][path[2]] = {}
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, NEWEST)


@pytest.mark.parametrize("name", SETS)
def test_helm_lint_finds_nothing(helm: Helm, name: str) -> None:
    done = helm.run("lint", "--strict", str(CHART), "-f", str(VALUES / f"{name}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


def test_the_chart_has_the_version_of_the_package() -> None:
    import id3pm

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == id3pm.__version__


def test_every_value_has_a_default_and_a_rule() -> None:
    """A value without a rule would be refused, one without a default would be in no documentation."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    assert set(schema["definitions"]["defaults"]["properties"]) == set(values["defaults"])
    assert set(schema["definitions"]["pool"]["properties"]) == set(values["defaults"]) | {"name"}
    for name in ("serve", "shutdown", "gateway", "keda", "prometheusRule", "dataset", "kserve", "networkPolicy"):
        assert set(schema["properties"][name]["properties"]) == set(values[name]), name


def test_examples_are_commented() -> None:
    for name in SETS:
        assert (Path(VALUES) / f"{name}.yaml").read_text().startswith("# ")


def test_the_documented_command_installs(helm: Helm) -> None:
    """Those of deploy/README.md, rendered; `my-values.yaml` is the reader's."""
    text = (CHART.parent / "README.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^    helm install (.*)$", text, re.MULTILINE)]
    assert commands
    for release, chart, *arguments in commands:
        assert chart == "deploy/chart"
        objects = helm.objects(*arguments, release=release)
        assert {found["kind"] for found in objects} >= {"Deployment", "Service"}
