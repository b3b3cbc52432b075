"""What ``deploy/`` says, as far as containers are not needed: versions agree, commands parse, secrets arrive."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

import coocnet
from coocnet.cli import app
from coocnet.serve import Settings
from service import Service

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
README = (DEPLOY / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PICTURES, NUMBERS = 100_000_000, 512
"""What the Milvus cluster is for."""


def parsed(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


def instructions(name: str) -> list[list[str]]:
    """The words of an instruction of the Dockerfile, for each time that it stands there."""
    return [shlex.split(line.partition(" ")[2]) for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


def commands() -> list[list[str]]:
    """Every ``coocnet`` command here, without the name, but for the one of the Ray cluster."""
    text = README.replace("\\\n", " ")
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in [*block.splitlines()]
    ]
    found = []
    for line in lines:
        words = shlex.split(line)
        for name in ("coocnet:0.1.0", "coocnet"):
            after = words[words.index(name) + 1 :] if name in words and words[:2] != ["docker", "build"] else []
            if after and words[0] == "docker" and words[1:3] != ["compose", "logs"]:
                found.append(after)
    found.append(parsed("compose.yaml")["services"]["coocnet"]["command"])
    found.extend(yaml.safe_load(line) for line in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE))
    return found


def check_parses(words: list[str]) -> None:
    command = typer.main.get_command(app)
    command.commands[words[0]].make_context(words[0], list(words[1:]))


def images(node: object) -> list[str]:
    """Everything that stands under the key "image" as a text."""
    if isinstance(node, dict):
        own = [node["image"]] if isinstance(node.get("image"), str) else []
        return own + [image for below in node.values() for image in images(below)]
    return [image for below in node for image in images(below)] if isinstance(node, list) else []


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_parses(words):
    check_parses(words)


def test_a_command_with_an_option_that_is_not_there_is_caught():
    with pytest.raises(Exception, match="--no-such-option"):
        check_parses(["serve", "--no-such-option"])


def test_the_commands_of_all_files_were_found():
    assert sorted(words[0] for words in commands()) == ["index", "info", "serve", "serve", "serve"]


def test_the_command_of_the_ray_cluster_parses():
    entrypoint = shlex.split(parsed("ray-describe.yaml")["spec"]["entrypoint"])
    assert entrypoint[0] == "coocnet"
    check_parses(entrypoint[1:])


def test_images_have_versions_and_the_same_everywhere():
    values = parsed("milvus-values.yaml")["image"]["all"]
    named = [
        *images(parsed("compose.yaml")),
        *images(parsed("ray-describe.yaml")),
        f"{values['repository']}:{values['tag']}",
    ]
    named += [words[0] for words in instructions("FROM") if ":" in words[0]]
    versions = {}
    for image in named:
        name, _, version = image.rpartition(":")
        assert re.search(r"\d", version), image
        assert versions.setdefault(name, version) == version
    assert versions["coocnet"] == versions["coocnet-ray"] == coocnet.__version__
    assert set(re.findall(r"coocnet(?:-ray)?:([\d.]+)", README + DOCKERFILE)) == {coocnet.__version__}


def test_ray_has_one_version():
    (version,) = re.findall(r"^ARG RAY=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert parsed("ray-describe.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == version
    pinned = re.findall(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned in ([], [version])


def test_the_image_is_built_of_what_has_hashes_and_of_a_python_that_is_supported():
    installed = [words for words in instructions("RUN") if "install" in words and words[0].endswith("/pip")]
    (locked, torch, own) = installed[:3]
    assert {"--require-hashes", "requirements.lock"} <= set(locked)
    assert torch[-1] == "torch"
    assert own[-1] == "."
    assert all("--no-deps" in words for words in (torch, own))
    assert "--no-build-isolation" in own
    (python,) = re.findall(r"^FROM python:(\d\.\d+)-slim", DOCKERFILE, re.MULTILINE)
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_what_is_copied_exists_and_is_sent_to_the_build():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignored if line.startswith("!")]
    copied = [word for words in instructions("COPY") if not words[0].startswith("--from") for word in words[:-1]]
    copied = [word for word in copied if not word.startswith("--")]
    assert sorted(copied) == sorted(sent)
    assert all((ROOT / word).exists() for word in copied)
    needed = [PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src", "constraints.txt"]
    assert set(needed) <= set(copied)


def test_stages_come_before_those_that_build_on_them():
    known = set()
    for words in instructions("FROM"):
        assert words[0] in known or ":" in words[0]
        known.add(words[2])
    for words in instructions("COPY"):
        assert {word.partition("=")[2] for word in words if word.startswith("--from=")} <= known
    assert parsed("compose.yaml")["services"]["coocnet"]["build"]["target"] in known


def test_nothing_runs_as_root():
    for stage in DOCKERFILE.split("\nFROM ")[1:]:
        if stage.split()[2] in ("service", "ray"):
            assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1:] == ["coocnet"]
    (uid,) = re.findall(r"useradd --uid (\d+)", DOCKERFILE)
    cluster = parsed("ray-describe.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["securityContext"] == {"runAsNonRoot": True, "runAsUser": int(uid)}


def handed_over(folder: Path, *arguments: str) -> list[str]:
    code = (
        "import os, sys; print(os.environ.get('COOCNET_TOKEN'), os.environ.get('COOCNET_MILVUS_TOKEN'), sys.argv[1:])"
    )
    return subprocess.run(
        ["/bin/sh", DEPLOY / "entrypoint.sh", sys.executable, "-c", code, *arguments],
        env={"PATH": "/usr/bin:/bin", "COOCNET_SECRETS": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="for the image, which has a shell")
def test_secrets_that_are_mounted_reach_the_command(tmp_path):
    assert handed_over(tmp_path, "a b", "*") == ["None None ['a b', '*']"]
    (tmp_path / "coocnet_token").write_text("long & hard $HOME 'to' guess\n")
    assert handed_over(tmp_path) == ["long & hard $HOME 'to' guess None []"]
    (tmp_path / "coocnet_milvus_token").write_text("root:secret")
    assert handed_over(tmp_path) == ["long & hard $HOME 'to' guess root:secret []"]


def test_the_secret_of_the_service_is_one_that_is_handed_over():
    compose = parsed("compose.yaml")
    names = re.findall(r"^for name in (.*); do$", (DEPLOY / "entrypoint.sh").read_text(), re.MULTILINE)[0].split()
    assert set(compose["services"]["coocnet"]["secrets"]) == set(compose["secrets"])
    assert set(compose["secrets"]) <= {name.lower() for name in names}


def test_only_the_service_is_published_and_only_on_this_machine():
    services = parsed("compose.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert list(published) == ["coocnet"]
    assert all(port.startswith("127.0.0.1:") for port in published["coocnet"])
    inside = [name for name, service in services.items() if service["networks"] == ["storage"]]
    assert inside == ["etcd", "minio", "milvus"]
    assert parsed("compose.yaml")["networks"]["storage"]["internal"] is True


def test_the_variables_of_the_compose_file_are_explained():
    used = re.findall(r"\$\{(\w+):([?-])([^}]*)\}", (DEPLOY / "compose.yaml").read_text())
    table = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", README, re.MULTILINE))
    defaults = {name: default if kind == "-" else "none" for name, kind, default in used}
    assert {name: default.strip() for name, default in table.items()} == defaults


def test_a_service_has_time_to_end():
    grace = parsed("compose.yaml")["services"]["coocnet"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings("").closing_time_s


def test_the_query_nodes_hold_what_the_cluster_is_for():
    path, key, digest, integer, number = 80, 32, 32, 8, 4
    rows = 0
    rows += number * NUMBERS + key  # as described
    rows += number * NUMBERS + key  # as searched
    rows += NUMBERS + key  # in the approximate search
    rows += 2 * path + digest + 2 * integer + 2 * number  # the file
    assert f"**{rows:,}**" in README
    nodes = parsed("milvus-values.yaml")["queryNode"]
    memory = int(nodes["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    assert nodes["resources"]["requests"]["memory"] == nodes["resources"]["limits"]["memory"]
    assert rows * PICTURES <= 0.9 * memory * (nodes["replicas"] - 1)
    assert rows * PICTURES > 0.9 * memory * (nodes["replicas"] - 2)


def test_the_cores_of_the_ray_cluster_are_those_that_work():
    spec = parsed("ray-describe.yaml")["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    cores = group["replicas"] * int(container["resources"]["requests"]["cpu"])
    words = shlex.split(spec["entrypoint"])
    assert int(words[words.index("--workers") + 1]) == cores
    assert f"{cores} cores describe" in README


def test_the_package_as_source_has_all_of_it():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    assert "deploy" in included["include"]
    assert not fnmatch.filter((path.name for path in DEPLOY.iterdir()), "*.env")


def test_the_check_of_health_tells_a_running_service_from_none(serves, tmp_path, quick, scenes):
    from coocnet.index import open_index

    with open_index(tmp_path / "photos.cooc", quick) as index:
        index.sync(scenes[0] / "database")
    running: Service = serves(tmp_path / "photos.cooc")
    (checked,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    name, option, code = yaml.safe_load(checked)
    assert (name, option) == ("python", "-c")
    (address,) = re.findall(r"http://127\.0\.0\.1:8000/", code)
    for url, status in ((running.url, 0), ("http://127.0.0.1:9/", 1)):
        asked = subprocess.run([sys.executable, option, code.replace(address, url)], stderr=subprocess.DEVNULL)
        assert asked.returncode == status
