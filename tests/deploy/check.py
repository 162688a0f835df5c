#!/usr/bin/env python3
"""Checks deploy/ without a cluster: Kubernetes' own schemas, names that must meet, the compose schema, a linter of container files.

    .lipstream/deploy/bin/python tests/deploy/check.py deploy

Prints what is wrong, a line each, and ends with 1; else a line that counts what was checked.
"""
import subprocess
import sys
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml

KUBERNETES = "1.37"
wrong = []


def say(text):
    wrong.append(text)


def resources(folder):
    """Documents of a folder's kustomization, with where each stands; those of the folders that it names first."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = []
    for name in kustomization["resources"]:
        path = folder / name
        if path.is_dir():
            found += resources(path)
        elif path.is_file():
            found += [(f"{path}", document) for document in yaml.safe_load_all(path.read_text()) if document]
        else:
            say(f"{folder}/kustomization.yaml: there is no {name}")
    for made in kustomization.get("configMapGenerator", []):
        data = {Path(file).name: (folder / file).read_text() for file in made["files"]}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data}
        found.append((f"{folder}/kustomization.yaml", config))
    listed = {name for name in kustomization["resources"]} | {"kustomization.yaml"}
    for path in folder.glob("*.yaml"):
        if path.name not in listed:
            say(f"{path}: is in no kustomization")
    return found


def of(documents, *kinds):
    return [(where, d) for where, d in documents if d["kind"] in kinds]


def check_schemas(documents):
    for where, document in documents:
        name = f"{where}: {document.get('kind')} {document.get('metadata', {}).get('name')}"
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            say(f"{name}: {getattr(error, 'message', error)}")


def check_names(documents):
    pods = {d["metadata"]["name"]: d["spec"]["template"] for _, d in of(documents, "StatefulSet", "Deployment")}
    labels = [pod["metadata"]["labels"] for pod in pods.values()]

    def meets(selector):
        return any(all(pod.get(k) == v for k, v in selector.items()) for pod in labels)

    for where, d in of(documents, "StatefulSet", "Deployment"):
        if not d["spec"]["selector"]["matchLabels"].items() <= d["spec"]["template"]["metadata"]["labels"].items():
            say(f"{where}: {d['metadata']['name']} does not select its own pods")
    for where, d in of(documents, "Service"):
        if not meets(d["spec"]["selector"]):
            say(f"{where}: Service {d['metadata']['name']} selects nothing")
        for port in d["spec"]["ports"]:
            names = {p["name"] for pod in pods.values() for c in pod["spec"]["containers"] for p in c["ports"]}
            if port["targetPort"] not in names:
                say(f"{where}: Service {d['metadata']['name']}: no container has a port {port['targetPort']}")
    for where, d in of(documents, "PodDisruptionBudget"):
        if not meets(d["spec"]["selector"]["matchLabels"]):
            say(f"{where}: PodDisruptionBudget {d['metadata']['name']} selects nothing")
    for where, d in of(documents, "NetworkPolicy"):
        if not meets(d["spec"]["podSelector"]["matchLabels"]):
            say(f"{where}: NetworkPolicy {d['metadata']['name']} selects nothing")
    scaled = {d["spec"]["scaleTargetRef"]["name"] for _, d in of(documents, "HorizontalPodAutoscaler")}
    for where, d in of(documents, "HorizontalPodAutoscaler"):
        if d["spec"]["scaleTargetRef"]["name"] not in pods:
            say(f"{where}: there is no {d['spec']['scaleTargetRef']['name']} to scale")
    services = {d["metadata"]["name"] for _, d in of(documents, "Service")}
    configs = {d["metadata"]["name"] for _, d in of(documents, "ConfigMap")}
    for where, d in of(documents, "StatefulSet"):
        name, spec = d["metadata"]["name"], d["spec"]
        if spec["serviceName"] not in services:
            say(f"{where}: {name}: there is no Service {spec['serviceName']}")
        if (name in scaled) == ("replicas" in spec):
            say(f"{where}: {name}: how many is said by its autoscaler, or by `replicas` where it has none")
        volumes = {v["name"] for v in spec["template"]["spec"]["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
        for volume in spec["template"]["spec"]["volumes"]:
            if "configMap" in volume and volume["configMap"]["name"] not in configs:
                say(f"{where}: {name}: there is no ConfigMap {volume['configMap']['name']}")
        check_pod(where, name, spec["template"]["spec"], volumes)


def check_pod(where, name, pod, volumes):
    if not pod["securityContext"].get("runAsNonRoot"):
        say(f"{where}: {name} may run as root")
    for container in pod["containers"]:
        security = container["securityContext"]
        if not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"]:
            say(f"{where}: {name}: the root is not read-only, or privileges can be had")
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                say(f"{where}: {name}: there is no volume {mount['name']}")
        ports = {p["name"] for p in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if container[probe]["httpGet"]["port"] not in ports:
                say(f"{where}: {name}: {probe} asks at a port that is not there")


def main():
    folder = Path(sys.argv[1])
    checked = 0
    for kustomization in sorted(folder.glob("kubernetes/*/kustomization.yaml")):
        documents = resources(kustomization.parent)
        check_schemas(documents)
        check_names(documents)
        checked += len(documents)
    try:
        compose = compose_spec.PyCompose.from_yaml((folder / "compose.yaml").read_text())
        compose.validate()
        compose.to_spec()
    except Exception as error:  # Its errors have no common kind.
        say(f"{folder}/compose.yaml: {error}")
    lint = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", folder / "Containerfile"], capture_output=True, text=True
    )
    if lint.returncode:
        say(lint.stdout.strip() or lint.stderr.strip())
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{checked} resources of Kubernetes {KUBERNETES}, {len(compose.service_names())} services, one container file")


main()
