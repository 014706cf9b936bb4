"""The Dockerfiles: what they may do is read, and what a builder would run is run, without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile import Stage, stages

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "images").glob("*.Dockerfile"))
ROLES = sorted(path.name.removesuffix(".Dockerfile") for path in IMAGES)
OPT = "/opt/basketweave"
# Roles whose packages are installed here; CUDA's are 5 GB, of which the versions alone are resolved.
INSTALLED = ["airflow", "components", "serving"]


def build_and_final(role: str) -> tuple[Stage, Stage]:
    build, final = stages(ROOT / "images" / f"{role}.Dockerfile")
    return build, final


def test_there_is_an_image_for_each_role() -> None:
    assert ROLES == ["airflow", "components", "components-cuda", "serving"]


@pytest.mark.parametrize("role", ROLES)
def test_what_is_built_with_is_left_behind_and_pinned(role: str) -> None:
    build, final = build_and_final(role)
    assert build.name == "build"
    assert final.copies == [([OPT], OPT, "build")]
    for stage in (build, final):
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+[a-z0-9.-]*", stage.image), "a tag that moves"
    installs = [run for run in build.all("RUN") if "pip install" in run]
    assert len(installs) == 2
    assert re.fullmatch(r"python -m pip install uv==\d+\.\d+\.\d+", installs[0])
    lock = "locks/cuda.txt" if role.endswith("cuda") else "locks/cpu.txt"
    assert f"--constraint {lock} --build-constraint {lock}" in installs[1]


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_without_rights_and_writes_to_no_place_of_its_root(role: str) -> None:
    _, final = build_and_final(role)
    [user] = final.all("USER")
    assert int(user.partition(":")[0]) >= 10_000
    assert final.instructions[-1].word in {"CMD", "ENTRYPOINT"}
    names = [one.word for one in final.instructions]
    assert "RUN" not in names[names.index("USER") :], "built with rights, run without"
    environment = final.environment
    assert environment["HOME"] == "/tmp"
    assert environment["BASKETWEAVE_HOME"].startswith("/tmp/")
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("role", ROLES)
def test_what_is_copied_is_there_and_is_sent_to_the_builder(role: str) -> None:
    build, _ = build_and_final(role)
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for sources, _, _ in build.copies:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in sent or f"{Path(source).parent}/*{Path(source).suffix}" in sent, source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert set(packages) <= {source for sources, _, _ in build.copies for source in sources}


@pytest.mark.parametrize("role", ROLES)
def test_no_secret_is_in_an_image(role: str) -> None:
    for stage in build_and_final(role):
        assert stage.all("ADD") == []
        assert stage.all("ARG") == []
        for name in stage.environment:
            assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD|URL", name), name


def test_the_images_are_those_that_pods_and_chart_run() -> None:
    from components.core.command import PIPELINE

    _, serving = build_and_final("serving")
    deployment = (ROOT / "charts/basketweave/templates/deployment.yaml").read_text()
    assert serving.command("ENTRYPOINT") == ["python", "-m", "serving"]
    assert "command: [python, -m, serving]" in deployment
    _, components = build_and_final("components")
    assert components.command("CMD")[:2] == ["python", "-m"]
    assert components.command("CMD")[2].removeprefix("components.") in PIPELINE
    airflow = build_and_final("airflow")[1].environment
    example = (ROOT / "charts/basketweave/examples/airflow-values.yaml").read_text()
    assert f"dags_folder: {airflow['AIRFLOW__CORE__DAGS_FOLDER']}" in example


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a clean environment with the build stage's own uv."""
    folder = tmp_path_factory.mktemp("builder")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    build, _ = build_and_final("serving")
    [install] = [run for run in build.all("RUN") if run.startswith("python -m pip install uv")]
    subprocess.run(install, shell=True, check=True, capture_output=True, env=clean_environment(folder / "bin"))
    return folder / "bin"


def clean_environment(path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PIP_FIND_LINKS", "PIP_CERT", "SSL_CERT_FILE") if name in os.environ}
    links = {"UV_FIND_LINKS": kept["PIP_FIND_LINKS"]} if "PIP_FIND_LINKS" in kept else {}
    return {**kept, **links, "PATH": f"{path}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(path.parent)}


def context(build: Stage, folder: Path) -> Path:
    """What the builder has: the files that are copied, and no others."""
    for sources, target, _ in build.copies:
        for source in sources:
            place = folder / target / (source if target == "./" else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / source, place)
    return folder


def run_build(role: str, builder: Path, folder: Path, *, dry: bool = False) -> tuple[Path, str]:
    """Run the build stage's RUN lines, with `opt` in the folder in place of /opt/basketweave; returns that, and what
    was said. `dry`: packages are resolved, not installed."""
    build, _ = build_and_final(role)
    sources, opt, said = context(build, folder / "src"), folder / "opt", ""
    for run in build.all("RUN"):
        if run.startswith(("python -m pip install uv", "python -m compileall")):
            continue  # the builder has it; compiling takes minutes and changes nothing that is looked at
        if run.startswith("apt-get"):
            continue  # the compiler is here: .ci/run sees to it
        command = run.replace(OPT, str(opt))
        # As in the image, but that packages of an earlier build are not fetched again.
        environment = clean_environment(builder) | {**build.environment, "UV_NO_CACHE": "0"}
        if "UV_FIND_LINKS" in environment:
            command = command.removeprefix("UV_TORCH_BACKEND=cpu ")  # the folder has the build that is wanted
        if dry:
            command = command.replace("uv pip install", "uv pip install --dry-run")
        done = subprocess.run(
            command, shell=True, cwd=sources, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said += done.stdout + done.stderr
    return opt, said


@pytest.mark.slow
@pytest.mark.parametrize("role", INSTALLED)
def test_a_roles_packages_are_of_the_lock_and_its_command_answers(role: str, builder: Path, tmp_path: Path) -> None:
    opt, _ = run_build(role, builder, tmp_path)
    _, final = build_and_final(role)
    frozen = subprocess.run(
        [builder / "uv", "pip", "freeze", "--python", opt / "bin" / "python"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    packages = {line.partition("+")[0] for line in frozen if "==" in line}
    locked = set((ROOT / "locks/cpu.txt").read_text().split("\n"))
    assert len(packages) > 50
    assert packages - locked == set()
    command = (final.command("ENTRYPOINT") or final.command("CMD"))[:3]
    if command[0] == "python":
        command = [str(opt / "bin" / "python"), *command[1:], "--help"]
    else:
        command = [str(opt / "bin" / command[0]), *command[1:]]
    # Its home is what the image says, and nothing else can be written to.
    home = tmp_path / "tmp"
    home.mkdir()
    environment = {
        name: value.replace(OPT, str(opt)).replace("/tmp", str(home)).replace("/opt/airflow", str(home))
        for name, value in final.environment.items()
    }
    environment["PATH"] = f"{opt / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    before = contents(opt)
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(opt) == before, "it wrote into its own packages"
    if role == "serving":
        look = "from components.model.compiled import library; assert library('retrieval_batch')"
        subprocess.run([opt / "bin" / "python", "-c", look], env=environment, cwd=home, check=True)
    if role == "airflow":
        # Parsing the DAGs needs none of the steps' libraries.
        parse = [str(opt / "bin" / "python"), "-c", PARSE]
        done = subprocess.run(parse, env=environment, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    shutil.rmtree(opt)


PARSE = """
import importlib.util, os, pathlib, runpy, sys
assert not importlib.util.find_spec("torch") and not importlib.util.find_spec("feast")
os.environ |= {"BASKETWEAVE_ORCHESTRATION__MODE": "kubernetes", "BASKETWEAVE_ORCHESTRATION__IMAGE": "components"}
for file in sorted(pathlib.Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).glob("[!_]*.py")):
    runpy.run_path(str(file))
"""


@pytest.mark.slow
def test_the_cuda_images_packages_fit_together(builder: Path, tmp_path: Path) -> None:
    _, said = run_build("components-cuda", builder, tmp_path, dry=True)
    packages = {line[3:].partition("+")[0] for line in said.splitlines() if line.startswith(" + ")}
    locked = set((ROOT / "locks/cuda.txt").read_text().split("\n"))
    assert {name for package in packages if (name := package.partition("==")[0]) in {"torch", "dgl"}} == {
        "torch",
        "dgl",
    }
    assert len(packages) > 50
    assert {package for package in packages if not package.startswith("basketweave")} - locked == set()


def contents(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
