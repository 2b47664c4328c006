"""The Dockerfile, the compose file and the manifests agree with each other, with the locks, and with what is installed.

No container is started here; `test_service.py` starts the same command lines as plain processes.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import click
import kubernetes_validate  # type: ignore[import-untyped] # has neither types nor stubs
import pytest
import yaml
from packaging.requirements import Requirement

from curate import __version__

Tree = dict[str, Any]

REGISTRY = "registry.example.com/"
COMPOSE_KEYS = {
    "image", "build", "init", "command", "environment", "volumes", "ports", "depends_on", "healthcheck", "deploy",
    "restart", "stop_grace_period",
}  # fmt: skip
"""Keys of a service in the Compose specification, as far as they are used here."""


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> str:
    return (root / "docker/Dockerfile").read_text()


@pytest.fixture(scope="module")
def compose(root: Path) -> Tree:
    found: Tree = yaml.safe_load((root / "docker/compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def services(compose: Tree) -> dict[str, Tree]:
    found: dict[str, Tree] = compose["services"]
    return found


@pytest.fixture(scope="module")
def kustomization(root: Path) -> Tree:
    found: Tree = yaml.safe_load((root / "docker/kubernetes/kustomization.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def manifests(root: Path, kustomization: Tree) -> list[Tree]:
    files = [root / "docker/kubernetes" / name for name in kustomization["resources"]]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


@pytest.fixture(scope="module")
def workloads(manifests: list[Tree]) -> dict[str, Tree]:
    """Name → pod template of everything that makes pods."""
    return {m["metadata"]["name"]: m["spec"]["template"] for m in manifests if m["kind"] in ("Deployment", "Job")}


def locked(root: Path, name: str) -> str:
    """The version of a library in the lock for development."""
    found = re.search(rf"^{re.escape(name)}==([^ ]+)", (root / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert found, name
    return found[1]


# -- the image ---------------------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile(root: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([hadolint, root / "docker/Dockerfile"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout


def test_the_image_has_the_python_of_the_lock(dockerfile: str, root: Path) -> None:
    pinned = re.search(r"^ARG PYTHON=(\d+\.\d+)\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    solved = re.search(r"--python-version (\d+\.\d+)", (root / "Makefile").read_text())
    assert pinned
    assert solved
    assert pinned[1] == solved[1]
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"python:${PYTHON}"}


def test_the_image_runs_as_the_user_that_the_manifests_name(dockerfile: str, workloads: dict[str, Tree]) -> None:
    last = dockerfile[dockerfile.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\d+)$", last, re.MULTILINE)
    assert users == re.findall(r"useradd --uid (\d+)", last)
    assert {str(pod["spec"]["securityContext"]["runAsUser"]) for pod in workloads.values()} == set(users)


def let_through(root: Path, patterns: list[str]) -> Iterator[Path]:
    """The files that a .dockerignore of one `*`, exceptions to it, and exceptions to those leaves for the engine."""
    assert patterns[0] == "*"
    dropped = [pattern.removeprefix("**/") for pattern in patterns[1:] if not pattern.startswith("!")]
    for kept in (root / pattern[1:] for pattern in patterns[1:] if pattern.startswith("!")):
        for path in [kept] if kept.is_file() else sorted(kept.rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(fnmatch.fnmatch(part, drop) for drop in dropped for part in parts):
                yield path


@pytest.fixture(scope="module")
def context(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the engine gets to see."""
    lines = (root / ".dockerignore").read_text().splitlines()
    folder = tmp_path_factory.mktemp("context")
    for path in let_through(root, [line for line in lines if line and not line.startswith("#")]):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def test_the_files_that_the_engine_sees_make_the_same_wheel(context: Path, root: Path, tmp_path: Path) -> None:
    names: list[list[str]] = []
    for folder in (context, root):
        out = tmp_path / str(len(names))
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        names.append(zipfile.ZipFile(next(out.glob("*.whl"))).namelist())
    assert names[0] == names[1]


def test_the_engine_sees_what_the_dockerfile_copies_and_no_more_than_it_needs(context: Path, dockerfile: str) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert copied
    assert all((context / name).exists() for line in copied for name in line.split())
    beside = {path.name for path in context.iterdir()}
    assert not beside & {".git", "tests", "docs", ".venv", "demo", "shared"}


def test_libraries_that_wheels_want_from_the_system_are_installed(root: Path, dockerfile: str) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not here, which tells what shared libraries ask for")
    # Of Debian's slim image: the C library, the compiler's, and zlib, which Python itself needs.
    there = {
        "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0",
        "libresolv.so.2", "librt.so.1", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1",
    }  # fmt: skip
    packages = {"libexpat.so.1": "libexpat1"}
    wanted: dict[str, str] = {}
    for name in ("rasterio", "pyogrio", "pyproj", "shapely", "numpy", "scipy", "osmium", "numcodecs", "icechunk"):
        files = [Path(str(file.locate())) for file in distribution(name).files or [] if ".so" in Path(file).name]
        own = {file.name for file in files}
        for file in files:
            told = subprocess.run([readelf, "-d", file], capture_output=True, text=True, timeout=30).stdout
            wanted |= {library: name for library in re.findall(r"NEEDED.*\[(.+)\]", told) if library not in own}
    missing = set(wanted) - there
    assert missing == set(packages), {library: wanted[library] for library in missing}
    installed = re.findall(r"apt-get install [^&]*", dockerfile)
    assert all(any(package in line.split() for line in installed) for package in packages.values())


# -- compose -----------------------------------------------------------------------------------------------------------


def listens(service: Tree) -> set[int]:
    """The ports a service is asked at, as its own probe and its command line tell."""
    told = " ".join(map(str, [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]))
    ports = {int(port) for port in re.findall(r"(?:--port |127\.0\.0\.1:|--dashboard-address :)(\d+)", told)}
    return ports | ({5432} if "pg_isready" in told else set())


def environment(service: Tree) -> dict[str, str]:
    return dict(service.get("environment", {}))


def test_every_key_of_the_compose_file_is_one_of_the_specification(compose: Tree, services: dict[str, Tree]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in services.items():
        assert set(service) <= COMPOSE_KEYS, name
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}, name


def test_every_image_is_pinned_to_what_the_locks_and_we_say(root: Path, services: dict[str, Tree]) -> None:
    images = {service["image"] for service in services.values()}
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", image) for image in images)
    assert f"curate:{__version__}" in images
    assert f"motoserver/moto:{locked(root, 'moto')}" in images
    assert f"ghcr.io/stac-utils/stac-fastapi-pgstac:{locked(root, 'stac-fastapi-pgstac')}" in images
    assert f"ghcr.io/stac-utils/pgstac:v{locked(root, 'pypgstac')}" in images


def test_every_address_in_the_compose_file_is_a_service_at_a_port_it_listens_to(services: dict[str, Tree]) -> None:
    found = 0
    for name, service in services.items():
        text = " ".join(map(str, [*service.get("command", []), *environment(service).values()]))
        for host, port in re.findall(r"(?:://|@)([a-z][a-z0-9-]*):(\d+)", text):
            assert host in services, f"{name} asks {host}"
            assert int(port) in listens(services[host]), f"{name} asks {host} at {port}"
            found += 1
    assert found > 10
    assert environment(services["stac"])["PGHOST"] in services


def test_ports_are_published_to_this_machine_alone_and_dasks_scheduler_is_not(services: dict[str, Tree]) -> None:
    published = []
    for name, service in services.items():
        for mapping in service.get("ports", []):
            host, outside, inside = mapping.split(":")
            assert host == "127.0.0.1", name
            assert int(inside) in listens(service), name
            published.append(outside)
    assert len(published) == len(set(published))
    assert "8786" not in published


def test_services_wait_for_services_that_can_tell_that_they_are_ready(services: dict[str, Tree]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
                assert services[other]["restart"] == "unless-stopped"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert "restart" not in services[other], f"{name} waits for the end of {other}, which starts again"


def test_every_volume_is_declared_and_only_the_seed_writes_the_world(compose: Tree, services: dict[str, Tree]) -> None:
    used = [(name, volume.split(":")) for name, service in services.items() for volume in service.get("volumes", [])]
    assert {volume[0] for _, volume in used} == set(compose["volumes"])
    assert [name for name, volume in used if volume[0] == "data" and volume[2:] != ["ro"]] == ["seed"]


def test_credentials_of_a_database_are_those_it_was_made_with(services: dict[str, Tree]) -> None:
    database, api = environment(services["stac-db"]), environment(services["stac"])
    for key, made in {
        "PGUSER": "POSTGRES_USER",
        "PGPASSWORD": "POSTGRES_PASSWORD",
        "PGDATABASE": "POSTGRES_DB",
    }.items():
        assert database[key] == database[made] == api[key]
    own = environment(services["prefect-db"])
    url = f"//{own['POSTGRES_USER']}:{own['POSTGRES_PASSWORD']}@prefect-db:5432/{own['POSTGRES_DB']}"
    assert environment(services["prefect"])["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith(url)


def parses(words: list[str]) -> None:
    """Nothing when `curate` takes a command line; click's error when not. Nothing of it is done."""
    from flows.cli import main

    context = main.make_context("curate", list(words), resilient_parsing=False)
    name, command, rest = main.resolve_command(context, [*context._protected_args, *context.args])
    assert name is not None
    assert command is not None
    command.make_context(name, rest, parent=context)


def test_every_curate_command_line_is_understood(services: dict[str, Tree], dockerfile: str) -> None:
    lines = [service["command"] for service in services.values() if service.get("command", [""])[0] == "curate"]
    lines += [line.split() for line in re.findall(r"^RUN (curate .+)$", dockerfile, re.MULTILINE)[0].split(" && ")[:2]]
    assert len(lines) >= 2
    for line in lines:
        parses(line[1:])


@pytest.mark.parametrize("name", ["operations.md", "service.md"])
def test_every_curate_command_line_of_the_documents_is_understood(root: Path, name: str) -> None:
    text = (root / "docs" / name).read_text().replace("\\\n", " ")
    code = re.findall(r"^    (.+)$", text, re.MULTILINE)
    lines = [match[1] for line in code if (match := re.search(r"(?:^|\S:\S+ |-- )curate ([a-z].*)", line))]
    assert len(lines) >= 3
    for line in lines:
        parses(shlex.split(line, comments=True))


def test_a_command_line_with_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parses(["build", "--aoi", "x", "--recipy", "y"])


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def containers(pod: Tree) -> list[Tree]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_the_manifests_are_valid(manifests: list[Tree]) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_a_misspelt_field_of_a_manifest_would_be_noticed(manifests: list[Tree]) -> None:
    pod = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**pod, "spec": {**pod["spec"], "replica": 1}}, "1.37", strict=True)


def test_every_manifest_is_in_the_kustomization(root: Path, kustomization: Tree) -> None:
    files = {path.name for path in (root / "docker/kubernetes").iterdir()} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files


def test_the_manifests_run_this_release_of_one_image(kustomization: Tree, workloads: dict[str, Tree]) -> None:
    images = {container["image"] for pod in workloads.values() for container in containers(pod)}
    assert images == {f"{REGISTRY}curate:{__version__}"}
    assert kustomization["images"] == [{"name": f"{REGISTRY}curate", "newTag": __version__}]


@pytest.mark.parametrize(
    ("pod", "service"), [("scheduler", "scheduler"), ("workers", "dask-worker"), ("prefect-worker", "worker")]
)
def test_kubernetes_and_compose_start_the_same_command_lines(
    workloads: dict[str, Tree], services: dict[str, Tree], pod: str, service: str
) -> None:
    assert workloads[pod]["spec"]["containers"][0]["command"] == services[service]["command"]


def test_no_pod_is_root_or_writes_to_its_image_or_talks_to_kubernetes(workloads: dict[str, Tree]) -> None:
    for name, pod in workloads.items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, name
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, name  # fmt: skip
            assert "memory" in container["resources"]["limits"], name
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}, name


def test_probes_ask_a_port_that_the_container_listens_to(
    workloads: dict[str, Tree], manifests: list[Tree], services: dict[str, Tree]
) -> None:
    deployments = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Deployment"]
    like = {"scheduler": "scheduler", "workers": "dask-worker", "prefect-worker": "worker"}
    for name in deployments:
        container = workloads[name]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert set(ports.values()) <= listens(services[like[name]]), name
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] in ports
            address = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
            assert address in str(services[like[name]]["healthcheck"]["test"]), name


def test_services_and_policies_select_pods_that_there_are(manifests: list[Tree], workloads: dict[str, Tree]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in workloads.items()}

    def selected(selector: Tree) -> list[str]:
        return [name for name, has in labels.items() if selector.items() <= has.items()]

    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Deployment":
            assert selected(spec["selector"]["matchLabels"]) == [manifest["metadata"]["name"]]
        elif manifest["kind"] == "Service":
            (name,) = selected(spec["selector"])
            ports = {port["name"] for port in workloads[name]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif manifest["kind"] == "NetworkPolicy":
            assert selected(spec["podSelector"]["matchLabels"]) == list(workloads)


def test_pods_find_the_scheduler_where_its_service_is(manifests: list[Tree], workloads: dict[str, Tree]) -> None:
    (service,) = [manifest for manifest in manifests if manifest["kind"] == "Service"]
    (config,) = [manifest for manifest in manifests if manifest["kind"] == "ConfigMap"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    address = f"tcp://{service['metadata']['name']}:{ports['scheduler']}"
    assert config["data"]["DASK_SCHEDULER_ADDRESS"] == address
    assert address in workloads["workers"]["spec"]["containers"][0]["command"]
    for pod in workloads.values():
        names = [source.get("configMapRef", {}).get("name") for source in pod["spec"]["containers"][0]["envFrom"]]
        assert config["metadata"]["name"] in names


def test_prefect_knows_every_setting_that_it_is_given(
    services: dict[str, Tree], manifests: list[Tree], dockerfile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import Settings

    given = {key: str(value) for service in services.values() for key, value in environment(service).items()}
    for manifest in manifests:
        given |= manifest["data"] if manifest["kind"] == "ConfigMap" else {}
    given |= dict(re.findall(r"\b(PREFECT_\w+)=(\S+)", dockerfile))
    given = {key: value for key, value in given.items() if key.startswith("PREFECT_")}
    assert len(given) > 4
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    assert set(given) <= set(Settings().to_environment_variables(exclude_unset=True))


def test_the_locks_hold_what_the_image_starts(root: Path) -> None:
    runtime = (root / "requirements.lock").read_text()
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in ("prefect", "distributed", "hatchling", "requests"):
        assert re.search(rf"^{name}==", runtime, re.MULTILINE), name
    assert {"prefect", "distributed", "requests"} <= {Requirement(line).name for line in declared}
